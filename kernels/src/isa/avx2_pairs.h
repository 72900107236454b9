// Products whose second operand comes from the call, on AVX2: vpmaddubsw, and its sums added two by two, where they fit.
//
//   |sum of x * w over some| <= 255 * 128 < 2^15      if those w above 0 add up to at most 128, those below to at least -128
//
// A step is four k of sixteen columns, an instruction adds two products of each. Two steps of which all four of these fit
// go together ("a couple", any two that are near); one of which all two fit goes alone; others go twice, by
// w = ceil(w / 2) + floor(w / 2), both within +-64. So every s8 is exact, and activations mostly go in couples.
//
// Layouts    a prepared panel: Prepared, then for the first i steps how many couples and how many single ones they take
//            ([k4 + 1][2]), the steps of each couple ([k4 / 2][2]), of each single one ([2 * k4]), their weights.
#ifndef MULSHIFT_SRC_ISA_AVX2_PAIRS_H
#define MULSHIFT_SRC_ISA_AVX2_PAIRS_H

#include "../low_bits.h"
#include "avx2_dense.h"

namespace mulshift {
namespace avx2 {

constexpr size_t kNear = 8;

// Where the parts of a prepared panel of that many steps are.
struct Prepared {
  char* base;
  size_t k4;

  uint16_t* ends() const { return reinterpret_cast<uint16_t*>(base); }
  uint16_t* couples() const { return ends() + 2 * (k4 + 1); }
  uint16_t* singles() const { return couples() + k4; }
  char* couple_weights() const { return base + rounded(2 * (5 * k4 + 2)); }
  char* single_weights() const { return couple_weights() + k4 * kStepBytes; }
  size_t bytes() const { return rounded(2 * (5 * k4 + 2)) + 3 * k4 * kStepBytes; }
  static size_t rounded(size_t bytes) { return (bytes + 63) / 64 * 64; }
};

// What the weights above and below 0 of each two of a step add up to: 32 bytes each.
struct Sums {
  __m256i above, below;

  static Sums of(const int8_t* step) {
    const __m256i a = read(step), b = read(step + 32), zero = _mm256_setzero_si256(), ones = _mm256_set1_epi8(1);
    const __m256i a_above = _mm256_maddubs_epi16(_mm256_max_epi8(a, zero), ones);
    const __m256i b_above = _mm256_maddubs_epi16(_mm256_max_epi8(b, zero), ones);
    const __m256i a_below = _mm256_sub_epi16(a_above, _mm256_maddubs_epi16(ones, a));
    const __m256i b_below = _mm256_sub_epi16(b_above, _mm256_maddubs_epi16(ones, b));
    return {_mm256_packus_epi16(a_above, b_above), _mm256_packus_epi16(a_below, b_below)};
  }
  Sums operator+(const Sums& o) const { return {_mm256_adds_epu8(above, o.above), _mm256_adds_epu8(below, o.below)}; }
  bool fit() const {
    const __m256i beyond = _mm256_subs_epu8(_mm256_max_epu8(above, below), _mm256_set1_epi8(-128));
    return _mm256_testz_si256(beyond, beyond);
  }
};

// ceil(w / 2)
inline __m256i upper_half(__m256i w) {
  const __m256i raised = _mm256_xor_si256(w, _mm256_set1_epi8(-128));  // w + 128
  return _mm256_sub_epi8(_mm256_avg_epu8(raised, _mm256_setzero_si256()), _mm256_set1_epi8(64));
}

inline size_t prepared_bytes(size_t k4) { return Prepared{nullptr, k4}.bytes(); }

inline void prepare(const int8_t* packed, size_t k4, void* prepared) {
  const Prepared to = {static_cast<char*>(prepared), k4};
  Sums sums[kPartSteps];
  bool taken[kPartSteps] = {};
  for (size_t i = 0; i < k4; ++i) sums[i] = Sums::of(packed + i * kStepBytes);
  uint16_t *ends = to.ends(), *couple = to.couples(), *single = to.singles();
  char *couple_weights = to.couple_weights(), *single_weights = to.single_weights();
  const auto put = [](char*& at, __m256i b0, __m256i b1) {
    write(at, b0);
    write(at + 32, b1);
    at += kStepBytes;
  };
  ends[0] = ends[1] = 0;
  for (size_t i = 0; i < k4; ++i) {
    const int8_t* step = packed + i * kStepBytes;
    const __m256i b0 = read(step), b1 = read(step + 32);
    if (!taken[i] && !sums[i].fit()) {
      const __m256i u0 = upper_half(b0), u1 = upper_half(b1);
      put(single_weights, u0, u1);
      put(single_weights, _mm256_sub_epi8(b0, u0), _mm256_sub_epi8(b1, u1));
      *single++ = static_cast<uint16_t>(i);
      *single++ = static_cast<uint16_t>(i);
    } else if (!taken[i]) {
      size_t j = i + 1;
      const size_t end = j + kNear < k4 ? j + kNear : k4;
      while (j < end && (taken[j] || !(sums[i] + sums[j]).fit())) ++j;
      if (j < end) {
        taken[j] = true;
        put(couple_weights, b0, b1);
        put(couple_weights, read(packed + j * kStepBytes), read(packed + j * kStepBytes + 32));
        *couple++ = static_cast<uint16_t>(i);
        *couple++ = static_cast<uint16_t>(j);
      } else {
        put(single_weights, b0, b1);
        *single++ = static_cast<uint16_t>(i);
      }
    }
    ends[2 * i + 2] = static_cast<uint16_t>((couple - to.couples()) / 2);
    ends[2 * i + 3] = static_cast<uint16_t>(single - to.singles());
  }
}

struct PairsTile {
  const char* a;
  size_t a_stride;
  Prepared w;
  size_t couples, singles;
  const int32_t* init;
  size_t init_stride;
};

template <size_t ROWS>
__attribute__((noinline)) void by_pairs(const PairsTile& t, size_t tiles, int32_t* acc, size_t stride) {
  const size_t a_stride = t.a_stride;
  const char* first = t.a;
  const int32_t* init = t.init;
  const __m256i ones = _mm256_set1_epi16(1);
  for (; tiles; --tiles, first += ROWS * a_stride, init += ROWS * t.init_stride, acc += ROWS * stride) {
    const char* a[ROWS];
    __m256i low[ROWS], high[ROWS];
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; ++r) {
      a[r] = first + r * a_stride;
      low[r] = read(init + r * t.init_stride);
      high[r] = read(init + r * t.init_stride + 8);
    }
    const uint16_t* at = t.w.couples();
    const char* b = t.w.couple_weights();
    for (const char* end = b + 128 * t.couples; b < end; b += 128, at += 2) {
      const size_t i = at[0], j = at[1];
      const __m256i b00 = read(b), b01 = read(b + 32), b10 = read(b + 64);
#pragma GCC unroll 4
      for (size_t r = 0; r < ROWS; ++r) add_two(low[r], high[r], a[r], i, j, b00, b01, b10, b, 64, ones);
    }
    at = t.w.singles();
    b = t.w.single_weights();
    for (const char* end = b + 64 * t.singles; b < end; b += 64, ++at) {
      const size_t i = at[0];
      const __m256i b0 = read(b), b1 = read(b + 32);
#pragma GCC unroll 4
      for (size_t r = 0; r < ROWS; ++r) {
        const __m256i x = broadcast(a[r] + 4 * i);
        StepU8::add(low[r], x, b0, ones);
        StepU8::add(high[r], x, b1, ones);
      }
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; ++r) V{low[r], high[r]}.store(acc + r * stride);
  }
}

inline void multiply_pairs(const Product& p, int32_t* acc, size_t stride) {
  static constexpr decltype(&by_pairs<1>) kRun[] = {by_pairs<1>, by_pairs<2>, by_pairs<3>, by_pairs<4>};
  const char* b = static_cast<const char*>(p.b);
  for (size_t n = 0; n < p.columns && p.rows; n += kPanel, b += p.b_stride) {
    const Prepared w = {const_cast<char*>(b), p.prepared_k4};
    each_run(p.rows, 4, [&](size_t first, size_t rows, size_t tiles) {
      const PairsTile tile = {static_cast<const char*>(p.a) + first * p.a_stride, p.a_stride, w, w.ends()[2 * p.k4],
                              w.ends()[2 * p.k4 + 1], p.init + first * p.init_stride + n, p.init_stride};
      kRun[rows - 1](tile, tiles, acc + first * stride + n, stride);
    });
  }
}

constexpr Dense kOfCall = {4,       1,           Held::raw,      nullptr, 1, load_row_u8, load_windows_u8, multiply_pairs,
                           nullptr, 1, prepare, prepared_bytes, 4 * kNear};

}  // namespace avx2
}  // namespace mulshift

#endif
