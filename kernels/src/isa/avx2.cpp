// The table of AVX2.
#include "../depthwise.h"
#include "../isa.h"
#include "../simd/avx2.h"
#include "avx2_dense.h"
#include "avx2_five.h"
#include "avx2_pairs.h"
#include "avx2_small.h"
#include "avx2_sparse.h"
#include "avx2_three.h"
#include "avx2_weights.h"
#include "avx2_winograd.h"
#include "tables.h"
#include "x86_table.h"

namespace mulshift {
namespace {

using V = avx2::V;

const DenseKernels dense = {avx2::kDense,
                            avx2::kPairSafe,
                            avx2::kFours<avx2::SlowU8>,
                            avx2::kFours<avx2::SlowS16>,
                            avx2::kSmall<8>,
                            avx2::kSmall<32>,
                            avx2::kFew,
                            avx2::kPacked<4>,
                            avx2::kPacked<2>,
                            avx2::kPackedBlocks,
                            &avx2::kWinograd,
                            Finish<V>::run,
                            avx2::kSparse<8>,
                            avx2::kSparse<4>,
                            avx2::kShared,
                            avx2::kFewSparse<8>,
                            avx2::kFewSparse<4>,
                            avx2::kOfCall};
const DepthwiseKernels depthwise = {DepthwiseKernel<V>::interleave, DepthwiseKernel<V>::multiply,
                                    DepthwiseKernel<V>::multiply_to_bytes, &avx2::kThree, &avx2::kFives};
const TableKernels table = {table_bytes<V>, table_words<V>, Table<V>::wide_bytes, Table<V>::wide_words};

const SoftmaxKernels softmax = {avx2::ByteWeights::run, Softmax<V>::powers, Softmax<V>::scale, Softmax<V>::divide};

}  // namespace

const Isa avx2_isa = Tables<V>::isa("avx2", dense, depthwise, table, softmax);

}  // namespace mulshift
