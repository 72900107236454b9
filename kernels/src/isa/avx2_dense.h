// Products on AVX2, exact for every u8 x s8: panels by tiles (avx2_tile.h, avx2_couples.h), and the first stage after them.
#ifndef MULSHIFT_SRC_ISA_AVX2_DENSE_H
#define MULSHIFT_SRC_ISA_AVX2_DENSE_H

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "../epilogue.h"
#include "../simd/avx2.h"
#include "avx2_couples.h"
#include "avx2_tile.h"

namespace mulshift {
namespace avx2 {

// s8 [k4][16][4] -> s16 [2 * k4][16][2]: pairs of k beside each other for vpmaddwd.
inline void expand(const int8_t* packed, size_t k4, size_t panels, void* b) {
  // To the upper bytes, from where a shift brings the sign.
  const __m256i first = _mm256_setr_epi8(-1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1, 0, -1, 1, -1, 4, -1,
                                         5, -1, 8, -1, 9, -1, 12, -1, 13);
  const __m256i last = _mm256_add_epi8(first, _mm256_set1_epi16(0x0200));
  int16_t* out = static_cast<int16_t*>(b);
  for (size_t i = 0; i < k4 * panels; ++i, packed += 64, out += 64) {
    for (int half = 0; half < 2; ++half) {
      const __m256i bytes = read(packed + 32 * half);
      write(out + 16 * half, _mm256_srai_epi16(_mm256_shuffle_epi8(bytes, first), 8));
      write(out + 32 + 16 * half, _mm256_srai_epi16(_mm256_shuffle_epi8(bytes, last), 8));
    }
  }
}

inline void load_row_s16(const uint8_t* x, size_t n, const uint8_t* end, int32_t x_zero_point, void* a) {
  const __m256i zero_point = _mm256_set1_epi16(static_cast<int16_t>(x_zero_point));
  int16_t* out = static_cast<int16_t*>(a);
  size_t i = 0;
  for (; i < n && x + i + 16 <= end; i += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i));
    write(out + i, _mm256_sub_epi16(_mm256_cvtepu8_epi16(bytes), zero_point));
  }
  for (; i < n; ++i) out[i] = static_cast<int16_t>(x[i] - x_zero_point);
}

inline void load_row_u8(const uint8_t* x, size_t n, const uint8_t* end, int32_t, void* a) {
  uint8_t* out = static_cast<uint8_t*>(a);
  size_t i = 0;
  for (; i < n && x + i + 32 <= end; i += 32) write(out + i, read(x + i));
  for (; i < n; ++i) out[i] = x[i];
}

template <size_t ELEMENT, void (*LOAD_ROW)(const uint8_t*, size_t, const uint8_t*, int32_t, void*)>
inline void load_windows(const Windows& w, int32_t x_zero_point, void* a, size_t a_stride) {
  char* out = static_cast<char*>(a);
  const uint8_t* x = w.x;
  for (size_t i = 0; i < w.count; ++i, x += w.step, out += a_stride) {
    for (size_t r = 0; r < w.rows; ++r) {
      LOAD_ROW(x + r * w.row_stride, w.n, w.end, x_zero_point, out + r * w.n * ELEMENT);
    }
  }
}

// Windows of short rows, sixteen bytes each. ROWS: 0 if there are `w.rows`.
template <size_t ROWS>
inline void load_short(const Windows& w, uint8_t* out, size_t stride) {
  const uint8_t* x = w.x;
  for (size_t i = 0; i < w.count; ++i, x += w.step, out += stride) {
#pragma GCC unroll 3
    for (size_t r = 0; r < (ROWS ? ROWS : w.rows); ++r) write128(out + r * w.n, read128(x + r * w.row_stride));
  }
}

inline void load_windows_u8(const Windows& w, int32_t x_zero_point, void* a, size_t a_stride) {
  const size_t last = (w.count - 1) * w.step + (w.rows - 1) * w.row_stride;
  if (w.n > 16 || last + 16 > static_cast<size_t>(w.end - w.x)) {
    return load_windows<1, load_row_u8>(w, x_zero_point, a, a_stride);
  }
  uint8_t* out = static_cast<uint8_t*>(a);
  w.rows == 3 ? load_short<3>(w, out, a_stride) : load_short<0>(w, out, a_stride);
}

inline void ask_ahead(Tile& t) {
  for (size_t i = 0; i < t.lines; ++i, t.next += 64) _mm_prefetch(t.next, _MM_HINT_T0);
}

// Some tiles below each other: `t` is the first, and becomes the one after them.
using Accumulate = void (*)(Tile& t, size_t tiles, int32_t* acc, size_t stride);

template <void (*SUMS)(const Tile&, int32_t*, size_t), size_t ROWS>
__attribute__((noinline)) void each_of(Tile& t, size_t tiles, int32_t* acc, size_t stride) {
  Tile here = t;
  for (; tiles; --tiles, acc += ROWS * stride) {
    ask_ahead(here);
    SUMS(here, acc, stride);
    here.a += ROWS * t.a_stride;
    here.init += ROWS * t.init_stride;
  }
  t = here;
}

template <class Method, size_t ROWS>
__attribute__((always_inline)) inline void to_accumulators(const Tile& t, int32_t* acc, size_t stride) {
  __m256i low[ROWS], high[ROWS];
  Method::template sums<ROWS>(t, low, high);
#pragma GCC unroll 6
  for (size_t r = 0; r < ROWS; ++r) V{low[r], high[r]}.store(acc + r * stride);
}

template <class Method, size_t ROWS>
constexpr Accumulate kTiles = each_of<to_accumulators<Method, ROWS <= Method::kMost ? ROWS : 1>, ROWS>;
template <class Method>
constexpr Accumulate kAccumulate[6] = {kTiles<Method, 1>, kTiles<Method, 2>, kTiles<Method, 3>,
                                       kTiles<Method, 4>, kTiles<Method, 5>, kTiles<Method, 6>};

constexpr size_t kOwnBytes = 32 * 1024, kAheadBytes = 12 * 1024;

// Lines of the next panel that each tile asks for, where weights come from memory and not from an expansion. Those that fit
// the first-level cache are there after some rows, of large panels two do not fit it, and few rows ask for their own.
inline size_t lines_ahead(const Product& p, size_t most, size_t panel) {
  const size_t panels = (p.columns + kPanel - 1) / kPanel, tiles = (p.rows + most - 1) / most;
  const bool pays = p.b_stride <= kAheadBytes && panels * p.b_stride > kOwnBytes && tiles > 1 && panel + 1 < panels;
  return pays ? (p.b_stride / 64 + tiles - 1) / tiles : 0;
}

// The first rows of the panel that begins with column n.
inline Tile tile_of(const Product& p, size_t most, size_t n, bool from_memory) {
  const size_t panel = n / kPanel;
  const char* b = static_cast<const char*>(p.b) + panel * p.b_stride;
  const Couples& c = p.couples;
  return {static_cast<const char*>(p.a),
          p.a_stride,
          b,
          p.k4,
          p.init + n,
          p.init_stride,
          c.steps ? c.steps + panel * p.k4 : nullptr,
          c.steps ? c.counts[panel] : size_t{0},
          b + p.b_stride,
          from_memory ? lines_ahead(p, most, panel) : size_t{0}};
}

// Rows are cut into nearly equal tiles: 7 into 4 and 3, not into 6 and 1. run(first row, rows of a tile, tiles).
template <class F>
inline void each_run(size_t rows, size_t most, const F& run) {
  const size_t tiles = (rows + most - 1) / most, least = rows / tiles, larger = rows % tiles;
  if (larger) run(size_t{0}, least + 1, larger);
  run(larger * (least + 1), least, tiles - larger);
}

// One panel of weights stays in the first-level cache while the rows go by.
template <class F>
inline void each_panel(const Product& p, size_t most, const F& run, bool from_memory = false) {
  for (size_t n = 0; n < p.columns && p.rows; n += kPanel) {
    Tile tile = tile_of(p, most, n, from_memory);
    each_run(p.rows, most, [&](size_t first, size_t rows, size_t tiles) { run(tile, rows, tiles, first, n); });
  }
}

// The first stage of a panel, as `END` says.
template <End END>
struct PanelBytes {
  const Scaling<V, END == kEndHigh ? Way::high : Way::low> scaling;
  const V::Bytes clamp;

  PanelBytes(const Stages& s, size_t column)
      : scaling(V::load(s.b + column), V::load(s.shift + column), s.ways[column / kPanel].left),
        clamp(s.first.zero_point, s.first.low, s.first.high) {}

  // Sums of `count` rows.
  void store(const int32_t* sums, size_t count, uint8_t* y, size_t stride) const {
    for (; count > 1; count -= 2, sums += 2 * kPanel, y += 2 * stride) {
      const V a = scaling(V::load(sums)), b = scaling(V::load(sums + kPanel));
      END == kEndFull ? V::Bytes::store_saturated(a, b, y, y + stride) : clamp.store(a, b, y, y + stride);
    }
    if (count) clamp.store(scaling(V::load(sums)), y);
  }
};

constexpr size_t kHeldRows = 24;  // whose sums wait for the first stage, in the first-level cache

template <End END>
__attribute__((noinline)) void panel_to_bytes(const Product& p, const Accumulate* sums, size_t most, const Stages& s,
                                              size_t n, uint8_t* y, size_t stride) {
  alignas(32) int32_t held[kHeldRows * kPanel];
  const PanelBytes<END> bytes(s, n);
  Tile tile = tile_of(p, most, n, false);
  each_run(p.rows, most, [&](size_t first, size_t rows, size_t tiles) {
    while (tiles) {
      const size_t now = tiles < kHeldRows / rows ? tiles : kHeldRows / rows;
      sums[rows - 1](tile, now, held, kPanel);
      bytes.store(held, now * rows, y + first * stride, stride);
      tiles -= now;
      first += now * rows;
    }
  });
}

// sums[i]: those of i + 1 rows, at most `most`. The sums go through the first-level cache: with the epilogue in the same
// function, gcc 12 does not keep them in registers.
inline void to_bytes(const Product& p, const Accumulate* sums, size_t most, const Stages& stages, uint8_t* y, size_t stride) {
  for (size_t n = 0; n < p.columns && p.rows; n += kPanel) {
    const End end = end_of(from_column(stages, n));
    const auto& run = end == kEndFull ? panel_to_bytes<kEndFull>
                      : end == kEndLow ? panel_to_bytes<kEndLow>
                                       : panel_to_bytes<kEndHigh>;
    run(p, sums, most, stages, n, y + n, stride);
  }
}

// What the first stage of a panel needs by Way::low, as the instructions below read it.
struct alignas(32) LowStage {
  __m256i b[2], half[2], shift[2], order, zero_point, low, high;

  LowStage(const Stages& s, size_t column) : order(_mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)) {
    const Scaling<V, Way::low> scaling(V::load(s.b + column), V::load(s.shift + column), 0);
    const V::Bytes bytes(s.first.zero_point, s.first.low, s.first.high);
    b[0] = scaling.b.lo, b[1] = scaling.b.hi, half[0] = scaling.half.lo, half[1] = scaling.half.hi;
    shift[0] = scaling.shift.lo, shift[1] = scaling.shift.hi;
    zero_point = bytes.zero_point, low = bytes.low, high = bytes.high;
  }
};

// Sums of two rows become bytes as PanelBytes does it, and stay in registers meanwhile: of intrinsics, gcc 12 wants
// registers for the constants and moves sums to memory.
template <bool FULL>
inline void store_two(__m256i& low, __m256i& high, __m256i& low1, __m256i& high1, const LowStage& s, uint8_t* y,
                      size_t stride) {
#define MULSHIFT_SCALED                                                                 \
  "vpmulld (%4), %0, %0\n\tvpmulld 32(%4), %1, %1\n\tvpmulld (%4), %2, %2\n\t"          \
  "vpmulld 32(%4), %3, %3\n\tvpaddd 64(%4), %0, %0\n\tvpaddd 96(%4), %1, %1\n\t"        \
  "vpaddd 64(%4), %2, %2\n\tvpaddd 96(%4), %3, %3\n\tvpsravd 128(%4), %0, %0\n\t"       \
  "vpsravd 160(%4), %1, %1\n\tvpsravd 128(%4), %2, %2\n\tvpsravd 160(%4), %3, %3\n\t"   \
  "vpackssdw %1, %0, %0\n\tvpackssdw %3, %2, %2\n\tvmovdqa 192(%4), %1\n\t"
#define MULSHIFT_STORED "vmovdqu %x0, (%5)\n\tvextracti128 $1, %0, (%5,%6)"
  if (FULL) {
    asm volatile(MULSHIFT_SCALED "vpackuswb %2, %0, %0\n\tvpermd %0, %1, %0\n\t" MULSHIFT_STORED
                 : "+x"(low), "+x"(high), "+x"(low1), "+x"(high1)
                 : "r"(&s), "r"(y), "r"(stride)
                 : "memory");
  } else {
    asm volatile(MULSHIFT_SCALED
                 "vpaddsw 224(%4), %0, %0\n\tvpaddsw 224(%4), %2, %2\n\tvpackuswb %2, %0, %0\n\t"
                 "vpmaxub 256(%4), %0, %0\n\tvpminub 288(%4), %0, %0\n\tvpermd %0, %1, %0\n\t" MULSHIFT_STORED
                 : "+x"(low), "+x"(high), "+x"(low1), "+x"(high1)
                 : "r"(&s), "r"(y), "r"(stride)
                 : "memory");
  }
#undef MULSHIFT_SCALED
#undef MULSHIFT_STORED
}

// Some tiles as in each_of, and the first stage.
template <class Method, size_t ROWS, bool FULL>
__attribute__((noinline)) void bytes_of(Tile& t, size_t tiles, const LowStage& s, uint8_t* y, size_t stride) {
  Tile here = t;
  for (; tiles; --tiles, y += ROWS * stride) {
    ask_ahead(here);
    __m256i low[ROWS], high[ROWS];
    Method::template sums<ROWS>(here, low, high);
#pragma GCC unroll 3
    for (size_t r = 0; r + 1 < ROWS; r += 2) {
      store_two<FULL>(low[r], high[r], low[r + 1], high[r + 1], s, y + r * stride, stride);
    }
    if (ROWS % 2) {  // that row twice, to the same place
      __m256i low1 = low[ROWS - 1], high1 = high[ROWS - 1];
      store_two<FULL>(low[ROWS - 1], high[ROWS - 1], low1, high1, s, y + (ROWS - 1) * stride, 0);
    }
    here.a += ROWS * t.a_stride;
    here.init += ROWS * t.init_stride;
  }
  t = here;
}

using Bytes = void (*)(Tile& t, size_t tiles, const LowStage& s, uint8_t* y, size_t stride);
template <class Method, bool FULL, size_t ROWS>
constexpr Bytes kTilesOfBytes = bytes_of<Method, ROWS <= Method::kMost ? ROWS : 1, FULL>;
template <class Method, bool FULL>
constexpr Bytes kBytes[6] = {kTilesOfBytes<Method, FULL, 1>, kTilesOfBytes<Method, FULL, 2>, kTilesOfBytes<Method, FULL, 3>,
                             kTilesOfBytes<Method, FULL, 4>, kTilesOfBytes<Method, FULL, 5>, kTilesOfBytes<Method, FULL, 6>};

// WHOLE and HALF: methods of panels of which more than eight columns count, and of others.
template <class WHOLE, class HALF>
inline void multiply(const Product& p, int32_t* acc, size_t stride) {
  const auto each = [&](Tile& tile, size_t rows, size_t tiles, size_t m, size_t n) {
    const auto& run = p.columns - n > kPanel / 2 ? kAccumulate<WHOLE> : kAccumulate<HALF>;
    run[rows - 1](tile, tiles, acc + m * stride + n, stride);
  };
  each_panel(p, WHOLE::kMost, each, WHOLE::kFromMemory);
}

template <class Method>
inline void multiply_panel_to_bytes(const Product& p, const Stages& stages, size_t n, uint8_t* y, size_t stride) {
  const End end = end_of(from_column(stages, n));
  if (end == kEndHigh) return panel_to_bytes<kEndHigh>(p, kAccumulate<Method>, Method::kMost, stages, n, y, stride);
  const LowStage stage(stages, n);
  const auto& run = end == kEndFull ? kBytes<Method, true> : kBytes<Method, false>;
  Tile tile = tile_of(p, Method::kMost, n, Method::kFromMemory);
  each_run(p.rows, Method::kMost, [&](size_t first, size_t rows, size_t tiles) {
    run[rows - 1](tile, tiles, stage, y + first * stride, stride);
  });
}

template <class WHOLE, class HALF>
inline void multiply_to_bytes(const Product& p, const Stages& stages, uint8_t* y, size_t stride) {
  for (size_t n = 0; n < p.columns && p.rows; n += kPanel) {
    const auto& run = p.columns - n > kPanel / 2 ? multiply_panel_to_bytes<WHOLE> : multiply_panel_to_bytes<HALF>;
    run(p, stages, n, y + n, stride);
  }
}

// Of expanded weights the loop is what counts, and it is no faster so.
template <class Method>
inline void multiply_held_to_bytes(const Product& p, const Stages& stages, uint8_t* y, size_t stride) {
  to_bytes(p, kAccumulate<Method>, Method::kMost, stages, y, stride);
}

// Straight from the packed weights: four columns of a k4 are widened and multiplied at a time, which leaves two sums a
// column to be added in the end. a: s16, at most kFewRows rows.
template <size_t ROWS>
inline void few_rows(const Product& p, int32_t* acc, size_t acc_stride) {
  const char* a = static_cast<const char*>(p.a);
  for (size_t n = 0; n < p.columns; n += kPanel) {
    const int8_t* b = static_cast<const int8_t*>(p.b) + n / kPanel * p.b_stride;
    __m256i sums[ROWS][4];
    for (size_t r = 0; r < ROWS; ++r) {
      for (size_t i = 0; i < 4; ++i) sums[r][i] = _mm256_setzero_si256();
    }
    for (size_t k = 0; k < p.k4; ++k, b += 64) {
      fetch(b);
      __m256i w[4];
#pragma GCC unroll 4
      for (size_t i = 0; i < 4; ++i) {
        w[i] = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b + 16 * i)));
      }
#pragma GCC unroll 4
      for (size_t r = 0; r < ROWS; ++r) {
        const __m128i four = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(a + r * p.a_stride + 8 * k));
        const __m256i x = _mm256_broadcastq_epi64(four);
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; ++i) sums[r][i] = _mm256_add_epi32(sums[r][i], _mm256_madd_epi16(x, w[i]));
      }
    }
    for (size_t r = 0; r < ROWS; ++r) {
      const int32_t* init = p.init + r * p.init_stride + n;
      for (size_t i = 0; i < 2; ++i) {  // (0 1 4 5 | 2 3 6 7) of eight columns
        const __m256i pairs = _mm256_hadd_epi32(sums[r][2 * i], sums[r][2 * i + 1]);
        const __m256i in_order = _mm256_permute4x64_epi64(pairs, 0xd8);
        write(acc + r * acc_stride + n + 8 * i, _mm256_add_epi32(in_order, read(init + 8 * i)));
      }
    }
  }
}

inline void multiply_few(const Product& p, int32_t* acc, size_t acc_stride) {
  switch (p.rows) {
    case 1:
      return few_rows<1>(p, acc, acc_stride);
    case 2:
      return few_rows<2>(p, acc, acc_stride);
    case 3:
      return few_rows<3>(p, acc, acc_stride);
    default:
      return few_rows<4>(p, acc, acc_stride);
  }
}

constexpr auto load_windows_s16 = load_windows<2, load_row_s16>;

template <class Step>
using Whole = StepByStep<Step, false>;
template <class Step>
using Half = StepByStep<Step, true>;
constexpr Dense kDense = {kRows,
                          2,
                          Held::centred,
                          expand,
                          2,
                          load_row_s16,
                          load_windows_s16,
                          multiply<Whole<StepS16>, Half<StepS16>>,
                          multiply_held_to_bytes<Whole<StepS16>>};
constexpr Dense kPairSafe = {kRows,
                             1,
                             Held::raw,
                             nullptr,
                             1,
                             load_row_u8,
                             load_windows_u8,
                             multiply<Whole<StepU8>, Half<StepU8>>,
                             multiply_to_bytes<Whole<StepU8>, Half<StepU8>>};
template <class Slow>
constexpr Dense kFours = {ByCouples<Slow, false>::kMost,
                          1,
                          Held::raw,
                          nullptr,
                          1,
                          load_row_u8,
                          load_windows_u8,
                          multiply<ByCouples<Slow, false>, ByCouples<Slow, true>>,
                          multiply_to_bytes<ByCouples<Slow, false>, ByCouples<Slow, true>>};
constexpr Dense kFew = {kFewRows, 2, Held::centred, nullptr, 1, load_row_s16, load_windows_s16, multiply_few, nullptr};

}  // namespace avx2
}  // namespace mulshift

#endif
