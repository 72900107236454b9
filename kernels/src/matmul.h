// The product of two activations: blocks of rows around isa().dense, packed in the call.
//
//   y[m][n] = epilogue(sum over k of (x[m][k] - zx) * (w[k][n] - zw))
//
// Layouts    x: u8 [M][K], w: s8 [K][N], y: [M][N], of each pair of batches; row-major.
// Ranges     K * max |x - zx| * max |w - zw| < 2^31: checked in each call. Of it each way of the epilogue is chosen.
// Zero points   zx, or what is left of it (dense.h), is a bias of each column; -zw * sum (x - zx) is the same for every column
//            of a row and is taken off its sums.
// Overflow   the sums before that are modulo 2^32.
#ifndef MULSHIFT_SRC_MATMUL_H
#define MULSHIFT_SRC_MATMUL_H

#include <cstddef>
#include <cstdint>

#include "broadcast.h"
#include "tensor.h"

namespace mulshift {

struct MatmulSpec {
  int32_t x_zero_point, w_zero_point;
  const int32_t *b, *c;
  size_t ratios;  // of b and c each: 1 or N
  Output out;
};

struct MatmulShape {
  size_t m, k, n, batches;
  Loops loops;  // over the batches: operands x and w, in matrices
};

// Null, or what is wrong.
const char* matmul(const MatmulSpec& spec, const MatmulShape& shape, const uint8_t* x, const int8_t* w, void* y,
                   const Parallel& parallel);

}  // namespace mulshift

#endif
