// Scaled dot-product attention in integers: blocks of scores, weights and sums around isa().dense and isa().softmax.
//
//   s_j = sum over d of (q_d - zq) * (k_jd - zk)       one row of q, keys j < N
//   e_j = weight of s_j below the greatest one         softmax.h; 0 where the key is masked
//   y_e = clamp(((sum over j of e_j * (v_je - zv)) * b + 2^(c-1)) >> c)       b, c of the row: reciprocal.h
//
// Layouts    q: u8 [B][M][H][D], k: s8 [B][N][G][D], v: s8 [B][N][G][E], y [B][M][H][E]; head h reads group h / (H / G).
// Ranges     D * max |q - zq| * max |k - zk| < 2^30 and N * 255 * max |v - zv| < 2^31, N <= 65536: checked in each call.
// Zero points   zk adds the same to every score of a row, so it drops out; -zv * sum e is the same for every column of a
//            row and is taken off before the rescaling; zq, or what is left of it (dense.h), is a bias of each key.
// Overflow   kernels hold s + zk * sum (q - zq): |s| with zk = 0, which the same bound covers, since max |k - zk| >= 128.
#ifndef MULSHIFT_SRC_ATTENTION_H
#define MULSHIFT_SRC_ATTENTION_H

#include <cstddef>
#include <cstdint>

#include "softmax.h"
#include "tensor.h"

namespace mulshift {

constexpr size_t kMostKeys = 65536;

struct AttentionSpec {
  int32_t q_zero_point, k_zero_point, v_zero_point;
  Exponent exponent;
  int32_t multiplier, shift;
  Output out;
};

struct AttentionShape {
  size_t batch, rows, keys, heads, groups, depth, width;  // B, M, N, H, G, D, E
};

// Bytes from one to the next of B, H, M, N; 0 where it is repeated. data is null where nothing is masked.
struct Mask {
  const uint8_t* data = nullptr;
  size_t batch = 0, head = 0, row = 0, key = 0;
};

// Null, or what is wrong.
const char* attention(const AttentionSpec& spec, const AttentionShape& shape, const uint8_t* q, const int8_t* k,
                      const int8_t* v, const Mask& mask, void* y, const Parallel& parallel);

}  // namespace mulshift

#endif
