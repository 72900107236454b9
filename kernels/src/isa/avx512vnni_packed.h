// Few rows by weights of 4 or 2 bits on AVX-512 VNNI, straight from the packed weights (low_bits.h).
//
//   fields f = w + HALF:   sum of x * w = sum of x * f - HALF * sum of x     f <= 15 is a positive s8
#ifndef MULSHIFT_SRC_ISA_AVX512VNNI_PACKED_H
#define MULSHIFT_SRC_ISA_AVX512VNNI_PACKED_H

#include "../low_bits.h"
#include "avx512vnni_dense.h"

namespace mulshift {
namespace avx512 {

inline uint32_t sum_of_bytes(const uint8_t* x, size_t n) {
  uint32_t sum = 0;
  for (size_t i = 0; i < n; ++i) sum += x[i];
  return sum;
}

template <int BITS, size_t ROWS>
void packed_rows(const Product& p, size_t first, int32_t* acc, size_t acc_stride) {
  constexpr size_t kSteps = 8 / BITS;
  constexpr uint32_t kHalf = 1u << (BITS - 1);
  const __m512i mask = _mm512_set1_epi8((1 << BITS) - 1);
  const char* rows = static_cast<const char*>(p.a) + first * p.a_stride;
  __m512i folded[ROWS];
  for (size_t r = 0; r < ROWS; ++r) {
    const uint32_t sum = sum_of_bytes(reinterpret_cast<const uint8_t*>(rows + r * p.a_stride), 4 * p.k4);
    folded[r] = _mm512_set1_epi32(static_cast<int32_t>(kHalf * sum));
  }
  for (size_t n = 0; n < p.columns; n += kPanel) {
    const char *a = rows, *b = static_cast<const char*>(p.b) + n / kPanel * p.b_stride;
    __m512i sums[ROWS][2];  // by turns: one waits for the last product less often
    for (size_t r = 0; r < ROWS; ++r) sums[r][0] = sums[r][1] = _mm512_setzero_si512();
    for (size_t left = p.k4; left; b += kStepBytes) {
      const __m512i packed = _mm512_loadu_si512(b);
      const size_t steps = left < kSteps ? left : kSteps;
#pragma GCC unroll 4
      for (size_t i = 0; i < kSteps; ++i) {
        if (i >= steps) break;
        const __m512i fields = _mm512_and_si512(_mm512_srli_epi16(packed, static_cast<unsigned>(i) * BITS), mask);
#pragma GCC unroll 2
        for (size_t r = 0; r < ROWS; ++r) add_products(sums[r][i % 2], broadcast(a + r * p.a_stride + 4 * i), fields);
      }
      left -= steps;
      a += 4 * steps;
    }
    for (size_t r = 0; r < ROWS; ++r) {
      const __m512i found = _mm512_sub_epi32(_mm512_add_epi32(sums[r][0], sums[r][1]), folded[r]);
      const __m512i init = _mm512_loadu_si512(p.init + (first + r) * p.init_stride + n);
      _mm512_storeu_si512(acc + (first + r) * acc_stride + n, _mm512_add_epi32(found, init));
    }
  }
}

template <int BITS>
void multiply_packed(const Product& p, int32_t* acc, size_t acc_stride) {
  size_t r = 0;
  for (; r + 2 <= p.rows; r += 2) packed_rows<BITS, 2>(p, r, acc, acc_stride);
  if (r < p.rows) packed_rows<BITS, 1>(p, r, acc, acc_stride);
}

template <int BITS>
constexpr Dense kPacked = {kFewRows, 1, Held::raw, nullptr, 1, load_row, load_windows, multiply_packed<BITS>, nullptr};

}  // namespace avx512
}  // namespace mulshift

#endif
