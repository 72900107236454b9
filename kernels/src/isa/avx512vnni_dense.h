// Products on AVX-512 VNNI: vpdpbusd adds four u8 * s8 products to each of sixteen sums, exactly and straight from the
// packed weights.
//
// A tile is ROWS times PANELS sums: 24 of the 32 registers, so that 4 vectors of weights and 1 of activations fit too.
// Wide tiles load fewer activations, narrow ones waste no columns: 5 panels are done as 3 and 2, not as 4 and 1.
#ifndef MULSHIFT_SRC_ISA_AVX512VNNI_DENSE_H
#define MULSHIFT_SRC_ISA_AVX512VNNI_DENSE_H

#include <cstring>

#include "../epilogue.h"
#include "../simd/avx512.h"

namespace mulshift {
namespace avx512 {

inline void load_row(const uint8_t* x, size_t n, const uint8_t* end, int32_t, void* a) {
  uint8_t* out = static_cast<uint8_t*>(a);
  size_t i = 0;
  for (; i < n && x + i + 32 <= end; i += 32) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i),
                        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i)));
  }
  for (; i < n; ++i) out[i] = x[i];
}

inline void load_windows(const Windows& w, int32_t x_zero_point, void* a, size_t a_stride) {
  uint8_t* out = static_cast<uint8_t*>(a);
  const uint8_t* x = w.x;
  for (size_t i = 0; i < w.count; ++i, x += w.step, out += a_stride) {
    for (size_t r = 0; r < w.rows; ++r) load_row(x + r * w.row_stride, w.n, w.end, x_zero_point, out + r * w.n);
  }
}

#if defined(MULSHIFT_EMULATED)
inline __m512i broadcast(const char* p) {
  int32_t four;
  std::memcpy(&four, p, sizeof(four));
  return _mm512_set1_epi32(four);
}
inline void add_products(__m512i& sum, __m512i a, __m512i b) { sum = _mm512_dpbusd_epi32(sum, a, b); }
#else
// Written as instructions, in order and each sum in its place: gcc 12 spills tiles of this size otherwise.
inline __m512i broadcast(const char* p) {
  __m512i x;
  asm volatile("vpbroadcastd %1, %0" : "=v"(x) : "m"(*reinterpret_cast<const char(*)[4]>(p)));
  return x;
}
inline void add_products(__m512i& sum, __m512i a, __m512i b) {
  asm volatile("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
}
#endif

struct Tile {
  const char* a;
  size_t a_stride;
  const char* b;
  size_t b_stride, k4;
  const int32_t* init;
  size_t init_stride;
};

template <size_t ROWS, size_t PANELS>
__attribute__((noinline)) void to_accumulators(const Tile& t, int32_t* acc, size_t stride) {
  const char *a = t.a, *b = t.b;
  const size_t a_stride = t.a_stride, b_stride = t.b_stride;
  __m512i sums[ROWS][PANELS];
#pragma GCC unroll 12
  for (size_t r = 0; r < ROWS; ++r) {
#pragma GCC unroll 4
    for (size_t p = 0; p < PANELS; ++p) sums[r][p] = _mm512_loadu_si512(t.init + r * t.init_stride + p * kPanel);
  }
  for (size_t k = t.k4; k; --k, a += 4, b += 64) {
    __m512i w[PANELS];
#pragma GCC unroll 4
    for (size_t p = 0; p < PANELS; ++p) w[p] = _mm512_loadu_si512(b + p * b_stride);
#pragma GCC unroll 12
    for (size_t r = 0; r < ROWS; ++r) {
      const __m512i x = broadcast(a + r * a_stride);
#pragma GCC unroll 4
      for (size_t p = 0; p < PANELS; ++p) add_products(sums[r][p], x, w[p]);
    }
  }
#pragma GCC unroll 12
  for (size_t r = 0; r < ROWS; ++r) {
#pragma GCC unroll 4
    for (size_t p = 0; p < PANELS; ++p) _mm512_storeu_si512(acc + r * stride + p * kPanel, sums[r][p]);
  }
}

// y at the tile's first column. The sums go through the first-level cache: kept in registers, gcc 12 spills them all.
template <size_t ROWS, size_t PANELS>
__attribute__((noinline)) void to_bytes(const Tile& t, const Stages& s, size_t column, uint8_t* y, size_t stride) {
  alignas(64) int32_t sums[ROWS * PANELS * kPanel];
  to_accumulators<ROWS, PANELS>(t, sums, PANELS * kPanel);
  const V::Bytes clamp(s.first.zero_point, s.first.low, s.first.high);
  for (size_t p = 0; p < PANELS; ++p) {
    const size_t n = column + p * kPanel;
    const PanelWay way = s.ways[n / kPanel];
    const V b = V::load(s.b + n), shift = V::load(s.shift + n);
    const auto store = [&](const auto& scaling) {
      for (size_t r = 0; r < ROWS; ++r) {
        clamp.store(scaling(V::load(sums + (r * PANELS + p) * kPanel)), y + r * stride + p * kPanel);
      }
    };
    way.way == Way::low ? store(Scaling<V, Way::low>(b, shift, 0)) : store(Scaling<V, Way::high>(b, shift, way.left));
  }
}

using Accumulate = void (*)(const Tile&, int32_t*, size_t);
using ToBytes = void (*)(const Tile&, const Stages&, size_t, uint8_t*, size_t);

constexpr size_t kMostRows[4] = {12, 12, 8, 6};  // of a tile of 1, 2, 3, 4 panels
constexpr size_t kBlockRows = 24;                // a multiple of all of them

#define MULSHIFT_ROWS_6(F, P) F<1, P>, F<2, P>, F<3, P>, F<4, P>, F<5, P>, F<6, P>
#define MULSHIFT_ROWS_8(F, P) MULSHIFT_ROWS_6(F, P), F<7, P>, F<8, P>
#define MULSHIFT_ROWS_12(F, P) MULSHIFT_ROWS_8(F, P), F<9, P>, F<10, P>, F<11, P>, F<12, P>

constexpr Accumulate kAccumulate[4][12] = {{MULSHIFT_ROWS_12(to_accumulators, 1)},
                                           {MULSHIFT_ROWS_12(to_accumulators, 2)},
                                           {MULSHIFT_ROWS_8(to_accumulators, 3)},
                                           {MULSHIFT_ROWS_6(to_accumulators, 4)}};
constexpr ToBytes kToBytes[4][12] = {{MULSHIFT_ROWS_12(to_bytes, 1)},
                                     {MULSHIFT_ROWS_12(to_bytes, 2)},
                                     {MULSHIFT_ROWS_8(to_bytes, 3)},
                                     {MULSHIFT_ROWS_6(to_bytes, 4)}};

#undef MULSHIFT_ROWS_6
#undef MULSHIFT_ROWS_8
#undef MULSHIFT_ROWS_12

// run(tile, rows, panels, first row, first column), over nearly equal parts of the panels and of the rows.
template <class F>
inline void each_tile(const Product& p, const F& run) {
  const size_t all = (p.columns + kPanel - 1) / kPanel, groups = (all + 3) / 4;
  for (size_t g = 0, panel = 0; g < groups; ++g) {
    const size_t panels = (all - panel + groups - g - 1) / (groups - g);
    const size_t most = kMostRows[panels - 1], tiles = (p.rows + most - 1) / most;
    for (size_t t = 0, first = 0; t < tiles; ++t) {
      const size_t rows = (p.rows - first + tiles - t - 1) / (tiles - t);
      const Tile tile = {static_cast<const char*>(p.a) + first * p.a_stride,
                         p.a_stride,
                         static_cast<const char*>(p.b) + panel * p.b_stride,
                         p.b_stride,
                         p.k4,
                         p.init + first * p.init_stride + panel * kPanel,
                         p.init_stride};
      run(tile, rows, panels, first, panel * kPanel);
      first += rows;
    }
    panel += panels;
  }
}

inline void multiply(const Product& p, int32_t* acc, size_t stride) {
  each_tile(p, [&](const Tile& tile, size_t rows, size_t panels, size_t m, size_t n) {
    kAccumulate[panels - 1][rows - 1](tile, acc + m * stride + n, stride);
  });
}

inline void multiply_to_bytes(const Product& p, const Stages& stages, uint8_t* y, size_t stride) {
  each_tile(p, [&](const Tile& tile, size_t rows, size_t panels, size_t m, size_t n) {
    kToBytes[panels - 1][rows - 1](tile, stages, n, y + m * stride + n, stride);
  });
}

constexpr Dense kDense = {kBlockRows, 1, Held::raw, nullptr, 1, load_row, load_windows, multiply, multiply_to_bytes};

}  // namespace avx512
}  // namespace mulshift

#endif
