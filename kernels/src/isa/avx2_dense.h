// Products on AVX2, exact for every u8 x s8.
//
// vpmaddubsw adds two u8 * s8 products in 16 bits and saturates: 255 * 127 * 2 does not fit. So weights and activations
// go to 16 bits and vpmaddwd adds two products in 32 bits: 16 multiply-accumulates in two instructions. Where no pair of
// neighbouring weights can leave 16 bits (pair_safe), vpmaddubsw is exact and saves a quarter of the instructions.
#ifndef MULSHIFT_SRC_ISA_AVX2_DENSE_H
#define MULSHIFT_SRC_ISA_AVX2_DENSE_H

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "../dense.h"

namespace mulshift {
namespace avx2 {

inline __m256i read(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline void write(void* p, __m256i x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }

// s8 [k4][16][4] -> s16 [2 * k4][16][2]: pairs of k beside each other for vpmaddwd.
inline void expand(const int8_t* packed, size_t k4, size_t panels, void* b) {
  const __m256i split = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9, 12, 13,
                                         2, 3, 6, 7, 10, 11, 14, 15);
  int16_t* out = static_cast<int16_t*>(b);
  for (size_t i = 0; i < k4 * panels; ++i, packed += 64, out += 64) {
    for (int half = 0; half < 2; ++half) {
      const __m256i bytes = _mm256_shuffle_epi8(read(packed + 32 * half), split);
      const __m256i pairs = _mm256_permute4x64_epi64(bytes, 0xd8);
      write(out + 16 * half, _mm256_cvtepi8_epi16(_mm256_castsi256_si128(pairs)));
      write(out + 32 + 16 * half, _mm256_cvtepi8_epi16(_mm256_extracti128_si256(pairs, 1)));
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

template <size_t ROWS>
inline void tile_s16(const char* a, size_t a_stride, const char* b, size_t k4, int32_t* acc, size_t acc_stride) {
  __m256i low[ROWS], high[ROWS];
#pragma GCC unroll 12
  for (size_t r = 0; r < ROWS; ++r) low[r] = high[r] = _mm256_setzero_si256();
  for (size_t k = 0; k < 2 * k4; ++k, b += 64, a += 4) {
    const __m256i b0 = read(b), b1 = read(b + 32);
#pragma GCC unroll 12
    for (size_t r = 0; r < ROWS; ++r) {
      const __m256i pair = _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(a + r * a_stride));
      low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(pair, b0));
      high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(pair, b1));
    }
  }
#pragma GCC unroll 12
  for (size_t r = 0; r < ROWS; ++r) {
    write(acc + r * acc_stride, low[r]);
    write(acc + r * acc_stride + 8, high[r]);
  }
}

template <size_t ROWS>
inline void tile_u8(const char* a, size_t a_stride, const char* b, size_t k4, int32_t* acc, size_t acc_stride) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i low[ROWS], high[ROWS];
#pragma GCC unroll 12
  for (size_t r = 0; r < ROWS; ++r) low[r] = high[r] = _mm256_setzero_si256();
  for (size_t k = 0; k < k4; ++k, b += 64, a += 4) {
    const __m256i b0 = read(b), b1 = read(b + 32);
#pragma GCC unroll 12
    for (size_t r = 0; r < ROWS; ++r) {
      const __m256i quad = _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(a + r * a_stride));
      low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(_mm256_maddubs_epi16(quad, b0), ones));
      high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(_mm256_maddubs_epi16(quad, b1), ones));
    }
  }
#pragma GCC unroll 12
  for (size_t r = 0; r < ROWS; ++r) {
    write(acc + r * acc_stride, low[r]);
    write(acc + r * acc_stride + 8, high[r]);
  }
}

using Tile = void (*)(const char* a, size_t a_stride, const char* b, size_t k4, int32_t* acc, size_t acc_stride);

constexpr size_t kRows = 6;  // 12 accumulators, 2 vectors of weights, 1 of activations, 1 product: all 16 registers
constexpr Tile kTilesS16[kRows] = {tile_s16<1>, tile_s16<2>, tile_s16<3>, tile_s16<4>, tile_s16<5>, tile_s16<6>};
constexpr Tile kTilesU8[kRows] = {tile_u8<1>, tile_u8<2>, tile_u8<3>, tile_u8<4>, tile_u8<5>, tile_u8<6>};

inline void multiply_panels(Tile tile, size_t panel_bytes, const void* a, size_t a_stride, const void* b, size_t k4,
                            size_t panels, int32_t* acc, size_t acc_stride) {
  for (size_t p = 0; p < panels; ++p) {
    tile(static_cast<const char*>(a), a_stride, static_cast<const char*>(b) + p * panel_bytes, k4, acc + p * kPanel,
         acc_stride);
  }
}

inline void multiply_s16(const void* a, size_t a_stride, const void* b, size_t k4, size_t panels, size_t rows,
                         int32_t* acc, size_t acc_stride) {
  multiply_panels(kTilesS16[rows - 1], k4 * 128, a, a_stride, b, k4, panels, acc, acc_stride);
}

inline void multiply_u8(const void* a, size_t a_stride, const void* b, size_t k4, size_t panels, size_t rows,
                        int32_t* acc, size_t acc_stride) {
  multiply_panels(kTilesU8[rows - 1], k4 * 64, a, a_stride, b, k4, panels, acc, acc_stride);
}

constexpr Dense kDense = {kRows, 2, true, expand, 2, load_row_s16, multiply_s16};
constexpr Dense kPairSafe = {kRows, 1, false, nullptr, 1, load_row_u8, multiply_u8};

}  // namespace avx2
}  // namespace mulshift

#endif
