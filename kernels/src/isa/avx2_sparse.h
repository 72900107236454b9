// Products with two of four weights kept (sparse.h) on AVX2.
//
// Eight k of a row in every half of a register are a table, from which vpshufb picks the four activations that each column
// keeps weights for: half the steps of a dense product.
//
// Of 8 bits, exact: vpmaddubsw takes |w| as u8 and, by the sign of w, x - 128 or 127 - x (Held::by_sign) as s8, which are
//   the two halves of the table:   |two products| <= 2 * 128 * 128 = 2^15, and 2^15 itself is -2^15, which fits 16 bits.
// Of 4 bits: vpmaddubsw takes x as u8 and w as s8: eight steps of them fit 16 bits, 255 * 2 * 8 * 8 = 32640.
//
// Layout     b: [step][128]: 64 places of the table, [16 columns][4], then |w| or w likewise.
#ifndef MULSHIFT_SRC_ISA_AVX2_SPARSE_H
#define MULSHIFT_SRC_ISA_AVX2_SPARSE_H

#include "../sparse.h"
#include "avx2_small.h"

namespace mulshift {
namespace avx2 {

constexpr size_t kPlacedBytes = 2 * kStepBytes;  // of a step
constexpr size_t kSparseRows = 4;                // of a tile: 8 sums, 2 vectors of places, 2 of weights, 2 constants, 2 products
constexpr size_t kStepsOfFour = 8;               // of 4-bit weights that add up in 16 bits

// Positions of a step within its eight k: 0 to 3 for the first two kept weights of a column, 4 to 7 for the others.
inline __m256i places_of(__m256i positions, size_t step) {
  const __m256i moved = _mm256_srl_epi16(positions, _mm_cvtsi32_si128(static_cast<int>(2 * step)));
  const __m256i four = _mm256_set1_epi32(0x04040000);
  return _mm256_or_si256(_mm256_and_si256(moved, _mm256_set1_epi8(3)), four);
}

// Kept weights of a step of a chunk, by half.
template <int BITS>
inline __m256i kept_of(const char* chunk, size_t step, size_t half) {
  if (BITS == 8) return read(chunk + kStepBytes * (1 + step) + 32 * half);
  const __m256i row = read(chunk + kStepBytes * (1 + step / 2) + 32 * half);
  const __m256i moved = step % 2 ? _mm256_srli_epi16(row, 4) : row;
  return _mm256_sub_epi8(_mm256_and_si256(moved, _mm256_set1_epi8(15)), _mm256_set1_epi8(8));
}

// 32 places and kept weights of a step; those below 0 take the upper half of the table.
template <int BITS>
inline void write_placed(__m256i places, __m256i w, char* out) {
  if (BITS == 8) {
    const __m256i negative = _mm256_cmpgt_epi8(_mm256_setzero_si256(), w);
    places = _mm256_or_si256(places, _mm256_and_si256(negative, _mm256_set1_epi8(8)));
    w = _mm256_abs_epi8(w);
  }
  write(out, places);
  write(out + kStepBytes, w);
}

template <int BITS>
inline void expand_sparse(const int8_t* packed, size_t k4, size_t panels, void* b) {
  const char* chunk = reinterpret_cast<const char*>(packed);
  char* out = static_cast<char*>(b);
  for (size_t p = 0; p < panels; ++p) {
    for (size_t left = steps_of(k4); left; chunk += Packing{BITS}.chunk_bytes()) {
      const size_t steps = left < 4 ? left : 4;
      left -= steps;
      for (size_t step = 0; step < steps; ++step, out += kPlacedBytes) {
        for (size_t half = 0; half < 2; ++half) {
          write_placed<BITS>(places_of(read(chunk + 32 * half), step), kept_of<BITS>(chunk, step, half), out + 32 * half);
        }
      }
    }
  }
}

// Zeros of panels, of 8 bits.
inline void expand_shared(const int8_t* packed, size_t k4, size_t panels, void* b) {
  const Packing packing = {8, 0, Zeros::of_panels};
  const char* panel = reinterpret_cast<const char*>(packed);
  char* out = static_cast<char*>(b);
  for (size_t p = 0; p < panels; ++p, panel += packing.panel_bytes(k4)) {
    const char* kept = panel + packing.head_bytes(k4);
    for (size_t step = 0; step < steps_of(k4); ++step, kept += kStepBytes, out += kPlacedBytes) {
      const __m256i positions = _mm256_set1_epi8(panel[step]);
      const __m256i moved = _mm256_srlv_epi32(positions, _mm256_set_epi32(6, 4, 2, 0, 6, 4, 2, 0));
      const __m256i by_byte = _mm256_setr_epi8(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0,
                                               4, 8, 12, 0, 4, 8, 12);
      const __m256i places = places_of(_mm256_shuffle_epi8(moved, by_byte), 0);
      for (size_t half = 0; half < 2; ++half) write_placed<8>(places, read(kept + 32 * half), out + 32 * half);
    }
  }
}

// What turns eight activations into the halves of the table: x - 128 and 127 - x.
inline __m256i flips() {
  return _mm256_setr_epi64x(static_cast<long long>(0x8080808080808080), 0x7f7f7f7f7f7f7f7f,
                            static_cast<long long>(0x8080808080808080), 0x7f7f7f7f7f7f7f7f);
}

struct Kept {
  __m256i places[2], w[2];
};

// One step of one row. Written as instructions for the reason given in avx2_dense.h.
inline void add_kept(__m256i& low, __m256i& high, const uint64_t* a, const Kept& b, __m256i flip, __m256i ones) {
  __m256i p, q;
  asm volatile(
      "vpbroadcastq %4, %2\n\t"
      "vpxor %9, %2, %2\n\t"
      "vpshufb %5, %2, %3\n\t"
      "vpshufb %6, %2, %2\n\t"
      "vpmaddubsw %3, %7, %3\n\t"
      "vpmaddubsw %2, %8, %2\n\t"
      "vpmaddwd %10, %3, %3\n\t"
      "vpmaddwd %10, %2, %2\n\t"
      "vpaddd %3, %0, %0\n\t"
      "vpaddd %2, %1, %1"
      : "+x"(low), "+x"(high), "=&x"(p), "=&x"(q)
      : "m"(*a), "x"(b.places[0]), "x"(b.places[1]), "x"(b.w[0]), "x"(b.w[1]), "x"(flip), "x"(ones));
}

// The same of 4-bit weights, in 16 bits.
inline void add_kept_four(__m256i& low, __m256i& high, const uint64_t* a, const Kept& b) {
  __m256i p, q;
  asm volatile(
      "vpbroadcastq %4, %2\n\t"
      "vpshufb %5, %2, %3\n\t"
      "vpshufb %6, %2, %2\n\t"
      "vpmaddubsw %7, %3, %3\n\t"
      "vpmaddubsw %8, %2, %2\n\t"
      "vpaddw %3, %0, %0\n\t"
      "vpaddw %2, %1, %1"
      : "+x"(low), "+x"(high), "=&x"(p), "=&x"(q)
      : "m"(*a), "x"(b.places[0]), "x"(b.places[1]), "x"(b.w[0]), "x"(b.w[1]));
}

inline Kept read_kept(const char* b) { return {{read(b), read(b + 32)}, {read(b + 64), read(b + 96)}}; }

template <size_t ROWS>
__attribute__((always_inline)) inline void sparse_sums(const Tile& t, int32_t* acc, size_t stride) {
  const char *a = t.a, *b = t.b;
  const size_t a_stride = t.a_stride;
  const __m256i flip = flips(), ones = ones_s16();
  __m256i low[ROWS], high[ROWS];
#pragma GCC unroll 4
  for (size_t r = 0; r < ROWS; ++r) {
    low[r] = read(t.init + r * t.init_stride);
    high[r] = read(t.init + r * t.init_stride + 8);
  }
  for (size_t k = t.k4 / 2; k; --k, b += kPlacedBytes, a += 8) {
    const Kept kept = read_kept(b);
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; ++r) {
      add_kept(low[r], high[r], reinterpret_cast<const uint64_t*>(a + r * a_stride), kept, flip, ones);
    }
  }
  if (t.k4 % 2) {
    const Kept kept = read_kept(b);
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; ++r) {
      const uint64_t x = eight_of(a + r * a_stride, 1);
      add_kept(low[r], high[r], &x, kept, flip, ones);
    }
  }
#pragma GCC unroll 4
  for (size_t r = 0; r < ROWS; ++r) V{low[r], high[r]}.store(acc + r * stride);
}

template <size_t ROWS>
__attribute__((always_inline)) inline void sparse_four_sums(const Tile& t, int32_t* acc, size_t stride) {
  const char *a = t.a, *b = t.b;
  const size_t a_stride = t.a_stride;
  const int32_t* init = t.init;
  size_t init_stride = t.init_stride, left = t.k4;
  do {
    const size_t k4 = left < 2 * kStepsOfFour ? left : 2 * kStepsOfFour;
    left -= k4;
    __m256i low[ROWS], high[ROWS];
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; ++r) low[r] = high[r] = _mm256_setzero_si256();
    for (size_t k = k4 / 2; k; --k, b += kPlacedBytes, a += 8) {
      const Kept kept = read_kept(b);
#pragma GCC unroll 4
      for (size_t r = 0; r < ROWS; ++r) {
        add_kept_four(low[r], high[r], reinterpret_cast<const uint64_t*>(a + r * a_stride), kept);
      }
    }
    if (k4 % 2) {
      const Kept kept = read_kept(b);
#pragma GCC unroll 4
      for (size_t r = 0; r < ROWS; ++r) {
        const uint64_t x = eight_of(a + r * a_stride, 1);
        add_kept_four(low[r], high[r], &x, kept);
      }
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; ++r) {
      const int32_t* from = init + r * init_stride;
      int32_t* to = acc + r * stride;
      write(to, _mm256_add_epi32(_mm256_madd_epi16(low[r], ones_s16()), read(from)));
      write(to + 8, _mm256_add_epi32(_mm256_madd_epi16(high[r], ones_s16()), read(from + 8)));
    }
    init = acc;
    init_stride = stride;
  } while (left);
}

template <int BITS, size_t ROWS>
constexpr Accumulate kSparseSums = BITS == 8 ? each_of<sparse_sums<ROWS>, ROWS> : each_of<sparse_four_sums<ROWS>, ROWS>;
template <int BITS>
constexpr Accumulate kSparseTiles[kSparseRows] = {kSparseSums<BITS, 1>, kSparseSums<BITS, 2>, kSparseSums<BITS, 3>,
                                                  kSparseSums<BITS, 4>};
template <int BITS>
inline void multiply_sparse(const Product& p, int32_t* acc, size_t stride) {
  each_panel(p, kSparseRows, [&](Tile& tile, size_t rows, size_t tiles, size_t m, size_t n) {
    kSparseTiles<BITS>[rows - 1](tile, tiles, acc + m * stride + n, stride);
  });
}

template <int BITS>
inline void multiply_sparse_to_bytes(const Product& p, const Stages& stages, uint8_t* y, size_t stride) {
  to_bytes(p, kSparseTiles<BITS>, kSparseRows, stages, y, stride);
}

// Straight from the packed weights. Of 4 bits: sums of two chunks in 16 bits.
template <int BITS, size_t ROWS>
inline void few_sparse_rows(const Product& p, size_t first, int32_t* acc, size_t acc_stride) {
  constexpr size_t kChunks = BITS == 8 ? 1 : kStepsOfFour / 4;
  const __m256i top = _mm256_set1_epi8(-128);
  for (size_t n = 0; n < p.columns; n += kPanel) {
    const char *a = static_cast<const char*>(p.a) + first * p.a_stride,
               *b = static_cast<const char*>(p.b) + n / kPanel * p.b_stride;
    __m256i sums[ROWS][2];
    for (size_t r = 0; r < ROWS; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
    for (size_t left = p.k4; left;) {
      __m256i short_sums[ROWS][2];
      for (size_t r = 0; r < ROWS; ++r) short_sums[r][0] = short_sums[r][1] = _mm256_setzero_si256();
      for (size_t chunk = 0; chunk < kChunks && left; ++chunk, b += Packing{BITS}.chunk_bytes()) {
        for (size_t i = 0; i < Packing{BITS}.chunk_bytes(); i += kStepBytes) fetch(b + i);
        const __m256i positions[2] = {read(b), read(b + 32)};
        const auto add = [&](size_t step, size_t k4) {
          __m256i table[ROWS];
#pragma GCC unroll 2
          for (size_t r = 0; r < ROWS; ++r) {
            table[r] = _mm256_set1_epi64x(static_cast<long long>(eight_of(a + r * p.a_stride + 8 * step, k4)));
            if (BITS == 8) table[r] = _mm256_xor_si256(table[r], top);
          }
#pragma GCC unroll 2
          for (size_t half = 0; half < 2; ++half) {
            const __m256i places = places_of(positions[half], step), w = kept_of<BITS>(b, step, half);
            const __m256i negative = _mm256_cmpgt_epi8(_mm256_setzero_si256(), w), magnitude = _mm256_abs_epi8(w);
#pragma GCC unroll 2
            for (size_t r = 0; r < ROWS; ++r) {
              const __m256i x = _mm256_shuffle_epi8(table[r], places);
              if (BITS == 8) {
                const __m256i two = _mm256_maddubs_epi16(magnitude, _mm256_xor_si256(x, negative));
                sums[r][half] = _mm256_add_epi32(sums[r][half], _mm256_madd_epi16(two, ones_s16()));
              } else {
                short_sums[r][half] = _mm256_add_epi16(short_sums[r][half], _mm256_maddubs_epi16(x, w));
              }
            }
          }
        };
        const size_t k4 = left < 8 ? left : 8;
        left -= k4;
        if (k4 == 8) {
#pragma GCC unroll 4
          for (size_t step = 0; step < 4; ++step) add(step, 2);
        } else {
          for (size_t step = 0; 2 * step < k4; ++step) add(step, k4 - 2 * step);
        }
        a += 4 * k4;
      }
      if (BITS == 8) continue;
      for (size_t r = 0; r < ROWS; ++r) {
        for (size_t half = 0; half < 2; ++half) {
          sums[r][half] = _mm256_add_epi32(sums[r][half], _mm256_madd_epi16(short_sums[r][half], ones_s16()));
        }
      }
    }
    write_panel(p, first, n, sums, acc, acc_stride);
  }
}

template <int BITS>
inline void multiply_few_sparse(const Product& p, int32_t* acc, size_t acc_stride) {
  size_t r = 0;
  for (; r + 2 <= p.rows; r += 2) few_sparse_rows<BITS, 2>(p, r, acc, acc_stride);
  if (r < p.rows) few_sparse_rows<BITS, 1>(p, r, acc, acc_stride);
}

template <int BITS>
constexpr Held kSparseHeld = BITS == 8 ? Held::by_sign : Held::raw;
template <int BITS>
constexpr Dense kSparse = {kSparseRows,     1,           kSparseHeld<BITS>,     expand_sparse<BITS>,           1,
                           load_row_u8,     load_windows_u8, multiply_sparse<BITS>, multiply_sparse_to_bytes<BITS>, 2};
constexpr Dense kShared = {kSparseRows, 1,           Held::by_sign,      expand_shared,               1,
                           load_row_u8, load_windows_u8, multiply_sparse<8>, multiply_sparse_to_bytes<8>, 2};
template <int BITS>
constexpr Dense kFewSparse = {kFewRows,    1,               kSparseHeld<BITS>,         nullptr, 1,
                              load_row_u8, load_windows_u8, multiply_few_sparse<BITS>, nullptr};

}  // namespace avx2
}  // namespace mulshift

#endif
