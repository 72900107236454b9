// The table of plain C++.
#include "../depthwise.h"
#include "../elementwise.h"
#include "../isa.h"
#include "../pool.h"
#include "../simd/portable.h"

namespace mulshift {
namespace {

using V = portable::V;

const DenseKernels dense = {};
const DepthwiseKernels depthwise = {};
const ElementwiseKernels elementwise = {Elementwise<V>::requantize, Elementwise<V>::add, Elementwise<V>::mul,
                                        Elementwise<V>::affine};
const PoolKernels pool = {};

}  // namespace

const Isa portable_isa = {"portable", dense, depthwise, elementwise, pool};

}  // namespace mulshift
