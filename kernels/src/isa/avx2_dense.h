// Products on AVX2, exact for every u8 x s8.
//
// vpmaddubsw adds two u8 * s8 products in 16 bits and saturates: 255 * 127 * 2 does not fit. So weights and activations
// go to 16 bits and vpmaddwd adds two products in 32 bits: 16 multiply-accumulates in two instructions. Where no pair of
// neighbouring weights can leave 16 bits (pair_safe), vpmaddubsw is exact and saves a quarter of the instructions. Where no
// four can (fours), two of its results are added in 16 bits before they are widened, which saves another quarter of the
// multiplications; steps that do not fit take their time.
#ifndef MULSHIFT_SRC_ISA_AVX2_DENSE_H
#define MULSHIFT_SRC_ISA_AVX2_DENSE_H

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "../epilogue.h"
#include "../simd/avx2.h"

namespace mulshift {
namespace avx2 {

inline __m256i read(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline void write(void* p, __m256i x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }

// Asks for weights that few rows will read soon: these come from memory and are read once, and no processor foresees the
// page after the one that it reads. May point behind the weights.
inline void fetch(const void* weights) {
  constexpr uintptr_t kAhead = 6144;  // more than arrives while the first of it is waited for
  _mm_prefetch(reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(weights) + kAhead), _MM_HINT_T0);
}
constexpr size_t kFetchRows = 2;  // of a tile at most: more come back to the same weights

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

// Four bytes to all lanes. This and the steps below are written as instructions, in order and each sum in its place:
// gcc 12 hoists the six broadcasts of a tile and then has no registers left for the sums.
inline __m256i broadcast(const char* p) {
  __m256i x;
  asm volatile("vpbroadcastd %1, %0" : "=x"(x) : "m"(*reinterpret_cast<const char(*)[4]>(p)));
  return x;
}

// One step along k: sum += a * b, where b is eight columns of weights and a is the same activations in every lane.
struct StepS16 {
  static constexpr size_t bytes_of_b = 128, steps = 2;  // of one k4
  static void add(__m256i& sum, __m256i a, __m256i b) {
    __m256i product;
    asm volatile("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(a), "x"(b));
  }
};
struct StepU8 {
  static constexpr size_t bytes_of_b = 64, steps = 1;
  static void add(__m256i& sum, __m256i a, __m256i b) {
    __m256i product;
    asm volatile("vpmaddubsw %3, %2, %1\n\tvpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0"
                 : "+x"(sum), "=&x"(product)
                 : "x"(a), "x"(b), "m"(kOnes));
  }
  alignas(32) static constexpr int16_t kOnes[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
};

struct Tile {
  const char* a;
  size_t a_stride;
  const char* b;
  size_t k4;
  const int32_t* init;
  size_t init_stride;
  const uint16_t* run;  // of the panel, see Runs
};

template <class Step, size_t ROWS, bool HALF>
__attribute__((always_inline)) inline void to_accumulators(const Tile& t, int32_t* acc, size_t stride) {
  const char *a = t.a, *b = t.b;
  const size_t a_stride = t.a_stride;
  __m256i low[ROWS], high[ROWS];
#pragma GCC unroll 6
  for (size_t r = 0; r < ROWS; ++r) {
    low[r] = read(t.init + r * t.init_stride);
    high[r] = HALF ? _mm256_setzero_si256() : read(t.init + r * t.init_stride + 8);
  }
  for (size_t k = Step::steps * t.k4; k; --k, b += 64, a += 4) {
    if (ROWS <= kFetchRows) fetch(b);
    const __m256i b0 = read(b), b1 = HALF ? b0 : read(b + 32);
#pragma GCC unroll 6
    for (size_t r = 0; r < ROWS; ++r) {
      const __m256i x = broadcast(a + r * a_stride);
      Step::add(low[r], x, b0);
      if (!HALF) Step::add(high[r], x, b1);
    }
  }
#pragma GCC unroll 6
  for (size_t r = 0; r < ROWS; ++r) V{low[r], high[r]}.store(acc + r * stride);
}

// One step, pair_safe.
struct SlowU8 {
  template <size_t ROWS>
  static void add(const char* a, size_t a_stride, const char* b, __m256i* low, __m256i* high) {
    const __m256i b0 = read(b), b1 = read(b + 32);
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; ++r) {
      const __m256i x = broadcast(a + r * a_stride);
      StepU8::add(low[r], x, b0);
      StepU8::add(high[r], x, b1);
    }
  }
};
// One step of any weights: even and odd k apart, in 16 bits.
struct SlowS16 {
  template <size_t ROWS>
  static void add(const char* a, size_t a_stride, const char* b, __m256i* low, __m256i* high) {
    half<ROWS>(a, a_stride, read(b), low);
    half<ROWS>(a, a_stride, read(b + 32), high);
  }

 private:
  template <size_t ROWS>
  static void half(const char* a, size_t a_stride, __m256i b, __m256i* sums) {
    const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8), odd = _mm256_srai_epi16(b, 8);
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; ++r) {
      const __m256i x = broadcast(a + r * a_stride);
      StepS16::add(sums[r], _mm256_and_si256(x, _mm256_set1_epi16(255)), even);
      StepS16::add(sums[r], _mm256_srli_epi16(x, 8), odd);
    }
  }
};

// Two steps at once, of activations at a and c: vpmaddubsw of each, added in 16 bits. All 16 registers of a tile of four rows
// are taken.
inline void add_two(__m256i& low, __m256i& high, const char* a, const char* c, __m256i b00, __m256i b01, __m256i b10,
                    __m256i b11) {
  __m256i p, q, x, y;
  asm volatile(
      "vpbroadcastd %6, %4\n\t"
      "vpbroadcastd %7, %5\n\t"
      "vpmaddubsw %8, %4, %2\n\t"
      "vpmaddubsw %9, %4, %3\n\t"
      "vpmaddubsw %10, %5, %4\n\t"
      "vpmaddubsw %11, %5, %5\n\t"
      "vpaddw %4, %2, %2\n\t"
      "vpaddw %5, %3, %3\n\t"
      "vpmaddwd %12, %2, %2\n\t"
      "vpmaddwd %12, %3, %3\n\t"
      "vpaddd %2, %0, %0\n\t"
      "vpaddd %3, %1, %1"
      : "+x"(low), "+x"(high), "=&x"(p), "=&x"(q), "=&x"(x), "=&x"(y)
      : "m"(*reinterpret_cast<const char(*)[4]>(a)), "m"(*reinterpret_cast<const char(*)[4]>(c)), "x"(b00), "x"(b01),
        "x"(b10), "x"(b11), "m"(StepU8::kOnes));
}

template <class Slow, size_t ROWS>
__attribute__((always_inline)) inline void by_runs(const Tile& t, int32_t* acc, size_t stride) {
  const char *a = t.a, *b = t.b;
  const size_t a_stride = t.a_stride;
  __m256i low[ROWS], high[ROWS];
#pragma GCC unroll 4
  for (size_t r = 0; r < ROWS; ++r) {
    low[r] = read(t.init + r * t.init_stride);
    high[r] = read(t.init + r * t.init_stride + 8);
  }
  const uint16_t* run = t.run;
  for (size_t left = t.k4 / 2; left;) {
    size_t count = *run++;
    left -= count;
    for (; count; --count, b += 128, a += 8) {
      if (ROWS <= kFetchRows) {
        fetch(b);
        fetch(b + 64);
      }
      const __m256i b00 = read(b), b01 = read(b + 32), b10 = read(b + 64), b11 = read(b + 96);
#pragma GCC unroll 4
      for (size_t r = 0; r < ROWS; ++r) {
        add_two(low[r], high[r], a + r * a_stride, a + r * a_stride + 4, b00, b01, b10, b11);
      }
    }
    if (!left) break;
    count = *run++;
    left -= count;
    for (; count; --count, b += 128, a += 8) {
      Slow::template add<ROWS>(a, a_stride, b, low, high);
      Slow::template add<ROWS>(a + 4, a_stride, b + 64, low, high);
    }
  }
  if (t.k4 % 2) Slow::template add<ROWS>(a, a_stride, b, low, high);
#pragma GCC unroll 4
  for (size_t r = 0; r < ROWS; ++r) V{low[r], high[r]}.store(acc + r * stride);
}

// Some tiles below each other: `t` is the first.
using Accumulate = void (*)(const Tile& t, size_t tiles, int32_t* acc, size_t stride);

template <void (*SUMS)(const Tile&, int32_t*, size_t), size_t ROWS>
__attribute__((noinline)) void each_of(const Tile& t, size_t tiles, int32_t* acc, size_t stride) {
  Tile here = t;
  for (; tiles; --tiles, acc += ROWS * stride) {
    SUMS(here, acc, stride);
    here.a += ROWS * t.a_stride;
    here.init += ROWS * t.init_stride;
  }
}


template <class Step, bool HALF>
constexpr Accumulate kAccumulate[6] = {
    each_of<to_accumulators<Step, 1, HALF>, 1>, each_of<to_accumulators<Step, 2, HALF>, 2>,
    each_of<to_accumulators<Step, 3, HALF>, 3>, each_of<to_accumulators<Step, 4, HALF>, 4>,
    each_of<to_accumulators<Step, 5, HALF>, 5>, each_of<to_accumulators<Step, 6, HALF>, 6>};

template <class Slow>
constexpr Accumulate kByRuns[4] = {each_of<by_runs<Slow, 1>, 1>, each_of<by_runs<Slow, 2>, 2>,
                                   each_of<by_runs<Slow, 3>, 3>, each_of<by_runs<Slow, 4>, 4>};

// Rows from `first` on, of the panel that begins with column n.
inline Tile tile_of(const Product& p, size_t first, size_t n) {
  const size_t panel = n / kPanel;
  return {static_cast<const char*>(p.a) + first * p.a_stride,
          p.a_stride,
          static_cast<const char*>(p.b) + panel * p.b_stride,
          p.k4,
          p.init + first * p.init_stride + n,
          p.init_stride,
          p.runs.first ? p.runs.counts + p.runs.first[panel] : nullptr};
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
inline void each_panel(const Product& p, size_t most, const F& run) {
  for (size_t n = 0; n < p.columns && p.rows; n += kPanel) {
    each_run(p.rows, most, [&](size_t first, size_t rows, size_t tiles) { run(tile_of(p, first, n), rows, tiles, first, n); });
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
  each_run(p.rows, most, [&](size_t first, size_t rows, size_t tiles) {
    while (tiles) {
      const size_t now = tiles < kHeldRows / rows ? tiles : kHeldRows / rows;
      sums[rows - 1](tile_of(p, first, n), now, held, kPanel);
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

template <class Step>
inline void multiply(const Product& p, int32_t* acc, size_t stride) {
  each_panel(p, 6, [&](const Tile& tile, size_t rows, size_t tiles, size_t m, size_t n) {
    const auto& run = p.columns - n > kPanel / 2 ? kAccumulate<Step, false> : kAccumulate<Step, true>;
    run[rows - 1](tile, tiles, acc + m * stride + n, stride);
  });
}

template <class Step>
inline void multiply_to_bytes(const Product& p, const Stages& stages, uint8_t* y, size_t stride) {
  to_bytes(p, kAccumulate<Step, false>, 6, stages, y, stride);
}

template <class Slow>
inline void multiply_runs(const Product& p, int32_t* acc, size_t stride) {
  each_panel(p, 4, [&](const Tile& tile, size_t rows, size_t tiles, size_t m, size_t n) {
    kByRuns<Slow>[rows - 1](tile, tiles, acc + m * stride + n, stride);
  });
}

template <class Slow>
inline void multiply_runs_to_bytes(const Product& p, const Stages& stages, uint8_t* y, size_t stride) {
  to_bytes(p, kByRuns<Slow>, 4, stages, y, stride);
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

constexpr size_t kRows = 6;  // 12 accumulators, 2 vectors of weights, 1 of activations, 1 product: all 16 registers

constexpr auto load_windows_s16 = load_windows<2, load_row_s16>;
constexpr auto load_windows_u8 = load_windows<1, load_row_u8>;

constexpr Dense kDense = {kRows,        2,          Held::centred, expand, 2, load_row_s16, load_windows_s16, multiply<StepS16>,
                          multiply_to_bytes<StepS16>};
constexpr Dense kPairSafe = {kRows,       1,          Held::raw, nullptr, 1, load_row_u8, load_windows_u8, multiply<StepU8>,
                             multiply_to_bytes<StepU8>};
template <class Slow>
constexpr Dense kFours = {4,       1,          Held::raw, nullptr, 1, load_row_u8, load_windows_u8, multiply_runs<Slow>,
                          multiply_runs_to_bytes<Slow>};
constexpr Dense kFew = {kFewRows, 2, Held::centred, nullptr, 1, load_row_s16, load_windows_s16, multiply_few, nullptr};

}  // namespace avx2
}  // namespace mulshift

#endif
