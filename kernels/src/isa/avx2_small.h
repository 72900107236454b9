// Products with small weights on AVX2: sums stay in 16 bits for several steps.
//
//   |x * w0 + x' * w1| <= 255 * 2 * MOST, so STEPS of them fit 16 bits:   255 * 2 * 8 * 8 = 32640,   255 * 2 * 2 * 32 = 32640
//
// A step is vpmaddubsw and vpaddw; once in STEPS vpmaddwd widens the sums and adds them to those of 32 bits, in memory: all
// 16 registers are taken (12 sums, 2 vectors of weights, 1 of activations, 1 product).
#ifndef MULSHIFT_SRC_ISA_AVX2_SMALL_H
#define MULSHIFT_SRC_ISA_AVX2_SMALL_H

#include "../low_bits.h"
#include "avx2_dense.h"

namespace mulshift {
namespace avx2 {

inline __m256i ones_s16() { return _mm256_set1_epi16(1); }

inline void add_in_16_bits(__m256i& sum, __m256i a, __m256i b) {
  __m256i product;
  asm volatile("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(a), "x"(b));
}

template <size_t STEPS, size_t ROWS, bool HALF>
__attribute__((always_inline)) inline void small_sums(const Tile& t, int32_t* acc, size_t stride) {
  const char *a = t.a, *b = t.b;
  const size_t a_stride = t.a_stride;
  const int32_t* init = t.init;
  size_t init_stride = t.init_stride, left = t.k4;
  do {
    const size_t steps = left < STEPS ? left : STEPS;
    left -= steps;
    __m256i low[ROWS], high[ROWS];
#pragma GCC unroll 6
    for (size_t r = 0; r < ROWS; ++r) low[r] = high[r] = _mm256_setzero_si256();
    for (size_t k = steps; k; --k, b += 64, a += 4) {
      if (ROWS <= kFetchRows) fetch(b);
      const __m256i b0 = read(b), b1 = HALF ? b0 : read(b + 32);
#pragma GCC unroll 6
      for (size_t r = 0; r < ROWS; ++r) {
        const __m256i x = broadcast(a + r * a_stride);
        add_in_16_bits(low[r], x, b0);
        if (!HALF) add_in_16_bits(high[r], x, b1);
      }
    }
#pragma GCC unroll 6
    for (size_t r = 0; r < ROWS; ++r) {
      const int32_t* from = init + r * init_stride;
      int32_t* to = acc + r * stride;
      write(to, _mm256_add_epi32(_mm256_madd_epi16(low[r], ones_s16()), read(from)));
      if (!HALF) write(to + 8, _mm256_add_epi32(_mm256_madd_epi16(high[r], ones_s16()), read(from + 8)));
    }
    init = acc;
    init_stride = stride;
  } while (left);
}

template <size_t STEPS, bool HALF>
constexpr Accumulate kSmallSums[6] = {
    each_of<small_sums<STEPS, 1, HALF>, 1>, each_of<small_sums<STEPS, 2, HALF>, 2>, each_of<small_sums<STEPS, 3, HALF>, 3>,
    each_of<small_sums<STEPS, 4, HALF>, 4>, each_of<small_sums<STEPS, 5, HALF>, 5>, each_of<small_sums<STEPS, 6, HALF>, 6>};
template <size_t STEPS>
inline void multiply_small(const Product& p, int32_t* acc, size_t stride) {
  each_panel(p, 6, [&](Tile& tile, size_t rows, size_t tiles, size_t m, size_t n) {
    const auto& run = p.columns - n > kPanel / 2 ? kSmallSums<STEPS, false> : kSmallSums<STEPS, true>;
    run[rows - 1](tile, tiles, acc + m * stride + n, stride);
  });
}

template <size_t STEPS>
inline void multiply_small_to_bytes(const Product& p, const Stages& stages, uint8_t* y, size_t stride) {
  to_bytes(p, kSmallSums<STEPS, false>, 6, stages, y, stride);
}

// Straight from packed weights of BITS bits, fields f = w + HALF: sum of x * w = sum of x * f - HALF * sum of x.
template <int BITS>
struct Fields {
  static constexpr size_t steps = 8 / BITS;                   // to a byte
  static constexpr int half = 1 << (BITS - 1), most = 2 * half - 1;
  static constexpr size_t rows = 32767 / (255 * 2 * most) / steps;  // of packed weights whose sums fit 16 bits
  static constexpr size_t block = rows ? rows : 1;
  static_assert(255 * 2 * most * steps * block <= 32767, "sums leave 16 bits");

  static __m256i get(__m256i packed, int i) {
    return _mm256_and_si256(_mm256_srli_epi16(packed, i * BITS), _mm256_set1_epi8(2 * half - 1));
  }
};

// In every lane.
inline __m256i sum_of_bytes(const char* x, size_t n) {
  __m256i sums = _mm256_setzero_si256();
  size_t i = 0;
  for (; i + 32 <= n; i += 32) sums = _mm256_add_epi64(sums, _mm256_sad_epu8(read(x + i), _mm256_setzero_si256()));
  __m128i two = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  int32_t rest = 0;
  for (; i < n; ++i) rest += static_cast<uint8_t>(x[i]);
  two = _mm_add_epi64(two, _mm_cvtsi32_si128(rest));
  return _mm256_broadcastd_epi32(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two)));
}

// ROWS rows of one panel. Sums in 32 bits are modulo 2^32 where the fields alone leave them; see dense.h.
template <int BITS, size_t ROWS>
inline void packed_panel(const char* a, size_t a_stride, const char* b, size_t k4, __m256i (&sums)[ROWS][2]) {
  using F = Fields<BITS>;
  for (size_t r = 0; r < ROWS; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
  for (size_t left = k4; left;) {
    __m256i short_sums[ROWS][2];
    for (size_t r = 0; r < ROWS; ++r) short_sums[r][0] = short_sums[r][1] = _mm256_setzero_si256();
    for (size_t row = 0; row < F::block && left; ++row, b += 64) {
      fetch(b);
      const __m256i low = read(b), high = read(b + 32);
      const size_t steps = left < F::steps ? left : F::steps;
      left -= steps;
      const auto add = [&](int i) {
        const __m256i f0 = F::get(low, i), f1 = F::get(high, i);
#pragma GCC unroll 2
        for (size_t r = 0; r < ROWS; ++r) {
          int32_t four;
          __builtin_memcpy(&four, a + r * a_stride + 4 * i, sizeof(four));
          const __m256i x = _mm256_set1_epi32(four);
          short_sums[r][0] = _mm256_add_epi16(short_sums[r][0], _mm256_maddubs_epi16(x, f0));
          short_sums[r][1] = _mm256_add_epi16(short_sums[r][1], _mm256_maddubs_epi16(x, f1));
        }
      };
      if (steps == F::steps) {
#pragma GCC unroll 4
        for (int i = 0; i < static_cast<int>(F::steps); ++i) add(i);
      } else {
        for (int i = 0; i < static_cast<int>(steps); ++i) add(i);
      }
      a += 4 * steps;
    }
#pragma GCC unroll 2
    for (size_t r = 0; r < ROWS; ++r) {
      for (size_t h = 0; h < 2; ++h) {
        sums[r][h] = _mm256_add_epi32(sums[r][h], _mm256_madd_epi16(short_sums[r][h], ones_s16()));
      }
    }
  }
}

// acc = init + sums of a panel.
template <size_t ROWS>
inline void write_panel(const Product& p, size_t first, size_t n, const __m256i (&sums)[ROWS][2], int32_t* acc,
                        size_t acc_stride) {
  for (size_t r = 0; r < ROWS; ++r) {
    const int32_t* init = p.init + (first + r) * p.init_stride + n;
    int32_t* to = acc + (first + r) * acc_stride + n;
    for (size_t h = 0; h < 2; ++h) write(to + 8 * h, _mm256_add_epi32(sums[r][h], read(init + 8 * h)));
  }
}

template <int BITS, size_t ROWS>
inline void packed_rows(const Product& p, size_t first, int32_t* acc, size_t acc_stride) {
  const char* a = static_cast<const char*>(p.a) + first * p.a_stride;
  __m256i folded[ROWS];
  for (size_t r = 0; r < ROWS; ++r) {
    const __m256i sum = sum_of_bytes(a + r * p.a_stride, 4 * p.k4);
    folded[r] = _mm256_mullo_epi32(sum, _mm256_set1_epi32(Fields<BITS>::half));
  }
  for (size_t n = 0; n < p.columns; n += kPanel) {
    __m256i sums[ROWS][2];
    packed_panel<BITS, ROWS>(a, p.a_stride, static_cast<const char*>(p.b) + n / kPanel * p.b_stride, p.k4, sums);
    for (size_t r = 0; r < ROWS; ++r) {
      for (size_t h = 0; h < 2; ++h) sums[r][h] = _mm256_sub_epi32(sums[r][h], folded[r]);
    }
    write_panel(p, first, n, sums, acc, acc_stride);
  }
}

// In blocks: sum over blocks of m * (sum of x * f - 8 * sum of x).
template <size_t ROWS>
inline void block_rows(const Product& p, size_t first, int32_t* acc, size_t acc_stride) {
  for (size_t n = 0; n < p.columns; n += kPanel) {
    const char *a = static_cast<const char*>(p.a) + first * p.a_stride,
               *b = static_cast<const char*>(p.b) + n / kPanel * p.b_stride;
    __m256i sums[ROWS][2];
    for (size_t r = 0; r < ROWS; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
    for (size_t left = p.k4; left;) {
      const size_t steps = left < p.block ? left : p.block;
      const __m256i m[2] = {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(b))),
                            _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(b + 8)))};
      b += kMultiplierBytes;
      __m256i part[ROWS][2];
      packed_panel<4, ROWS>(a, p.a_stride, b, steps, part);
      for (size_t r = 0; r < ROWS; ++r) {
        const __m256i folded = _mm256_slli_epi32(sum_of_bytes(a + r * p.a_stride, 4 * steps), 3);
        for (size_t h = 0; h < 2; ++h) {
          const __m256i found = _mm256_mullo_epi32(_mm256_sub_epi32(part[r][h], folded), m[h]);
          sums[r][h] = _mm256_add_epi32(sums[r][h], found);
        }
      }
      b += p.block / 2 * kStepBytes;
      a += 4 * steps;
      left -= steps;
    }
    write_panel(p, first, n, sums, acc, acc_stride);
  }
}

inline void multiply_blocks(const Product& p, int32_t* acc, size_t acc_stride) {
  size_t r = 0;
  for (; r + 2 <= p.rows; r += 2) block_rows<2>(p, r, acc, acc_stride);
  if (r < p.rows) block_rows<1>(p, r, acc, acc_stride);
}

// Two rows at a time: more would not fit the registers.
template <int BITS>
inline void multiply_packed(const Product& p, int32_t* acc, size_t acc_stride) {
  size_t r = 0;
  for (; r + 2 <= p.rows; r += 2) packed_rows<BITS, 2>(p, r, acc, acc_stride);
  if (r < p.rows) packed_rows<BITS, 1>(p, r, acc, acc_stride);
}

template <size_t STEPS>
constexpr Dense kSmall = {kRows,   1,       Held::raw, nullptr, 1, load_row_u8, load_windows_u8, multiply_small<STEPS>,
                          multiply_small_to_bytes<STEPS>};
template <int BITS>
constexpr Dense kPacked = {kFewRows, 1,       Held::raw, nullptr, 1, load_row_u8, load_windows_u8, multiply_packed<BITS>,
                           nullptr};

constexpr Dense kPackedBlocks = {kFewRows, 1,       Held::raw, nullptr, 1, load_row_u8, load_windows_u8, multiply_blocks,
                                 nullptr};

}  // namespace avx2
}  // namespace mulshift

#endif
