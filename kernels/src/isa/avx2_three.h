// Depthwise 3x3 on AVX2: vpmaddubsw adds two products in 16 bits, vpmaddwd adds two of those.
//
// Sums   where the products of all three columns that meet in 16 bits cannot leave them: three steps, then one vpmaddwd.
// Any    of a line by itself: row 0 takes the place of row 3 too, beside row 1, and vpmaddwd multiplies what these two make
//        by a number of the channel's own. So a column of any weights is two sums that fit: see split.
#ifndef MULSHIFT_SRC_ISA_AVX2_THREE_H
#define MULSHIFT_SRC_ISA_AVX2_THREE_H

#include <initializer_list>

#include "../three.h"
#include "avx2_direct.h"

namespace mulshift {
namespace avx2 {

// Both registers of a sum by `Way`; kTwice: row 0 beside row 1 as well. The sums are written as instructions, with offsets
// in them: gcc 12 keeps an address for every weight and then reloads those.
template <class Order, class Way>
struct ThreeStep : UnpackedSums<Order, false> {
  using Column = UnpackedSum;
  using Sum = UnpackedSum;

  static Column lay(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d) {
    return lay(Order::pairs(a, c), Order::pairs(b, d));
  }
  static Column lay(const uint8_t* a, const uint8_t* b, const uint8_t* c) {
    return lay(Order::pairs(a, c), Way::kTwice ? Order::pairs(a, b) : Order::widened(b));
  }
  template <size_t I>
  static Sum sum(const Column& a, const Column& b, const Column& c, const int8_t* w) {
    return {{Way::template sum<64 * I>(a.v[0], b.v[0], c.v[0], w), Way::template sum<64 * I + 32>(a.v[1], b.v[1], c.v[1], w)}};
  }
  __attribute__((always_inline)) static void two(const Column& a, const Column& b, const Column& c, const Column& d,
                                                 const Column& e, const Column& f, const int8_t* w, Sum* s) {
    Way::template two<0>(a.v[0], b.v[0], c.v[0], d.v[0], e.v[0], f.v[0], w, s[0].v[0], s[1].v[0]);
    Way::template two<32>(a.v[1], b.v[1], c.v[1], d.v[1], e.v[1], f.v[1], w, s[0].v[1], s[1].v[1]);
  }

 private:
  static Column lay(__m256i outer, __m256i inner) {
    return {{_mm256_unpacklo_epi16(outer, inner), _mm256_unpackhi_epi16(outer, inner)}};
  }
};

using ThreeWeights = int8_t[kThreeBytes];

struct ThreeSums {
  static constexpr bool kTwice = false;

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
          "m"(*reinterpret_cast<const ThreeWeights*>(w)));
    return s;
  }
  template <size_t AT>
  __attribute__((always_inline)) static void two(__m256i a, __m256i b, __m256i c, __m256i d, __m256i e, __m256i f,
                                                 const int8_t* w, __m256i& s, __m256i& t) {
    __m256i u, v, m;
    asm volatile(
        "vmovdqu %c12(%11), %4\n\t"
        "vpmaddubsw %4, %5, %0\n\t"
        "vpmaddubsw %4, %8, %1\n\t"
        "vmovdqu %c13(%11), %4\n\t"
        "vpmaddubsw %4, %6, %2\n\t"
        "vpmaddubsw %4, %9, %3\n\t"
        "vmovdqu %c14(%11), %4\n\t"
        "vpaddw %2, %0, %0\n\t"
        "vpaddw %3, %1, %1\n\t"
        "vpmaddubsw %4, %7, %2\n\t"
        "vpmaddubsw %4, %10, %3\n\t"
        "vpaddw %2, %0, %0\n\t"
        "vpaddw %3, %1, %1\n\t"
        "vpmaddwd %15, %0, %0\n\t"
        "vpmaddwd %15, %1, %1"
        : "=&x"(s), "=&x"(t), "=&x"(u), "=&x"(v), "=&x"(m)
        : "x"(a), "x"(b), "x"(c), "x"(d), "x"(e), "x"(f), "r"(w), "i"(AT), "i"(AT + 128), "i"(AT + 256),
          "x"(_mm256_set1_epi16(1)), "m"(*reinterpret_cast<const ThreeWeights*>(w)));
  }
};

// Multipliers of vpmaddwd lie 64 behind the weights, in the place of a second line's.
struct ThreeAny {
  static constexpr bool kTwice = true;

  template <size_t AT>
  __attribute__((always_inline)) static __m256i sum(__m256i a, __m256i b, __m256i c, const int8_t* w) {
    __m256i s, t;
    asm volatile(
        "vpmaddubsw %c6(%5), %2, %0\n\t"
        "vpmaddubsw %c7(%5), %3, %1\n\t"
        "vpmaddwd %c9(%5), %0, %0\n\t"
        "vpmaddwd %c10(%5), %1, %1\n\t"
        "vpaddd %1, %0, %0\n\t"
        "vpmaddubsw %c8(%5), %4, %1\n\t"
        "vpmaddwd %c11(%5), %1, %1\n\t"
        "vpaddd %1, %0, %0"
        : "=&x"(s), "=&x"(t)
        : "x"(a), "x"(b), "x"(c), "r"(w), "i"(AT), "i"(AT + 128), "i"(AT + 256), "i"(AT + 64), "i"(AT + 192), "i"(AT + 320),
          "m"(*reinterpret_cast<const ThreeWeights*>(w)));
    return s;
  }
  // What is read is read once for both.
  template <size_t AT>
  __attribute__((always_inline)) static void two(__m256i a, __m256i b, __m256i c, __m256i d, __m256i e, __m256i f,
                                                 const int8_t* w, __m256i& s, __m256i& t) {
    __m256i u, v, m;
    asm volatile(
        "vmovdqu %c12(%11), %4\n\t"
        "vpmaddubsw %4, %5, %0\n\t"
        "vpmaddubsw %4, %8, %1\n\t"
        "vmovdqu %c13(%11), %4\n\t"
        "vpmaddubsw %4, %6, %2\n\t"
        "vpmaddubsw %4, %9, %3\n\t"
        "vmovdqu %c15(%11), %4\n\t"
        "vpmaddwd %4, %0, %0\n\t"
        "vpmaddwd %4, %1, %1\n\t"
        "vmovdqu %c16(%11), %4\n\t"
        "vpmaddwd %4, %2, %2\n\t"
        "vpmaddwd %4, %3, %3\n\t"
        "vpaddd %2, %0, %0\n\t"
        "vpaddd %3, %1, %1\n\t"
        "vmovdqu %c14(%11), %4\n\t"
        "vpmaddubsw %4, %7, %2\n\t"
        "vpmaddubsw %4, %10, %3\n\t"
        "vmovdqu %c17(%11), %4\n\t"
        "vpmaddwd %4, %2, %2\n\t"
        "vpmaddwd %4, %3, %3\n\t"
        "vpaddd %2, %0, %0\n\t"
        "vpaddd %3, %1, %1"
        : "=&x"(s), "=&x"(t), "=&x"(u), "=&x"(v), "=&x"(m)
        : "x"(a), "x"(b), "x"(c), "x"(d), "x"(e), "x"(f), "r"(w), "i"(AT), "i"(AT + 128), "i"(AT + 256), "i"(AT + 64),
          "i"(AT + 192), "i"(AT + 320), "m"(*reinterpret_cast<const ThreeWeights*>(w)));
  }
};

// Whether products of u8 and these two add up in 16 bits.
inline bool fit_words(int a, int b) { return (a < 0) != (b < 0) || (a + b >= -128 && a + b <= 128); }

// Whether 255 times the weights that are added in 16 bits fits there, whatever the others are multiplied by.
inline bool fit_sums(const int8_t* w) {
  for (size_t i = 0; i < 2 * 64; i += 2) {
    int below = 0, above = 0;
    for (size_t k = 0; k < 6; ++k) {
      const int v = w[k / 2 * 2 * 64 + i + k % 2];
      (v < 0 ? below : above) += v;
    }
    if (below < -128 || above > 128) return false;
  }
  return true;
}

// Weights of rows 0, 2, 0, 1, and what multiplies the sum of the latter two.
struct ThreeSplit {
  int8_t w[4];
  int16_t by;
};

// Weights of a column so that no sum of two products leaves 16 bits. Where w0 and w2 are too much together, they are split:
//   w0 * x0 + w1 * x1 + w2 * x2 = (w0 - w1 * n) * x0 + w2 * x2 + w1 * (x1 + n * x0)
// with the least n that leaves nothing of w0's sign; x0 by itself where w1 is 0. False: w0 = w2 = -128, w1 = -1, for n = 128.
inline bool split(int w0, int w1, int w2, ThreeSplit* out) {
  const auto made = [out](int a, int b, int c, int d, int by) {
    *out = {{static_cast<int8_t>(a), static_cast<int8_t>(b), static_cast<int8_t>(c), static_cast<int8_t>(d)},
            static_cast<int16_t>(by)};
    return fit_words(a, b) && fit_words(c, d);
  };
  if (fit_words(w0, w2)) return made(w0, w2, 0, w1, 1);
  if (w1 == 0) return made(0, w2, w0, 0, 1);
  const int size = w0 < 0 ? -w0 : w0, by = w1 < 0 ? -w1 : w1, least = (size + by - 1) / by;
  const int n = (w0 < 0) != (w1 < 0) ? -least : least < 127 ? least : 127;
  return made(w0 - w1 * n, w2, n, 1, w1);
}

// The channel of a column's group of four bytes.
template <class Order>
inline size_t channel_of(size_t group) {
  return Order::channel(group / 8 * 4 + group % 4 + group / 4 % 2 * 8);
}

template <class Order>
inline void arrange_whole(const int8_t* w, size_t stride, int8_t* out) {
  arrange_three(w, stride, out, channel_of<Order>);
}

// [kernel column][weights, multipliers][groups]
template <class Order>
inline bool arrange_split(const int8_t* w, size_t stride, int8_t* out) {
  for (size_t kx = 0; kx < 3; ++kx, out += 2 * 64) {
    for (size_t i = 0; i < kPanel; ++i) {
      const int8_t* column = w + kx * stride + channel_of<Order>(i);
      ThreeSplit s;
      if (!split(column[0], column[3 * stride], column[6 * stride], &s)) return false;
      const int16_t by[2] = {1, s.by};
      std::memcpy(out + 4 * i, s.w, sizeof(s.w));
      std::memcpy(out + 64 + 4 * i, by, sizeof(by));
    }
  }
  return true;
}

template <class... Orders>
inline uint8_t prepare_three(const int8_t* w, size_t stride, int8_t* out, int32_t*) {
  int8_t* to = out;
  for (const auto arrange : {arrange_whole<Orders>...}) {
    arrange(w, stride, to);
    to += kThreeBytes;
  }
  bool sums = true;
  for (size_t i = 0; i < sizeof...(Orders); ++i) sums = sums && fit_sums(out + i * kThreeBytes);
  if (sums) return 0;
  for (const auto arrange : {arrange_split<Orders>...}) {
    if (!arrange(w, stride, out)) return kNoWay;
    out += kThreeBytes;
  }
  return 1;
}

template <class... Orders>
constexpr DirectKernels three_kernels(const DirectKernels* rest) {
  return {sizeof...(Orders),
          kThreeBytes,
          prepare_three<Orders...>,
          {Three<ThreeStep<Orders, ThreeSums>...>::way(), Three<ThreeStep<Orders, ThreeAny>...>::way_of_lines()},
          rest};
}

constexpr DirectKernels kThreePanel = three_kernels<Panel>(nullptr);
constexpr DirectKernels kThree = three_kernels<HalfPanels<false>, HalfPanels<true>>(&kThreePanel);

}  // namespace avx2
}  // namespace mulshift

#endif
