// The transforms of winograd.h on AVX2: sixteen channels, or two times eight columns, at a time.
#ifndef MULSHIFT_SRC_ISA_AVX2_WINOGRAD_H
#define MULSHIFT_SRC_ISA_AVX2_WINOGRAD_H

#include <immintrin.h>

#include "../winograd.h"
#include "avx2_dense.h"

namespace mulshift {
namespace avx2 {

// B' d
inline void winograd_rows(const __m256i (&d)[kSide], __m256i* t, size_t step) {
  const __m256i near = _mm256_sub_epi16(d[4], d[2]), far = _mm256_sub_epi16(d[3], d[1]), twice = _mm256_add_epi16(far, far);
  const __m256i a = _mm256_sub_epi16(_mm256_slli_epi16(d[2], 2), d[4]), b = _mm256_sub_epi16(_mm256_slli_epi16(d[1], 2), d[3]);
  t[0] = _mm256_add_epi16(_mm256_slli_epi16(_mm256_sub_epi16(d[0], d[2]), 2), near);
  t[step] = _mm256_add_epi16(a, b);
  t[2 * step] = _mm256_sub_epi16(a, b);
  t[3 * step] = _mm256_add_epi16(near, twice);
  t[4 * step] = _mm256_sub_epi16(near, twice);
  t[5 * step] = _mm256_sub_epi16(_mm256_sub_epi16(d[5], d[3]), _mm256_add_epi16(twice, twice));
}

inline void winograd_input(const uint8_t* pixels, size_t row, size_t channels, int32_t x_zero_point, int16_t* out,
                           size_t step) {
  const __m256i offset = _mm256_set1_epi16(static_cast<int16_t>(36 * x_zero_point));
  for (size_t ch = 0; ch < channels; ch += 16) {
    __m256i rows[kProducts];  // B' d, by column of d
    for (size_t x = 0; x < kSide; ++x) {
      __m256i d[kSide];
#pragma GCC unroll 6
      for (size_t y = 0; y < kSide; ++y) {
        d[y] = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(pixels + y * row + x * channels + ch)));
      }
      winograd_rows(d, rows + x, kSide);
    }
    int16_t* at = out + ch;
    for (size_t y = 0; y < kSide; ++y, at += kSide * step) {
      const __m256i* r = rows + kSide * y;
      __m256i t[kSide];
      winograd_rows({r[0], r[1], r[2], r[3], r[4], r[5]}, t, 1);
#pragma GCC unroll 6
      for (size_t x = 0; x < kSide; ++x) write(at + x * step, t[x]);
    }
    int16_t* centre = out + (kSide + 1) * step + ch;
    write(centre, _mm256_sub_epi16(read(centre), offset));
  }
}

inline __m256i six_times(__m256i x) {
  const __m256i twice = _mm256_add_epi16(x, x);
  return _mm256_add_epi16(_mm256_add_epi16(twice, twice), twice);
}

// G g
inline void winograd_taps(const __m256i (&g)[3], __m256i* u, size_t step) {
  const __m256i ends = _mm256_add_epi16(g[0], g[2]), twice = _mm256_add_epi16(g[1], g[1]);
  const __m256i far = _mm256_add_epi16(g[0], _mm256_slli_epi16(g[2], 2));
  u[0] = six_times(g[0]);
  u[step] = _mm256_add_epi16(ends, g[1]);
  u[2 * step] = _mm256_sub_epi16(ends, g[1]);
  u[3 * step] = _mm256_add_epi16(far, twice);
  u[4 * step] = _mm256_sub_epi16(far, twice);
  u[5 * step] = six_times(g[2]);
}

inline void winograd_weights(const int8_t* packed, size_t tap_stride, size_t channels, int16_t* out, size_t step) {
  for (size_t k4 = 0; k4 < channels / 4; ++k4, packed += 64, out += 64) {
    int16_t wide[9][64];
    for (size_t tap = 0; tap < 9; ++tap) expand(packed + tap * tap_stride, 1, 1, wide[tap]);
    for (size_t i = 0; i < 64; i += 16) {
      __m256i rows[3 * kSide];  // six of each column of g
#pragma GCC unroll 3
      for (size_t x = 0; x < 3; ++x) winograd_taps({read(wide[x] + i), read(wide[3 + x] + i), read(wide[6 + x] + i)}, rows + x, 3);
#pragma GCC unroll 6
      for (size_t y = 0; y < kSide; ++y) {
        __m256i u[kSide];
        winograd_taps({rows[3 * y], rows[3 * y + 1], rows[3 * y + 2]}, u, 1);
#pragma GCC unroll 6
        for (size_t x = 0; x < kSide; ++x) write(out + (kSide * y + x) * step + i, u[x]);
      }
    }
  }
}

inline void winograd_multiply(const WinogradProducts& p, bool is_first) {
  static constexpr int32_t kZero[kPanel] = {};
  Tile tile = {};
  tile.a_stride = p.input_stride * sizeof(int16_t);
  tile.k4 = p.channels / 4;
  tile.init_stride = is_first ? 0 : kPanel;
  each_run(p.tiles, kRows, [&](size_t first, size_t rows, size_t tiles) {
    const Accumulate sums = kAccumulate<StepByStep<StepS16, false>>[rows - 1];
    for (size_t i = 0; i < kProducts; ++i) {
      int32_t* acc = p.sums + i * p.sums_step + first * kPanel;
      tile.a = reinterpret_cast<const char*>(p.input + i * p.input_step + first * p.input_stride);
      tile.b = reinterpret_cast<const char*>(p.weights + i * p.weights_step);
      tile.init = is_first ? kZero : acc;
      sums(tile, tiles, acc, kPanel);
    }
  });
}

// A' m
inline void winograd_sums(const __m256i (&m)[kSide], __m256i* y, size_t step) {
  const __m256i s1 = _mm256_add_epi32(m[1], m[2]), d1 = _mm256_sub_epi32(m[1], m[2]);
  const __m256i s2 = _mm256_add_epi32(m[3], m[4]), d2 = _mm256_sub_epi32(m[3], m[4]);
  y[0] = _mm256_add_epi32(_mm256_add_epi32(m[0], s2), _mm256_slli_epi32(s1, 2));
  y[step] = _mm256_add_epi32(_mm256_add_epi32(d1, d1), d2);
  y[2 * step] = _mm256_add_epi32(s1, s2);
  y[3 * step] = _mm256_add_epi32(_mm256_add_epi32(d1, m[5]), _mm256_add_epi32(d2, d2));
}

inline void winograd_output(const int32_t* sums, size_t step, size_t columns, const int32_t* bias,
                            int32_t* const* acc) {
  static constexpr int kShift[kOutputs] = {3, 2, 1, 1};  // 24, 12, 6, 6 are 3 << these
  const __m256i inverse = _mm256_set1_epi32(0x38e38e39);  // 9 * inverse = 1 modulo 2^32
  for (size_t n = 0; n < columns; n += 8) {
    __m256i rows[kOutputs * kSide];  // A' m, by column of m
    for (size_t x = 0; x < kSide; ++x) {
      const int32_t* m = sums + x * step + n;
      const size_t line = kSide * step;
      winograd_sums({read(m), read(m + line), read(m + 2 * line), read(m + 3 * line), read(m + 4 * line), read(m + 5 * line)},
                    rows + x, kSide);
    }
    const __m256i b = read(bias + n);
#pragma GCC unroll 4
    for (size_t i = 0; i < kOutputs; ++i) {
      const __m256i* r = rows + kSide * i;
      __m256i y[kOutputs];
      winograd_sums({r[0], r[1], r[2], r[3], r[4], r[5]}, y, 1);
#pragma GCC unroll 4
      for (size_t j = 0; j < kOutputs; ++j) {
        const __m256i whole = _mm256_srai_epi32(_mm256_mullo_epi32(y[j], inverse), kShift[i] + kShift[j]);
        write(acc[i] + j * columns + n, _mm256_add_epi32(whole, b));
      }
    }
  }
}

constexpr WinogradKernels kWinograd = {winograd_weights, winograd_input, winograd_multiply, winograd_output};

}  // namespace avx2
}  // namespace mulshift

#endif
