// Tables that every instruction set fills from its V alone.
#ifndef MULSHIFT_SRC_ISA_TABLES_H
#define MULSHIFT_SRC_ISA_TABLES_H

#include "../elementwise.h"
#include "../hadamard.h"
#include "../isa.h"
#include "../lerp.h"
#include "../low_bits.h"
#include "../norm.h"
#include "../pack.h"
#include "../pool.h"
#include "../reduce.h"
#include "../rotary.h"
#include "../row_quantize.h"
#include "../softmax.h"
#include "../sparse.h"
#include "../table.h"

namespace mulshift {

template <class V>
struct Tables {
  static constexpr ElementwiseKernels elementwise = {Elementwise<V>::requantize, Elementwise<V>::add,
                                                     Elementwise<V>::mul, Elementwise<V>::affine,
                                                     Elementwise<V>::scale};
  static constexpr HadamardKernels hadamard = {Hadamard<V>::group};
  static constexpr LerpKernels lerp = {Lerp<V>::row};
  static constexpr LowBitsKernels low_bits = {unpack<V, 4>, unpack<V, 2>, unpack<V, 1>, unpack_blocks<V>};
  static constexpr NormKernels norm = {Norm<V>::sums, Norm<V>::scale};
  static constexpr PackKernels pack = {Pack<V>::rows, Pack<V>::columns};
  static constexpr PoolKernels pool = {MaxPool<V, uint8_t>::run, MaxPool<V, int8_t>::run};
  static constexpr ReduceKernels reduce = {Reduce<V>::row, Reduce<V>::columns};
  static constexpr RotaryKernels rotary = {Rotary<V>::within, Rotary<V>::row};
  static constexpr RowKernels rows = {RowQuantize<V>::run};
  static constexpr SoftmaxKernels softmax = {Softmax<V>::weights, Softmax<V>::powers, Softmax<V>::scale, Softmax<V>::divide};
  static constexpr SparseKernels sparse = {gather<V>};
  static constexpr TableKernels table = {Table<V>::bytes, Table<V>::words, Table<V>::wide_bytes, Table<V>::wide_words};

  // The row of an instruction set: what it brings itself, the rest from here.
  static constexpr Isa isa(const char* name, const DenseKernels& dense, const DepthwiseKernels& depthwise,
                           const TableKernels& own_table = table, const SoftmaxKernels& own_softmax = softmax) {
    return {name, dense,  depthwise, elementwise, hadamard, lerp,    low_bits, norm,
            pack, pool, reduce,    rotary,      rows,     own_softmax, sparse,   own_table};
  }
};

}  // namespace mulshift

#endif
