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

const DenseKernels dense = {portable::kDense, {}, {}, {}, {}, {}, {}, {}, {}, {}, nullptr, Finish<V>::run};
const DepthwiseKernels depthwise = {DepthwiseKernel<V>::interleave, DepthwiseKernel<V>::multiply,
                                    DepthwiseKernel<V>::multiply_to_bytes};

}  // namespace

const Isa portable_isa = Tables<V>::isa("portable", dense, depthwise);

}  // namespace mulshift
