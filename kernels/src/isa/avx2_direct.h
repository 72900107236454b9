// What the depthwise kernels of AVX2 share: bytes of rows beside each other, and sums in the order that this leaves.
#ifndef MULSHIFT_SRC_ISA_AVX2_DIRECT_H
#define MULSHIFT_SRC_ISA_AVX2_DIRECT_H

#include "../direct.h"
#include "avx2_dense.h"

namespace mulshift {
namespace avx2 {

inline __m256i twice(const uint8_t* p) { return _mm256_broadcastsi128_si256(read128(p)); }

// Bytes of x and y by turns, both of them `twice`.
inline __m256i pairs(__m256i x, __m256i y) {
  return _mm256_blend_epi32(_mm256_unpacklo_epi8(x, y), _mm256_unpackhi_epi8(x, y), 0xf0);
}

// Channels 0 to 3 and 8 to 11 in one register, the others in the second: as the unpacking instructions leave them.
struct UnpackedSums {
  struct Sum {
    __m256i v[2];
  };

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
};

}  // namespace avx2
}  // namespace mulshift

#endif
