// Depthwise 3x3 on AVX2: vpmaddubsw adds two products in 16 bits, vpmaddwd adds two of those.
//
// Sums   where the weights of all three columns that meet in 16 bits cannot leave them: three steps, then one vpmaddwd.
// Pairs  where two weights that meet cannot.
// Any    |w| x (x - 128), or |w| x (127 - x) where w < 0: 128 * 128 * 2 fits 16 bits on the negative side, where alone it
//        can be. That is w * x - 128 * w, or w * x + 127 * |w|.
#ifndef MULSHIFT_SRC_ISA_AVX2_THREE_H
#define MULSHIFT_SRC_ISA_AVX2_THREE_H

#include "../three.h"
#include "avx2_direct.h"

namespace mulshift {
namespace avx2 {

constexpr size_t kFlips = kThreeBytes / 2;  // of ThreeAny, after its weights

struct ThreeStep : UnpackedSums {
  using Column = Sum;
  using Weights = int8_t[kThreeBytes];

  static Column lay(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d) {
    return lay(pairs(twice(a), twice(c)), pairs(twice(b), twice(d)));
  }
  static Column lay(const uint8_t* a, const uint8_t* b, const uint8_t* c) {
    const __m256i each = _mm256_setr_epi8(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12,
                                          13, 13, 14, 14, 15, 15);
    return lay(pairs(twice(a), twice(c)), _mm256_shuffle_epi8(twice(b), each));
  }

 private:
  static Column lay(__m256i outer, __m256i inner) {
    return {{_mm256_unpacklo_epi16(outer, inner), _mm256_unpackhi_epi16(outer, inner)}};
  }
};

// Both registers of a sum by `half`. The sums are written as instructions, with offsets in them: gcc 12 keeps an address for
// every weight and then reloads those.
template <class Half>
struct ThreeBy : ThreeStep {
  template <size_t I>
  static Sum sum(const Column& a, const Column& b, const Column& c, const int8_t* w) {
    return {{Half::template sum<64 * I>(a.v[0], b.v[0], c.v[0], w),
             Half::template sum<64 * I + 32>(a.v[1], b.v[1], c.v[1], w)}};
  }
  __attribute__((always_inline)) static void two(const Column& a, const Column& b, const Column& c, const Column& d,
                                                 const Column& e, const Column& f, const int8_t* w, Sum* s) {
    Half::template two<0>(a.v[0], b.v[0], c.v[0], d.v[0], e.v[0], f.v[0], w, s[0].v[0], s[1].v[0]);
    Half::template two<32>(a.v[1], b.v[1], c.v[1], d.v[1], e.v[1], f.v[1], w, s[0].v[1], s[1].v[1]);
  }
};

struct ThreeSums {
  template <size_t AT>
  __attribute__((always_inline)) static __m256i sum(__m256i a, __m256i b, __m256i c, const int8_t* w) {
    __m256i s, t;
    asm volatile(
        "vpmaddubsw %c6(%5), %2, %0\n\t"
        "vpmaddubsw %c7(%5), %3, %1\n\t"
        "vpaddw %1, %0, %0\n\t"
        "vpmaddubsw %c8(%5), %4, %1\n\t"
        "vpaddw %1, %0, %0\n\t"
        "vpmaddwd %9, %0, %0"
        : "=&x"(s), "=&x"(t)
        : "x"(a), "x"(b), "x"(c), "r"(w), "i"(AT), "i"(AT + 128), "i"(AT + 256), "x"(_mm256_set1_epi16(1)),
          "m"(*reinterpret_cast<const ThreeStep::Weights*>(w)));
    return s;
  }
  template <size_t AT>
  __attribute__((always_inline)) static void two(__m256i a, __m256i b, __m256i c, __m256i d, __m256i e, __m256i f,
                                                 const int8_t* w, __m256i& s, __m256i& t) {
    s = sum<AT>(a, b, c, w);
    t = sum<AT>(d, e, f, w);
  }
};

struct ThreePairs {
  template <size_t AT>
  __attribute__((always_inline)) static __m256i sum(__m256i a, __m256i b, __m256i c, const int8_t* w) {
    __m256i s, t;
    asm volatile(
        "vpmaddubsw %c6(%5), %2, %0\n\t"
        "vpmaddubsw %c7(%5), %3, %1\n\t"
        "vpmaddwd %9, %0, %0\n\t"
        "vpmaddwd %9, %1, %1\n\t"
        "vpaddd %1, %0, %0\n\t"
        "vpmaddubsw %c8(%5), %4, %1\n\t"
        "vpmaddwd %9, %1, %1\n\t"
        "vpaddd %1, %0, %0"
        : "=&x"(s), "=&x"(t)
        : "x"(a), "x"(b), "x"(c), "r"(w), "i"(AT), "i"(AT + 128), "i"(AT + 256), "x"(_mm256_set1_epi16(1)),
          "m"(*reinterpret_cast<const ThreeStep::Weights*>(w)));
    return s;
  }
  template <size_t AT>
  __attribute__((always_inline)) static void two(__m256i a, __m256i b, __m256i c, __m256i d, __m256i e, __m256i f,
                                                 const int8_t* w, __m256i& s, __m256i& t) {
    s = sum<AT>(a, b, c, w);
    t = sum<AT>(d, e, f, w);
  }
};

struct ThreeAny {
  template <size_t AT>
  __attribute__((always_inline)) static __m256i sum(__m256i a, __m256i b, __m256i c, const int8_t* w) {
    __m256i s, t, u;
    asm volatile(
        "vpxor %c10(%6), %3, %0\n\t"
        "vpxor %c11(%6), %4, %1\n\t"
        "vmovdqu %c7(%6), %2\n\t"
        "vpmaddubsw %0, %2, %0\n\t"
        "vmovdqu %c8(%6), %2\n\t"
        "vpmaddubsw %1, %2, %1\n\t"
        "vpmaddwd %13, %0, %0\n\t"
        "vpmaddwd %13, %1, %1\n\t"
        "vpaddd %1, %0, %0\n\t"
        "vpxor %c12(%6), %5, %1\n\t"
        "vmovdqu %c9(%6), %2\n\t"
        "vpmaddubsw %1, %2, %1\n\t"
        "vpmaddwd %13, %1, %1\n\t"
        "vpaddd %1, %0, %0"
        : "=&x"(s), "=&x"(t), "=&x"(u)
        : "x"(a), "x"(b), "x"(c), "r"(w), "i"(AT), "i"(AT + 128), "i"(AT + 256), "i"(AT + kFlips), "i"(AT + 128 + kFlips),
          "i"(AT + 256 + kFlips), "x"(_mm256_set1_epi16(1)), "m"(*reinterpret_cast<const ThreeStep::Weights*>(w)));
    return s;
  }
  // The masks and weights are read once for both.
  template <size_t AT>
  __attribute__((always_inline)) static void two(__m256i a, __m256i b, __m256i c, __m256i d, __m256i e, __m256i f,
                                                 const int8_t* w, __m256i& s, __m256i& t) {
    __m256i u, v, m;
    asm volatile(
        "vmovdqu %c15(%11), %4\n\t"
        "vpxor %4, %5, %0\n\t"
        "vpxor %4, %8, %1\n\t"
        "vmovdqu %c12(%11), %4\n\t"
        "vpmaddubsw %0, %4, %0\n\t"
        "vpmaddubsw %1, %4, %1\n\t"
        "vmovdqu %c16(%11), %4\n\t"
        "vpxor %4, %6, %2\n\t"
        "vpxor %4, %9, %3\n\t"
        "vmovdqu %c13(%11), %4\n\t"
        "vpmaddubsw %2, %4, %2\n\t"
        "vpmaddubsw %3, %4, %3\n\t"
        "vpmaddwd %18, %0, %0\n\t"
        "vpmaddwd %18, %1, %1\n\t"
        "vpmaddwd %18, %2, %2\n\t"
        "vpmaddwd %18, %3, %3\n\t"
        "vpaddd %2, %0, %0\n\t"
        "vpaddd %3, %1, %1\n\t"
        "vmovdqu %c17(%11), %4\n\t"
        "vpxor %4, %7, %2\n\t"
        "vpxor %4, %10, %3\n\t"
        "vmovdqu %c14(%11), %4\n\t"
        "vpmaddubsw %2, %4, %2\n\t"
        "vpmaddubsw %3, %4, %3\n\t"
        "vpmaddwd %18, %2, %2\n\t"
        "vpmaddwd %18, %3, %3\n\t"
        "vpaddd %2, %0, %0\n\t"
        "vpaddd %3, %1, %1"
        : "=&x"(s), "=&x"(t), "=&x"(u), "=&x"(v), "=&x"(m)
        : "x"(a), "x"(b), "x"(c), "x"(d), "x"(e), "x"(f), "r"(w), "i"(AT), "i"(AT + 128), "i"(AT + 256), "i"(AT + kFlips),
          "i"(AT + 128 + kFlips), "i"(AT + 256 + kFlips), "x"(_mm256_set1_epi16(1)),
          "m"(*reinterpret_cast<const ThreeStep::Weights*>(w)));
  }
};

// From [16 channels] to the order of ThreeStep.
inline void to_order_of_columns(int8_t* panel) {
  const __m256i low = read(panel), high = read(panel + 32);
  write(panel, _mm256_permute2x128_si256(low, high, 0x20));
  write(panel + 32, _mm256_permute2x128_si256(low, high, 0x31));
}

// Whether 255 times the weights that are added in 16 bits fits there, whatever the others are multiplied by: those of
// `columns` of the kernel, one to three.
inline bool fit_words(const int8_t* w, size_t columns) {
  for (size_t i = 0; i < 2 * 64; i += 2) {
    for (size_t first = 0; first < 3; first += columns) {
      int below = 0, above = 0;
      for (size_t k = 0; k < 2 * columns; ++k) {
        const int v = w[(first + k / 2) * 2 * 64 + i + k % 2];
        (v < 0 ? below : above) += v;
      }
      if (below < -128 || above > 128) return false;
    }
  }
  return true;
}

inline uint8_t prepare_three(const int8_t* w, size_t stride, int8_t* out, int32_t* bias) {
  Three<ThreeStep>::arrange(w, stride, out);
  const bool sums = fit_words(out, 3), pairs = fit_words(out, 1);
  for (size_t i = 0; i < kFlips; i += 64) to_order_of_columns(out + i);
  if (sums || pairs) return sums ? 0 : 1;
  for (size_t i = 0; i < kFlips; ++i) {
    out[kFlips + i] = static_cast<int8_t>(out[i] < 0 ? 127 : -128);
    out[i] = static_cast<int8_t>(out[i] < 0 ? -out[i] : out[i]);  // 128 as u8
  }
  for (size_t ch = 0; ch < kPanel; ++ch) {
    for (size_t tap = 0; tap < 9; ++tap) {
      const int32_t v = w[tap * stride + ch];
      bias[ch] += v < 0 ? 127 * v : 128 * v;
    }
  }
  return 2;
}

constexpr DirectKernels kThree = {
    kThreeBytes,
    prepare_three,
    {Three<ThreeBy<ThreeSums>>::way(), Three<ThreeBy<ThreePairs>>::way(), Three<ThreeBy<ThreeAny>>::way()}};

}  // namespace avx2
}  // namespace mulshift

#endif
