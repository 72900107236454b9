// The transforms of winograd.h on AVX2: sixteen channels, or two times eight columns, at a time.
#ifndef MULSHIFT_SRC_ISA_AVX2_WINOGRAD_H
#define MULSHIFT_SRC_ISA_AVX2_WINOGRAD_H

#include <immintrin.h>

#include "../winograd.h"
#include "avx2_dense.h"

namespace mulshift {
namespace avx2 {

inline void winograd_input(const uint8_t* const* pixels, size_t channels, int32_t x_zero_point, int16_t* out,
                           size_t step) {
  const __m256i offset = _mm256_set1_epi16(static_cast<int16_t>(4 * x_zero_point));
  for (size_t ch = 0; ch < channels; ch += 16) {
    __m256i rows[4][4];  // B' d, by column of d
#pragma GCC unroll 4
    for (size_t x = 0; x < 4; ++x) {
      __m256i d[4];
#pragma GCC unroll 4
      for (size_t y = 0; y < 4; ++y) {
        d[y] = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(pixels[4 * y + x] + ch)));
      }
      rows[0][x] = _mm256_sub_epi16(d[0], d[2]);
      rows[1][x] = _mm256_add_epi16(d[1], d[2]);
      rows[2][x] = _mm256_sub_epi16(d[2], d[1]);
      rows[3][x] = _mm256_sub_epi16(d[1], d[3]);
    }
#pragma GCC unroll 4
    for (size_t y = 0; y < 4; ++y) {
      const __m256i* d = rows[y];
      const __m256i sum = _mm256_add_epi16(d[1], d[2]);
      int16_t* at = out + 4 * y * step + ch;
      write(at, _mm256_sub_epi16(d[0], d[2]));
      write(at + step, y == 1 ? _mm256_sub_epi16(sum, offset) : sum);
      write(at + 2 * step, _mm256_sub_epi16(d[2], d[1]));
      write(at + 3 * step, _mm256_sub_epi16(d[1], d[3]));
    }
  }
}

// 2 g0, g0 + g1 + g2, g0 - g1 + g2, 2 g2
inline void winograd_rows(const __m256i (&g)[3], __m256i* u, size_t step) {
  const __m256i ends = _mm256_add_epi16(g[0], g[2]);
  u[0] = _mm256_add_epi16(g[0], g[0]);
  u[step] = _mm256_add_epi16(ends, g[1]);
  u[2 * step] = _mm256_sub_epi16(ends, g[1]);
  u[3 * step] = _mm256_add_epi16(g[2], g[2]);
}

inline void winograd_weights(const int8_t* packed, size_t tap_stride, size_t channels, int16_t* out, size_t step) {
  for (size_t k4 = 0; k4 < channels / 4; ++k4, packed += 64, out += 64) {
    int16_t wide[9][64];
    for (size_t tap = 0; tap < 9; ++tap) expand(packed + tap * tap_stride, 1, 1, wide[tap]);
    for (size_t i = 0; i < 64; i += 16) {
      __m256i rows[12];  // four of each column of g
#pragma GCC unroll 3
      for (size_t x = 0; x < 3; ++x) winograd_rows({read(wide[x] + i), read(wide[3 + x] + i), read(wide[6 + x] + i)}, rows + x, 3);
#pragma GCC unroll 4
      for (size_t y = 0; y < 4; ++y) {
        __m256i u[4];
        winograd_rows({rows[3 * y], rows[3 * y + 1], rows[3 * y + 2]}, u, 1);
#pragma GCC unroll 4
        for (size_t x = 0; x < 4; ++x) write(out + (4 * y + x) * step + i, u[x]);
      }
    }
  }
}

inline void winograd_output(const int32_t* sums, size_t step, size_t columns, const int32_t* bias,
                            int32_t* const* acc) {
  for (size_t n = 0; n < columns; n += 8) {
    __m256i rows[2][4];  // A' m, by column of m
#pragma GCC unroll 4
    for (size_t x = 0; x < 4; ++x) {
      const int32_t* m = sums + x * step + n;
      const __m256i m0 = read(m), m1 = read(m + 4 * step), m2 = read(m + 8 * step), m3 = read(m + 12 * step);
      rows[0][x] = _mm256_add_epi32(_mm256_add_epi32(m0, m1), m2);
      rows[1][x] = _mm256_sub_epi32(_mm256_sub_epi32(m1, m2), m3);
    }
    const __m256i b = read(bias + n);
#pragma GCC unroll 2
    for (size_t y = 0; y < 2; ++y) {
      const __m256i* m = rows[y];
      const __m256i left = _mm256_add_epi32(_mm256_add_epi32(m[0], m[1]), m[2]);
      const __m256i right = _mm256_sub_epi32(_mm256_sub_epi32(m[1], m[2]), m[3]);
      write(acc[2 * y] + n, _mm256_add_epi32(_mm256_srai_epi32(left, 2), b));
      write(acc[2 * y + 1] + n, _mm256_add_epi32(_mm256_srai_epi32(right, 2), b));
    }
  }
}

constexpr WinogradKernels kWinograd = {winograd_weights, winograd_input, winograd_output};

}  // namespace avx2
}  // namespace mulshift

#endif
