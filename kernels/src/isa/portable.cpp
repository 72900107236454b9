// The table of plain C++.
#include "../depthwise.h"
#include "../isa.h"
#include "../epilogue.h"
#include "../simd/portable.h"
#include "portable_dense.h"
#include "tables.h"

namespace mulshift {
namespace {

using V = portable::V;

const DenseKernels dense = {portable::kDense, {}, {}, {}, {}, nullptr, Finish<V>::run};
const DepthwiseKernels depthwise = {DepthwiseKernel<V>::interleave, DepthwiseKernel<V>::multiply,
                                    DepthwiseKernel<V>::multiply_to_bytes};

}  // namespace

const Isa portable_isa = {"portable",
                        dense,
                        depthwise,
                        Tables<V>::elementwise,
                        Tables<V>::hadamard,
                        Tables<V>::lerp,
                        Tables<V>::norm,
                        Tables<V>::pack,
                        Tables<V>::pool,
                        Tables<V>::reduce,
                        Tables<V>::rotary,
                        Tables<V>::softmax,
                        Tables<V>::table};

}  // namespace mulshift
