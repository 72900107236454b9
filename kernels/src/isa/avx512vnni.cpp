// The table of AVX-512 with VNNI.
#include "../depthwise.h"
#include "../isa.h"
#include "../simd/avx512.h"
#include "avx512vnni_dense.h"
#include "avx512vnni_packed.h"
#include "avx512vnni_sparse.h"
#include "avx512vnni_three.h"
#include "tables.h"

namespace mulshift {
namespace {

using V = avx512::V;

const DenseKernels dense = {avx512::kDense, {}, {}, {}, {}, {}, {}, avx512::kPacked<4>,
                            avx512::kPacked<2>, {}, nullptr, Finish<V>::run,
                            avx512::kSparse<8>, avx512::kSparse<4>, {}, avx512::kFewSparse<8>, avx512::kFewSparse<4>};
const DepthwiseKernels depthwise = {DepthwiseKernel<V>::interleave, DepthwiseKernel<V>::multiply,
                                    DepthwiseKernel<V>::multiply_to_bytes, &avx512::kThree};

}  // namespace

const Isa avx512vnni_isa = Tables<V>::isa("avx512vnni", dense, depthwise);

}  // namespace mulshift
