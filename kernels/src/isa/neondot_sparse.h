// Products with two of four weights kept (sparse.h) on NEON with dot products.
//
// Eight k of a row are a table, from which tbl picks the four activations that each column keeps weights for; sdot adds
// their products, exactly. a holds x - 128.
//
// Layout     b: [step][128]: 64 places of the table, [16 columns][4], then w likewise.
#ifndef MULSHIFT_SRC_ISA_NEONDOT_SPARSE_H
#define MULSHIFT_SRC_ISA_NEONDOT_SPARSE_H

#include "../sparse.h"
#include "neondot_dense.h"

namespace mulshift {
namespace neon {

constexpr size_t kPlacedBytes = 2 * kStepBytes;  // of a step

// Sixteen positions of a step within its eight k: 0 to 3 for the first two kept weights of a column, 4 to 7 for the others.
inline uint8x16_t places_of(const uint8_t* positions, size_t step) {
  const uint8x16_t moved = vshlq_u8(vld1q_u8(positions), vdupq_n_s8(static_cast<int8_t>(-2 * static_cast<int>(step))));
  return vorrq_u8(vandq_u8(moved, vdupq_n_u8(3)), vreinterpretq_u8_u32(vdupq_n_u32(0x04040000)));
}

// Sixteen kept weights of a step of a chunk, from column `column` on.
template <int BITS>
inline int8x16_t kept_of(const uint8_t* chunk, size_t step, size_t column) {
  if (BITS == 8) return vreinterpretq_s8_u8(vld1q_u8(chunk + kStepBytes * (1 + step) + 4 * column));
  const uint8x16_t row = vld1q_u8(chunk + kStepBytes * (1 + step / 2) + 4 * column);
  const uint8x16_t moved = vshlq_u8(row, vdupq_n_s8(step % 2 ? -4 : 0));
  return vsubq_s8(vreinterpretq_s8_u8(vandq_u8(moved, vdupq_n_u8(15))), vdupq_n_s8(8));
}

template <int BITS>
void expand_sparse(const int8_t* packed, size_t k4, size_t panels, void* b) {
  const uint8_t* chunk = reinterpret_cast<const uint8_t*>(packed);
  uint8_t* out = static_cast<uint8_t*>(b);
  for (size_t p = 0; p < panels; ++p) {
    for (size_t left = steps_of(k4); left; chunk += Packing{BITS}.chunk_bytes()) {
      const size_t steps = left < 4 ? left : 4;
      left -= steps;
      for (size_t step = 0; step < steps; ++step, out += kPlacedBytes) {
        for (size_t q = 0; q < 4; ++q) {
          vst1q_u8(out + 16 * q, places_of(chunk + 16 * q, step));
          vst1q_u8(out + kStepBytes + 16 * q, vreinterpretq_u8_s8(kept_of<BITS>(chunk, step, 4 * q)));
        }
      }
    }
  }
}

inline uint8x16_t table_of(const char* a, size_t k4) { return vreinterpretq_u8_u64(vdupq_n_u64(eight_of(a, k4))); }

template <size_t ROWS>
void sparse_rows(const Product& p, size_t first, size_t n, int32_t* acc, size_t acc_stride) {
  const char* a = static_cast<const char*>(p.a) + first * p.a_stride;
  const uint8_t* b = static_cast<const uint8_t*>(p.b) + n / kPanel * p.b_stride;
  V sums[ROWS];
  for (size_t r = 0; r < ROWS; ++r) sums[r] = V::load(p.init + (first + r) * p.init_stride + n);
  for (size_t left = p.k4; left; left -= left < 2 ? left : 2, a += 8, b += kPlacedBytes) {
#pragma GCC unroll 6
    for (size_t r = 0; r < ROWS; ++r) {
      const uint8x16_t table = table_of(a + r * p.a_stride, left);
#pragma GCC unroll 4
      for (size_t q = 0; q < 4; ++q) {
        const int8x16_t x = vreinterpretq_s8_u8(vqtbl1q_u8(table, vld1q_u8(b + 16 * q)));
        sums[r].v[q] = vdotq_s32(sums[r].v[q], x, vreinterpretq_s8_u8(vld1q_u8(b + kStepBytes + 16 * q)));
      }
    }
  }
  for (size_t r = 0; r < ROWS; ++r) sums[r].store(acc + (first + r) * acc_stride + n);
}

constexpr void (*kSparseTiles[6])(const Product&, size_t, size_t, int32_t*, size_t) = {
    sparse_rows<1>, sparse_rows<2>, sparse_rows<3>, sparse_rows<4>, sparse_rows<5>, sparse_rows<6>};

inline void multiply_sparse(const Product& p, int32_t* acc, size_t acc_stride) {
  const size_t tiles = (p.rows + 5) / 6;
  for (size_t n = 0; n < p.columns; n += kPanel) {
    for (size_t t = 0, first = 0; t < tiles; ++t) {
      const size_t rows = (p.rows - first + tiles - t - 1) / (tiles - t);
      kSparseTiles[rows - 1](p, first, n, acc, acc_stride);
      first += rows;
    }
  }
}

// Straight from the packed weights.
template <int BITS>
void few_sparse_row(const Product& p, size_t row, int32_t* acc) {
  for (size_t n = 0; n < p.columns; n += kPanel) {
    const char* a = static_cast<const char*>(p.a) + row * p.a_stride;
    const uint8_t* b = static_cast<const uint8_t*>(p.b) + n / kPanel * p.b_stride;
    V sums = V::load(p.init + row * p.init_stride + n);
    for (size_t left = p.k4; left; b += Packing{BITS}.chunk_bytes()) {
      for (size_t step = 0; step < 4 && left; ++step, left -= left < 2 ? left : 2, a += 8) {
        const uint8x16_t table = table_of(a, left);
#pragma GCC unroll 4
        for (size_t q = 0; q < 4; ++q) {
          const int8x16_t x = vreinterpretq_s8_u8(vqtbl1q_u8(table, places_of(b + 16 * q, step)));
          sums.v[q] = vdotq_s32(sums.v[q], x, kept_of<BITS>(b, step, 4 * q));
        }
      }
    }
    sums.store(acc + n);
  }
}

template <int BITS>
void multiply_few_sparse(const Product& p, int32_t* acc, size_t acc_stride) {
  for (size_t r = 0; r < p.rows; ++r) few_sparse_row<BITS>(p, r, acc + r * acc_stride);
}

template <int BITS>
constexpr Dense kSparse = {6,        1,           Held::less_128,  expand_sparse<BITS>, 1,
                           load_row, load_windows, multiply_sparse, nullptr,             2};
template <int BITS>
constexpr Dense kFewSparse = {kFewRows, 1,           Held::less_128,            nullptr, 1,
                              load_row, load_windows, multiply_few_sparse<BITS>, nullptr};

}  // namespace neon
}  // namespace mulshift

#endif
