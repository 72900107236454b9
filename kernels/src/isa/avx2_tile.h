// Products on AVX2 in tiles: sums of some rows and sixteen columns in registers, step by step along k.
//
// vpmaddubsw adds two u8 * s8 products in 16 bits and saturates: 255 * 127 * 2 does not fit. So weights and activations
// go to 16 bits and vpmaddwd adds two products in 32 bits: 16 multiply-accumulates in two instructions. Where no pair of
// neighbouring weights can leave 16 bits (pair_safe), vpmaddubsw is exact and saves a quarter of the instructions.
#ifndef MULSHIFT_SRC_ISA_AVX2_TILE_H
#define MULSHIFT_SRC_ISA_AVX2_TILE_H

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

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
  static void add(__m256i& sum, __m256i a, __m256i b, __m256i) {
    __m256i product;
    asm volatile("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(a), "x"(b));
  }
  // Both halves, which reads b once.
  static void add(__m256i& low, __m256i& high, __m256i a, __m256i b0, __m256i b1, const char*, __m256i) {
    __m256i product;  // two sums do not wait for one product after the other
    asm volatile("vpmaddwd %4, %3, %2\n\tvpmaddwd %5, %3, %3\n\tvpaddd %2, %0, %0\n\tvpaddd %3, %1, %1"
                 : "+x"(low), "+x"(high), "=&x"(product), "+x"(a)
                 : "x"(b0), "x"(b1));
  }
};
struct StepU8 {
  static constexpr size_t bytes_of_b = 64, steps = 1;
  static void add(__m256i& sum, __m256i a, __m256i b, __m256i ones) {
    __m256i product;
    asm volatile("vpmaddubsw %3, %2, %1\n\tvpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0"
                 : "+x"(sum), "=&x"(product)
                 : "x"(a), "x"(b), "x"(ones));
  }
  // With `ones` a tile of six rows leaves no register for the second half of b.
  static void add(__m256i& low, __m256i& high, __m256i a, __m256i b0, __m256i, const char* b, __m256i ones) {
    __m256i product;
    add(low, a, b0, ones);
    asm volatile("vpmaddubsw %3, %2, %1\n\tvpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0"
                 : "+x"(high), "=&x"(product)
                 : "x"(a), "m"(*reinterpret_cast<const char(*)[32]>(b + 32)), "x"(ones));
  }
};

struct Tile {
  const char* a;
  size_t a_stride;
  const char* b;
  size_t k4;
  const int32_t* init;
  size_t init_stride;
  const uint16_t* steps;  // of the panel, see Couples
  size_t couples;
  const char* next;  // weights that are asked for meanwhile: those of the next panel
  size_t lines;      // of 64 bytes, a tile
};

constexpr size_t kRows = 6;  // 12 sums, 2 vectors of weights, 1 of activations, 1 product: all 16 registers

// A method makes the sums of a tile, of eight columns each: here step by step. HALF: the first eight columns count.
template <class Step, bool HALF>
struct StepByStep {
  static constexpr size_t kMost = kRows;
  static constexpr bool kFromMemory = Step::bytes_of_b == 64;  // as they are packed

  template <size_t ROWS>
  __attribute__((always_inline)) static void sums(const Tile& t, __m256i* low, __m256i* high) {
    const char *a = t.a, *b = t.b;
    const size_t a_stride = t.a_stride;
#pragma GCC unroll 6
    for (size_t r = 0; r < ROWS; ++r) {
      low[r] = read(t.init + r * t.init_stride);
      high[r] = HALF ? _mm256_setzero_si256() : read(t.init + r * t.init_stride + 8);
    }
    const __m256i ones = _mm256_set1_epi16(1);
    for (size_t k = t.k4; k; --k) {
#pragma GCC unroll 2
      for (size_t step = 0; step < Step::steps; ++step, b += 64, a += 4) {
        if (ROWS <= kFetchRows) fetch(b);
        const __m256i b0 = read(b), b1 = HALF ? b0 : read(b + 32);
#pragma GCC unroll 6
        for (size_t r = 0; r < ROWS; ++r) {
          const __m256i x = broadcast(a + r * a_stride);
          HALF ? Step::add(low[r], x, b0, ones) : Step::add(low[r], high[r], x, b0, b1, b, ones);
        }
      }
    }
  }
};

}  // namespace avx2
}  // namespace mulshift

#endif
