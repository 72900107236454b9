// Few rows by weights of 4 or 2 bits on NEON with dot products, straight from the packed weights (low_bits.h).
//
//   a holds x - 128, fields f = w + HALF:   sum of a * w = sum of a * f - HALF * sum of a     f <= 15 is a positive s8
#ifndef MULSHIFT_SRC_ISA_NEONDOT_PACKED_H
#define MULSHIFT_SRC_ISA_NEONDOT_PACKED_H

#include "../low_bits.h"
#include "neondot_dense.h"

namespace mulshift {
namespace neon {

template <int BITS>
void packed_row(const Product& p, size_t row, int32_t* acc) {
  constexpr size_t kSteps = 8 / BITS;
  constexpr int32_t kHalf = 1 << (BITS - 1);
  const uint8x16_t mask = vdupq_n_u8((1 << BITS) - 1);
  const int8_t* x = static_cast<const int8_t*>(p.a) + row * p.a_stride;
  int32_t sum = 0;
  for (size_t i = 0; i < 4 * p.k4; ++i) sum += x[i];
  for (size_t n = 0; n < p.columns; n += kPanel) {
    const uint8_t* b = static_cast<const uint8_t*>(p.b) + n / kPanel * p.b_stride;
    const int8_t* a = x;
    V sums = V::load(p.init + row * p.init_stride + n);
    for (size_t q = 0; q < 4; ++q) sums.v[q] = vsubq_s32(sums.v[q], vdupq_n_s32(kHalf * sum));
    for (size_t left = p.k4; left; b += kStepBytes) {
      const size_t steps = left < kSteps ? left : kSteps;
      for (size_t i = 0; i < steps; ++i, a += 4) {
        const int8x16_t shift = vdupq_n_s8(static_cast<int8_t>(-static_cast<int>(i) * BITS));
        int32_t four;
        std::memcpy(&four, a, sizeof(four));
        const int8x16_t wide = vreinterpretq_s8_s32(vdupq_n_s32(four));
#pragma GCC unroll 4
        for (size_t q = 0; q < 4; ++q) {
          const uint8x16_t fields = vandq_u8(vshlq_u8(vld1q_u8(b + 16 * q), shift), mask);
          sums.v[q] = vdotq_s32(sums.v[q], wide, vreinterpretq_s8_u8(fields));
        }
      }
      left -= steps;
    }
    sums.store(acc + n);
  }
}

template <int BITS>
void multiply_packed(const Product& p, int32_t* acc, size_t acc_stride) {
  for (size_t r = 0; r < p.rows; ++r) packed_row<BITS>(p, r, acc + r * acc_stride);
}

template <int BITS>
constexpr Dense kPacked = {kFewRows, 1, Held::less_128, nullptr, 1, load_row, load_windows, multiply_packed<BITS>, nullptr};

}  // namespace neon
}  // namespace mulshift

#endif
