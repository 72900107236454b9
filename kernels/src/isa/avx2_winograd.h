// The transforms of winograd.h on AVX2: sixteen channels, or two times eight columns, at a time.
#ifndef MULSHIFT_SRC_ISA_AVX2_WINOGRAD_H
#define MULSHIFT_SRC_ISA_AVX2_WINOGRAD_H

#include <immintrin.h>

#include "../winograd.h"
#include "avx2_dense.h"

namespace mulshift {
namespace avx2 {

// Sixteen channels of a pixel.
inline __m256i widened(const uint8_t* x) {
  return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
}

inline void winograd_input(const uint8_t* pixels, size_t row, size_t channels, int32_t x_zero_point, int16_t* out,
                           size_t step) {
  const __m256i offset = _mm256_set1_epi16(static_cast<int16_t>(4 * x_zero_point));
  for (size_t ch = 0; ch < channels; ch += 16) {
    __m256i rows[4][4];  // B' d, by column of d
#pragma GCC unroll 4
    for (size_t x = 0; x < 4; ++x) {
      __m256i d[4];
#pragma GCC unroll 4
      for (size_t y = 0; y < 4; ++y) d[y] = widened(pixels + y * row + x * channels + ch);
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

inline void winograd_output(const int32_t* sums, size_t step, const int32_t* bias, int32_t* acc, size_t row) {
  for (size_t n = 0; n < kPanel; n += 8) {
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
      write(acc + y * row + n, _mm256_add_epi32(_mm256_srai_epi32(left, 2), b));
      write(acc + y * row + kPanel + n, _mm256_add_epi32(_mm256_srai_epi32(right, 2), b));
    }
  }
}

inline __m256i four_times(__m256i x) { return _mm256_slli_epi16(x, 2); }

// B' d of larger tiles.
inline void winograd_inputs(const __m256i (&d)[6], __m256i* out, size_t step) {
  const __m256i a = _mm256_sub_epi16(d[4], d[2]), b = _mm256_sub_epi16(d[3], d[1]);
  const __m256i twice = _mm256_add_epi16(b, b), c = _mm256_sub_epi16(d[0], d[2]), e = _mm256_sub_epi16(d[5], d[3]);
  const __m256i p = _mm256_sub_epi16(four_times(d[2]), d[4]), q = _mm256_sub_epi16(four_times(d[1]), d[3]);
  out[0] = _mm256_add_epi16(four_times(c), a);
  out[step] = _mm256_add_epi16(p, q);
  out[2 * step] = _mm256_sub_epi16(p, q);
  out[3 * step] = _mm256_add_epi16(a, twice);
  out[4 * step] = _mm256_sub_epi16(a, twice);
  out[5 * step] = _mm256_sub_epi16(e, four_times(b));
}

inline void winograd_input_four(const uint8_t* pixels, size_t row, size_t channels, int32_t x_zero_point, int16_t* out,
                                size_t step) {
  const __m256i offset = _mm256_set1_epi16(static_cast<int16_t>(36 * x_zero_point));
  for (size_t ch = 0; ch < channels; ch += 16) {
    __m256i rows[36];  // B' d, by column of d
    for (size_t x = 0; x < 6; ++x) {
      __m256i d[6];
#pragma GCC unroll 6
      for (size_t y = 0; y < 6; ++y) d[y] = widened(pixels + y * row + x * channels + ch);
      winograd_inputs(d, rows + x, 6);
    }
    for (size_t y = 0; y < 6; ++y) {
      const __m256i* r = rows + 6 * y;
      __m256i made[6];
      winograd_inputs({r[0], r[1], r[2], r[3], r[4], r[5]}, made, 1);
#pragma GCC unroll 6
      for (size_t x = 0; x < 6; ++x) write(out + (6 * y + x) * step + ch, made[x]);
    }
    write(out + 7 * step + ch, _mm256_sub_epi16(read(out + 7 * step + ch), offset));
  }
}

// G g of larger tiles.
inline void winograd_rows_four(const __m256i (&g)[3], __m256i* u, size_t step) {
  const __m256i ends = _mm256_add_epi16(g[0], g[2]), twice = _mm256_add_epi16(g[1], g[1]), six = _mm256_set1_epi16(6);
  const __m256i far = _mm256_add_epi16(g[0], four_times(g[2]));
  u[0] = _mm256_mullo_epi16(g[0], six);
  u[step] = _mm256_add_epi16(ends, g[1]);
  u[2 * step] = _mm256_sub_epi16(ends, g[1]);
  u[3 * step] = _mm256_add_epi16(far, twice);
  u[4 * step] = _mm256_sub_epi16(far, twice);
  u[5 * step] = _mm256_mullo_epi16(g[2], six);
}

inline void winograd_weights_four(const int8_t* packed, size_t tap_stride, size_t channels, int16_t* out, size_t step) {
  for (size_t k4 = 0; k4 < channels / 4; ++k4, packed += 64, out += 64) {
    int16_t wide[9][64];
    for (size_t tap = 0; tap < 9; ++tap) expand(packed + tap * tap_stride, 1, 1, wide[tap]);
    for (size_t i = 0; i < 64; i += 16) {
      __m256i rows[18];  // six of each column of g
      for (size_t x = 0; x < 3; ++x) {
        winograd_rows_four({read(wide[x] + i), read(wide[3 + x] + i), read(wide[6 + x] + i)}, rows + x, 3);
      }
      for (size_t y = 0; y < 6; ++y) {
        __m256i u[6];
        winograd_rows_four({rows[3 * y], rows[3 * y + 1], rows[3 * y + 2]}, u, 1);
        for (size_t x = 0; x < 6; ++x) write(out + (6 * y + x) * step + i, u[x]);
      }
    }
  }
}

// A' m of larger tiles.
inline void winograd_outputs(const __m256i (&m)[6], __m256i* y, size_t step) {
  const __m256i s = _mm256_add_epi32(m[1], m[2]), d = _mm256_sub_epi32(m[1], m[2]);
  const __m256i u = _mm256_add_epi32(m[3], m[4]), v = _mm256_sub_epi32(m[3], m[4]);
  y[0] = _mm256_add_epi32(_mm256_add_epi32(m[0], _mm256_slli_epi32(s, 2)), u);
  y[step] = _mm256_add_epi32(_mm256_add_epi32(d, d), v);
  y[2 * step] = _mm256_add_epi32(s, u);
  y[3 * step] = _mm256_add_epi32(_mm256_add_epi32(_mm256_add_epi32(v, v), d), m[5]);
}

inline void winograd_output_four(const int32_t* sums, size_t step, const int32_t* bias, int32_t* acc, size_t row) {
  constexpr int kEights[4] = {3, 2, 1, 1};  // powers of two in the multiples of a row or column; each has a 3 too
  const __m256i ninth = _mm256_set1_epi32(954437177);  // 9 * that is 1 modulo 2^32
  for (size_t n = 0; n < kPanel; n += 8) {
    __m256i rows[24];  // A' m, by column of m
    for (size_t x = 0; x < 6; ++x) {
      const int32_t* m = sums + x * step + n;
      winograd_outputs({read(m), read(m + 6 * step), read(m + 12 * step), read(m + 18 * step), read(m + 24 * step),
                        read(m + 30 * step)},
                       rows + x, 6);
    }
    const __m256i b = read(bias + n);
#pragma GCC unroll 4
    for (size_t y = 0; y < 4; ++y) {
      const __m256i* r = rows + 6 * y;
      __m256i made[4];
      winograd_outputs({r[0], r[1], r[2], r[3], r[4], r[5]}, made, 1);
#pragma GCC unroll 4
      for (size_t x = 0; x < 4; ++x) {
        const __m256i nines = _mm256_srai_epi32(made[x], kEights[y] + kEights[x]);
        write(acc + y * row + x * kPanel + n, _mm256_add_epi32(_mm256_mullo_epi32(nines, ninth), b));
      }
    }
  }
}

// `multiply` of avx2_dense.h for each, cut into tiles of registers once for all: a product is short.
inline void winograd_multiply(const WinogradProducts& p) {
  static constexpr int32_t kZero[kPanel] = {};
  const size_t tiles = (p.rows + kRows - 1) / kRows, least = p.rows / tiles, larger = p.rows % tiles;
  const size_t a_stride = p.channels * sizeof(int16_t), first = larger * (least + 1);
  for (size_t i = 0; i < p.products; ++i) {
    const char* const a = reinterpret_cast<const char*>(p.a + i * p.a_step);
    int32_t* const sums = p.sums + i * p.sums_step;
    Tile tile = {a, a_stride, reinterpret_cast<const char*>(p.b + i * p.b_step), p.channels / 4, kZero, 0, nullptr};
    if (larger) kAccumulate<StepS16, false>[least](tile, larger, sums, kPanel);
    tile.a = a + first * a_stride;
    kAccumulate<StepS16, false>[least - 1](tile, tiles - larger, sums + first * kPanel, kPanel);
  }
}

constexpr WinogradKernels kWinograd = {
    {2, 4, winograd_weights, winograd_input, winograd_output},
    {4, 576, winograd_weights_four, winograd_input_four, winograd_output_four},
    winograd_multiply};

}  // namespace avx2
}  // namespace mulshift

#endif
