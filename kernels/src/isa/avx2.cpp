// The table of AVX2.
#include "../depthwise.h"
#include "../elementwise.h"
#include "../isa.h"
#include "../pool.h"
#include "../simd/avx2.h"

namespace mulshift {
namespace {

using V = avx2::V;

const DenseKernels dense = {};
const DepthwiseKernels depthwise = {};
const ElementwiseKernels elementwise = {Elementwise<V>::requantize, Elementwise<V>::add, Elementwise<V>::mul,
                                        Elementwise<V>::affine};
const PoolKernels pool = {};

}  // namespace

const Isa avx2_isa = {"avx2", dense, depthwise, elementwise, pool};

}  // namespace mulshift
