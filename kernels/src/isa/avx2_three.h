// Depthwise 3x3 on AVX2: vpmaddubsw adds two products in 16 bits, vpmaddwd adds two of those.
//
// Sums   where the weights of all three columns that meet in 16 bits cannot leave them: three steps, then one vpmaddwd.
// Pairs  where two weights that meet cannot.
// Any    |w| x (x - 128), or |w| x (127 - x) where w < 0: 128 * 128 * 2 fits 16 bits on the negative side, where alone it
//        can be. That is w * x - 128 * w, or w * x + 127 * |w|.
#ifndef MULSHIFT_SRC_ISA_AVX2_THREE_H
#define MULSHIFT_SRC_ISA_AVX2_THREE_H

#include "../three.h"
#include "avx2_dense.h"

namespace mulshift {
namespace avx2 {

constexpr size_t kFlips = kThreeBytes / 2;  // of ThreeAny, after its weights

// Channels 0 to 3 and 8 to 11 in one register, the others in the second: as the unpacking instructions leave them.
struct ThreeStep {
  struct Column {
    __m256i v[2];
  };
  using Sum = Column;
  using Weights = int8_t[kThreeBytes];

  static Column lay(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d) {
    return lay(pairs(twice(a), twice(c)), pairs(twice(b), twice(d)));
  }
  static Column lay(const uint8_t* a, const uint8_t* b, const uint8_t* c) {
    const __m256i each = _mm256_setr_epi8(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12,
                                          13, 13, 14, 14, 15, 15);
    return lay(pairs(twice(a), twice(c)), _mm256_shuffle_epi8(twice(b), each));
  }
  static void store(const Sum& s, const int32_t* bias, int32_t* p) {
    write(p, _mm256_add_epi32(_mm256_permute2x128_si256(s.v[0], s.v[1], 0x20), read(bias)));
    write(p + 8, _mm256_add_epi32(_mm256_permute2x128_si256(s.v[0], s.v[1], 0x31), read(bias + 8)));
  }

  // The first stage. Packing the two registers puts the channels in order. (sum + bias) * b + half is sum * b + offset
  // modulo 2^32, and fits.
  template <End END>
  struct Bytes {
    static constexpr Way kWay = END == kEndHigh ? Way::high : Way::low;
    const V bias;
    const Scaling<V, kWay> scaling;
    const V offset;
    const V::Bytes clamp;

    Bytes(const int32_t* bias_, const Stages& s)
        : bias(load(bias_)),
          scaling(load(s.b), load(s.shift), s.ways->left),
          offset(bias * scaling.b + scaling.half),
          clamp(s.first.zero_point, s.first.low, s.first.high) {}

    void store(const Sum& x, uint8_t* p) const {
      const __m256i h = words(x);
      const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
      const __m128i low = _mm256_castsi256_si128(clamp.low), high = _mm256_castsi256_si128(clamp.high);
      x86::write128(p, END == kEndFull ? bytes : _mm_min_epu8(_mm_max_epu8(bytes, low), high));
    }
    void store(const Sum& x, const Sum& y, uint8_t* p, uint8_t* q) const {
      const __m256i both = _mm256_permute4x64_epi64(_mm256_packus_epi16(words(x), words(y)), 0xd8);
      const __m256i clamped =
          END == kEndFull ? both : _mm256_min_epu8(_mm256_max_epu8(both, clamp.low), clamp.high);
      x86::write128(p, _mm256_castsi256_si128(clamped));
      x86::write128(q, _mm256_extracti128_si256(clamped, 1));
    }

   private:
    static V load(const int32_t* p) {
      const __m256i low = read(p), high = read(p + 8);
      return {_mm256_permute2x128_si256(low, high, 0x20), _mm256_permute2x128_si256(low, high, 0x31)};
    }
    __m256i words(const Sum& sum) const {
      const V x = {sum.v[0], sum.v[1]};
      const V scaled = kWay == Way::low ? (x * scaling.b + offset).shift_right(scaling.shift) : scaling(x + bias);
      const __m256i h = _mm256_packs_epi32(scaled.lo, scaled.hi);
      return END == kEndFull ? h : _mm256_adds_epi16(h, clamp.zero_point);
    }
  };

 private:
  static __m256i twice(const uint8_t* p) { return _mm256_broadcastsi128_si256(read128(p)); }
  static __m256i pairs(__m256i x, __m256i y) {
    return _mm256_blend_epi32(_mm256_unpacklo_epi8(x, y), _mm256_unpackhi_epi8(x, y), 0xf0);
  }
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

constexpr ThreeKernels kThree = {
    prepare_three, {Three<ThreeBy<ThreeSums>>::way(), Three<ThreeBy<ThreePairs>>::way(), Three<ThreeBy<ThreeAny>>::way()}};

}  // namespace avx2
}  // namespace mulshift

#endif
