// The instruction sets: one table of kernels each, chosen once at run time. Every table gives the same bits.
//
// A file isa/NAME.cpp is compiled for NAME and fills a table from templates over its simd/NAME.h.
#ifndef MULSHIFT_SRC_ISA_H
#define MULSHIFT_SRC_ISA_H

namespace mulshift {

struct DenseKernels;
struct DepthwiseKernels;
struct ElementwiseKernels;
struct HadamardKernels;
struct LerpKernels;
struct LowBitsKernels;
struct NormKernels;
struct PackKernels;
struct PoolKernels;
struct ReduceKernels;
struct RotaryKernels;
struct RowKernels;
struct SoftmaxKernels;
struct SparseKernels;
struct TableKernels;

struct Isa {
  const char* name;  // what MULSHIFT_ISA takes
  const DenseKernels& dense;
  const DepthwiseKernels& depthwise;
  const ElementwiseKernels& elementwise;
  const HadamardKernels& hadamard;
  const LerpKernels& lerp;
  const LowBitsKernels& low_bits;
  const NormKernels& norm;
  const PackKernels& pack;
  const PoolKernels& pool;
  const ReduceKernels& reduce;
  const RotaryKernels& rotary;
  const RowKernels& rows;
  const SoftmaxKernels& softmax;
  const SparseKernels& sparse;
  const TableKernels& table;
};

extern const Isa portable_isa;
#if defined(__x86_64__) || defined(_M_X64)
extern const Isa avx2_isa;
extern const Isa avx512vnni_isa;
#endif
#if defined(__aarch64__)
extern const Isa neondot_isa;
#endif

// The best one that this machine runs, or the one that the environment variable MULSHIFT_ISA names.
// Null if MULSHIFT_ISA names one that is unknown or that this machine cannot run: an error, never another choice.
const Isa* isa();

}  // namespace mulshift

#endif
