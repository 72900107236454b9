// Products with two of four weights kept (sparse.h) on AVX-512 VNNI.
//
// Eight k of a row in every lane of 128 bits are a table, from which vpshufb picks the four activations that each column
// keeps weights for; vpdpbusd adds their products, exactly.
//
// Layout     b: [step][128]: 64 places of the table, [16 columns][4], then w likewise.
#ifndef MULSHIFT_SRC_ISA_AVX512VNNI_SPARSE_H
#define MULSHIFT_SRC_ISA_AVX512VNNI_SPARSE_H

#include "../sparse.h"
#include "avx512vnni_dense.h"

namespace mulshift {
namespace avx512 {

constexpr size_t kPlacedBytes = 2 * kStepBytes;  // of a step
constexpr size_t kSparseRows = 12;               // of a tile

// Positions of a step within its eight k: 0 to 3 for the first two kept weights of a column, 4 to 7 for the others.
inline __m512i places_of(__m512i positions, size_t step) {
  const __m512i moved = _mm512_srl_epi16(positions, _mm_cvtsi32_si128(static_cast<int>(2 * step)));
  return _mm512_or_si512(_mm512_and_si512(moved, _mm512_set1_epi8(3)), _mm512_set1_epi32(0x04040000));
}

// Kept weights of a step of a chunk.
template <int BITS>
inline __m512i kept_of(const char* chunk, size_t step) {
  if (BITS == 8) return _mm512_loadu_si512(chunk + kStepBytes * (1 + step));
  const __m512i row = _mm512_loadu_si512(chunk + kStepBytes * (1 + step / 2));
  const __m512i moved = _mm512_srl_epi16(row, _mm_cvtsi32_si128(static_cast<int>(4 * (step % 2))));
  return _mm512_sub_epi8(_mm512_and_si512(moved, _mm512_set1_epi8(15)), _mm512_set1_epi8(8));
}

template <int BITS>
void expand_sparse(const int8_t* packed, size_t k4, size_t panels, void* b) {
  const char* chunk = reinterpret_cast<const char*>(packed);
  char* out = static_cast<char*>(b);
  for (size_t p = 0; p < panels; ++p) {
    for (size_t left = steps_of(k4); left; chunk += Packing{BITS}.chunk_bytes()) {
      const size_t steps = left < 4 ? left : 4;
      left -= steps;
      for (size_t step = 0; step < steps; ++step, out += kPlacedBytes) {
        _mm512_storeu_si512(out, places_of(_mm512_loadu_si512(chunk), step));
        _mm512_storeu_si512(out + kStepBytes, kept_of<BITS>(chunk, step));
      }
    }
  }
}

inline __m512i table_of(const char* a, size_t k4) { return _mm512_set1_epi64(static_cast<long long>(eight_of(a, k4))); }

template <size_t ROWS>
void sparse_rows(const Product& p, size_t first, size_t n, int32_t* acc, size_t acc_stride) {
  const char *a = static_cast<const char*>(p.a) + first * p.a_stride, *b = static_cast<const char*>(p.b) + n / kPanel * p.b_stride;
  __m512i sums[ROWS];
#pragma GCC unroll 12
  for (size_t r = 0; r < ROWS; ++r) sums[r] = _mm512_loadu_si512(p.init + (first + r) * p.init_stride + n);
  const auto add = [&](size_t k4) {
    const __m512i places = _mm512_loadu_si512(b), w = _mm512_loadu_si512(b + kStepBytes);
#pragma GCC unroll 12
    for (size_t r = 0; r < ROWS; ++r) {
      add_products(sums[r], _mm512_shuffle_epi8(table_of(a + r * p.a_stride, k4), places), w);
    }
  };
  for (size_t k = p.k4 / 2; k; --k, a += 8, b += kPlacedBytes) add(2);
  if (p.k4 % 2) add(1);
#pragma GCC unroll 12
  for (size_t r = 0; r < ROWS; ++r) _mm512_storeu_si512(acc + (first + r) * acc_stride + n, sums[r]);
}

constexpr void (*kSparseTiles[kSparseRows])(const Product&, size_t, size_t, int32_t*, size_t) = {
    sparse_rows<1>, sparse_rows<2>, sparse_rows<3>, sparse_rows<4>,  sparse_rows<5>,  sparse_rows<6>,
    sparse_rows<7>, sparse_rows<8>, sparse_rows<9>, sparse_rows<10>, sparse_rows<11>, sparse_rows<12>};

inline void multiply_sparse(const Product& p, int32_t* acc, size_t acc_stride) {
  const size_t tiles = (p.rows + kSparseRows - 1) / kSparseRows;
  for (size_t n = 0; n < p.columns; n += kPanel) {
    for (size_t t = 0, first = 0; t < tiles; ++t) {
      const size_t rows = (p.rows - first + tiles - t - 1) / (tiles - t);
      kSparseTiles[rows - 1](p, first, n, acc, acc_stride);
      first += rows;
    }
  }
}

// Straight from the packed weights.
template <int BITS, size_t ROWS>
void few_sparse_rows(const Product& p, size_t first, int32_t* acc, size_t acc_stride) {
  for (size_t n = 0; n < p.columns; n += kPanel) {
    const char *a = static_cast<const char*>(p.a) + first * p.a_stride, *b = static_cast<const char*>(p.b) + n / kPanel * p.b_stride;
    __m512i sums[ROWS][2];  // by turns: one waits for the last product less often
    for (size_t r = 0; r < ROWS; ++r) {
      sums[r][0] = _mm512_loadu_si512(p.init + (first + r) * p.init_stride + n);
      sums[r][1] = _mm512_setzero_si512();
    }
    for (size_t left = p.k4; left; b += Packing{BITS}.chunk_bytes()) {
      const size_t k4 = left < 8 ? left : 8;
      const __m512i positions = _mm512_loadu_si512(b);
#pragma GCC unroll 4
      for (size_t step = 0; step < 4; ++step) {
        if (2 * step >= k4) break;
        const __m512i places = places_of(positions, step), w = kept_of<BITS>(b, step);
#pragma GCC unroll 2
        for (size_t r = 0; r < ROWS; ++r) {
          const __m512i table = table_of(a + r * p.a_stride + 8 * step, k4 - 2 * step);
          add_products(sums[r][step % 2], _mm512_shuffle_epi8(table, places), w);
        }
      }
      left -= k4;
      a += 4 * k4;
    }
    for (size_t r = 0; r < ROWS; ++r) {
      _mm512_storeu_si512(acc + (first + r) * acc_stride + n, _mm512_add_epi32(sums[r][0], sums[r][1]));
    }
  }
}

template <int BITS>
void multiply_few_sparse(const Product& p, int32_t* acc, size_t acc_stride) {
  size_t r = 0;
  for (; r + 2 <= p.rows; r += 2) few_sparse_rows<BITS, 2>(p, r, acc, acc_stride);
  if (r < p.rows) few_sparse_rows<BITS, 1>(p, r, acc, acc_stride);
}

template <int BITS>
constexpr Dense kSparse = {kSparseRows, 1,           Held::raw,       expand_sparse<BITS>, 1,
                           load_row,    load_windows, multiply_sparse, nullptr,             2};
template <int BITS>
constexpr Dense kFewSparse = {kFewRows, 1,           Held::raw,                 nullptr, 1,
                              load_row, load_windows, multiply_few_sparse<BITS>, nullptr};

}  // namespace avx512
}  // namespace mulshift

#endif
