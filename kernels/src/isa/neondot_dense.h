// Products on NEON with dot products: sdot adds four s8 * s8 products to each of four sums, exactly.
//
// Activations are held as x - 128, which fits s8; the bias takes the difference to the zero point. A tile is six rows of
// sixteen columns: 24 registers of sums, 4 of weights, 1 of activations.
#ifndef MULSHIFT_SRC_ISA_NEONDOT_DENSE_H
#define MULSHIFT_SRC_ISA_NEONDOT_DENSE_H

#include <arm_neon.h>

#include <cstring>

#include "../epilogue.h"
#include "../simd/neon.h"

namespace mulshift {
namespace neon {

inline void load_row(const uint8_t* x, size_t n, const uint8_t* end, int32_t, void* a) {
  uint8_t* out = static_cast<uint8_t*>(a);
  const uint8x16_t top = vdupq_n_u8(0x80);
  size_t i = 0;
  for (; i < n && x + i + 16 <= end; i += 16) vst1q_u8(out + i, veorq_u8(vld1q_u8(x + i), top));
  for (; i < n; ++i) out[i] = x[i] ^ 0x80;
}

inline void load_windows(const Windows& w, int32_t x_zero_point, void* a, size_t a_stride) {
  uint8_t* out = static_cast<uint8_t*>(a);
  const uint8_t* x = w.x;
  for (size_t i = 0; i < w.count; ++i, x += w.step, out += a_stride) {
    for (size_t r = 0; r < w.rows; ++r) load_row(x + r * w.row_stride, w.n, w.end, x_zero_point, out + r * w.n);
  }
}

struct Tile {
  const int8_t* a;
  size_t a_stride;
  const int8_t* b;
  size_t k4;
  const int32_t* init;
  size_t init_stride;
};

template <size_t ROWS>
void tile(const Tile& t, int32_t* acc, size_t stride) {
  V sums[ROWS];
  for (size_t r = 0; r < ROWS; ++r) sums[r] = V::load(t.init + r * t.init_stride);
  for (size_t k = 0; k < t.k4; ++k) {
    int8x16_t w[4];
    for (size_t i = 0; i < 4; ++i) w[i] = vld1q_s8(t.b + 64 * k + 16 * i);
#pragma GCC unroll 6
    for (size_t r = 0; r < ROWS; ++r) {
      int32_t four;
      std::memcpy(&four, t.a + r * t.a_stride + 4 * k, sizeof(four));
      const int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(four));
#pragma GCC unroll 4
      for (size_t i = 0; i < 4; ++i) sums[r].v[i] = vdotq_s32(sums[r].v[i], x, w[i]);
    }
  }
  for (size_t r = 0; r < ROWS; ++r) sums[r].store(acc + r * stride);
}

constexpr void (*kTiles[6])(const Tile&, int32_t*, size_t) = {tile<1>, tile<2>, tile<3>, tile<4>, tile<5>, tile<6>};

inline void multiply(const Product& p, int32_t* acc, size_t stride) {
  const size_t tiles = (p.rows + 5) / 6;
  for (size_t n = 0; n < p.columns; n += kPanel) {
    for (size_t t = 0, first = 0; t < tiles; ++t) {
      const size_t rows = (p.rows - first + tiles - t - 1) / (tiles - t);
      const Tile tile = {static_cast<const int8_t*>(p.a) + first * p.a_stride,
                         p.a_stride,
                         static_cast<const int8_t*>(p.b) + n / kPanel * p.b_stride,
                         p.k4,
                         p.init + first * p.init_stride + n,
                         p.init_stride};
      kTiles[rows - 1](tile, acc + first * stride + n, stride);
      first += rows;
    }
  }
}

constexpr Dense kDense = {6, 1, Held::less_128, nullptr, 1, load_row, load_windows, multiply, nullptr};

}  // namespace neon
}  // namespace mulshift

#endif
