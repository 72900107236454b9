// The table of NEON with dot products.
#include "../depthwise.h"
#include "../isa.h"
#include "../simd/neon.h"
#include "neondot_dense.h"
#include "neondot_packed.h"
#include "neondot_sparse.h"
#include "neondot_three.h"
#include "tables.h"

namespace mulshift {
namespace {

using V = neon::V;

const DenseKernels dense = {neon::kDense, {}, {}, {}, {}, {}, {}, neon::kPacked<4>,
                            neon::kPacked<2>, {}, nullptr, Finish<V>::run,
                            neon::kSparse<8>, neon::kSparse<4>, {}, neon::kFewSparse<8>, neon::kFewSparse<4>};
const DepthwiseKernels depthwise = {DepthwiseKernel<V>::interleave, DepthwiseKernel<V>::multiply,
                                    DepthwiseKernel<V>::multiply_to_bytes, &neon::kThree};

}  // namespace

const Isa neondot_isa = Tables<V>::isa("neondot", dense, depthwise);

}  // namespace mulshift
