// Tiles of couples on AVX2: any two steps along k of which no four weights can leave 16 bits (fours.h).
//
// Two results of vpmaddubsw are added in 16 bits before vpmaddwd widens them: 5 instructions where there were 6, 3
// multiplications where there were 4. Nearly all steps of a panel find a partner. The others come after all couples, so a
// panel has no branch that its weights decide, which would be foreseen wrongly in a network.
#ifndef MULSHIFT_SRC_ISA_AVX2_COUPLES_H
#define MULSHIFT_SRC_ISA_AVX2_COUPLES_H

#include "avx2_tile.h"

namespace mulshift {
namespace avx2 {

// One step, pair_safe.
struct SlowU8 {
  template <size_t ROWS>
  static void add(const char* a, size_t a_stride, const char* b, __m256i ones, __m256i* low, __m256i* high) {
    const __m256i b0 = read(b), b1 = read(b + 32);
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; ++r) {
      const __m256i x = broadcast(a + r * a_stride);
      StepU8::add(low[r], x, b0, ones);
      StepU8::add(high[r], x, b1, ones);
    }
  }
};
// One step of any weights: even and odd k apart, in 16 bits.
struct SlowS16 {
  template <size_t ROWS>
  static void add(const char* a, size_t a_stride, const char* b, __m256i, __m256i* low, __m256i* high) {
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
      StepS16::add(sums[r], _mm256_and_si256(x, _mm256_set1_epi16(255)), even, x);
      StepS16::add(sums[r], _mm256_srli_epi16(x, 8), odd, x);
    }
  }
};

// What an instruction below reads, for the compiler to know.
using Read = const char (*)[];

// 32 bytes at p + offset + AT, both in registers: gcc adds them first.
template <int AT>
inline __m256i read_at(const char* p, size_t offset) {
  __m256i x;
  asm volatile("vmovdqu %c3(%1,%2), %0" : "=x"(x) : "r"(p), "r"(offset), "i"(AT), "m"(*reinterpret_cast<Read>(p)));
  return x;
}

// Two steps at once, whose activations are at a + 4 * i and a + 4 * j: vpmaddubsw of each, added in 16 bits. All 16
// registers of a tile of four rows are taken, so the last weights stay in memory, at b + offset + 32.
inline void add_two(__m256i& low, __m256i& high, const char* a, size_t i, size_t j, __m256i b00, __m256i b01, __m256i b10,
                    const char* b, size_t offset, __m256i ones) {
  __m256i p, q, x, y;
  asm volatile(
      "vpbroadcastd (%6,%7,4), %4\n\t"
      "vpbroadcastd (%6,%8,4), %5\n\t"
      "vpmaddubsw %9, %4, %2\n\t"
      "vpmaddubsw %10, %4, %3\n\t"
      "vpmaddubsw %11, %5, %4\n\t"
      "vpmaddubsw 32(%12,%13), %5, %5\n\t"
      "vpaddw %4, %2, %2\n\t"
      "vpaddw %5, %3, %3\n\t"
      "vpmaddwd %14, %2, %2\n\t"
      "vpmaddwd %14, %3, %3\n\t"
      "vpaddd %2, %0, %0\n\t"
      "vpaddd %3, %1, %1"
      : "+x"(low), "+x"(high), "=&x"(p), "=&x"(q), "=&x"(x), "=&x"(y)
      : "r"(a), "r"(i), "r"(j), "x"(b00), "x"(b01), "x"(b10), "r"(b), "r"(offset), "x"(ones),
        "m"(*reinterpret_cast<Read>(a)), "m"(*reinterpret_cast<Read>(b)));
}

// The same of eight columns.
inline void add_two(__m256i& sum, const char* a, size_t i, size_t j, __m256i b0, __m256i b1, __m256i ones) {
  __m256i p, x;
  asm volatile(
      "vpbroadcastd (%3,%4,4), %1\n\t"
      "vpbroadcastd (%3,%5,4), %2\n\t"
      "vpmaddubsw %6, %1, %1\n\t"
      "vpmaddubsw %7, %2, %2\n\t"
      "vpaddw %2, %1, %1\n\t"
      "vpmaddwd %8, %1, %1\n\t"
      "vpaddd %1, %0, %0"
      : "+x"(sum), "=&x"(p), "=&x"(x)
      : "r"(a), "r"(i), "r"(j), "x"(b0), "x"(b1), "x"(ones), "m"(*reinterpret_cast<Read>(a)));
}

// Couples at once, then the other steps. HALF: the first eight columns count. Weights of few rows come from memory, which is
// read in order.
template <class Slow, bool HALF>
struct ByCouples {
  static constexpr size_t kMost = 4;
  static constexpr bool kFromMemory = true;

  template <size_t ROWS>
  __attribute__((always_inline)) static void sums(const Tile& t, __m256i* low, __m256i* high) {
    const char *const b = t.b, *a[ROWS];
#pragma GCC unroll 4
    for (size_t r = 0; r < ROWS; ++r) {
      a[r] = t.a + r * t.a_stride;
      low[r] = read(t.init + r * t.init_stride);
      high[r] = HALF ? _mm256_setzero_si256() : read(t.init + r * t.init_stride + 8);
    }
    const __m256i ones = _mm256_set1_epi16(1);
    if (ROWS <= kFetchRows) {
      for (size_t k = 0; k < t.k4; ++k) {
        fetch(b + 64 * k);
        Slow::template add<ROWS>(t.a + 4 * k, t.a_stride, b + 64 * k, ones, low, high);
      }
      return;
    }
    const uint16_t *step = t.steps, *const last = step + 2 * t.couples, *const end = t.steps + t.k4;
    for (; step != last; step += 2) {
      const size_t i = step[0], j = step[1];
      const size_t first = 64 * i, second = 64 * j;
      const __m256i b00 = read_at<0>(b, first), b10 = read_at<0>(b, second);
      if (HALF) {
#pragma GCC unroll 4
        for (size_t r = 0; r < ROWS; ++r) add_two(low[r], a[r], i, j, b00, b10, ones);
        continue;
      }
      const __m256i b01 = read_at<32>(b, first);
#pragma GCC unroll 4
      for (size_t r = 0; r < ROWS; ++r) add_two(low[r], high[r], a[r], i, j, b00, b01, b10, b, second, ones);
    }
    for (; step != end; ++step) Slow::template add<ROWS>(t.a + 4 * *step, t.a_stride, b + 64 * *step, ones, low, high);
  }
};

}  // namespace avx2
}  // namespace mulshift

#endif
