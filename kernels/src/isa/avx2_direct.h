// What the depthwise kernels of AVX2 share: bytes of rows beside each other, and sums in the order that this leaves.
//
// Unpacking instructions work within halves of a register. So bytes of thirty-two channels, sixteen a half, become channels
// 0 to 7 and 16 to 23, or 8 to 15 and 24 to 31, by one of them. Of sixteen channels it takes three, see Panel.
#ifndef MULSHIFT_SRC_ISA_AVX2_DIRECT_H
#define MULSHIFT_SRC_ISA_AVX2_DIRECT_H

#include "../direct.h"
#include "avx2_dense.h"

namespace mulshift {
namespace avx2 {

// Sums of sixteen channels: the first four of each half of a register of 16-bit lanes, then the others.
struct UnpackedSum {
  __m256i v[2];
};

// Orders of sixteen channels in 16-bit lanes. pairs(x, y): the channels' bytes of x and y by turns; widened(x): zeros for y.
// channel(i): that of lane i.

// Sixteen channels beside each other, in order.
struct Panel {
  static constexpr size_t kChannels = kPanel, kHeld = 0;

  static constexpr size_t channel(size_t lane) { return lane; }
  static __m256i pairs(const uint8_t* x, const uint8_t* y) {
    const __m256i a = twice(x), b = twice(y);
    return _mm256_blend_epi32(_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b), 0xf0);
  }
  static __m256i widened(const uint8_t* x) { return _mm256_cvtepu8_epi16(read128(x)); }
  static void store(__m256i eight, __m256i next, int32_t* p) {
    write(p, _mm256_permute2x128_si256(eight, next, 0x20));
    write(p + 8, _mm256_permute2x128_si256(eight, next, 0x31));
  }
  // Bytes of the first half of lanes are in the first half, eight for p, then eight for q.
  static void store(__m256i bytes, uint8_t* p, uint8_t* q, uint8_t*) {
    const __m256i both = _mm256_permute4x64_epi64(bytes, 0xd8);
    x86::write128(p, _mm256_castsi256_si128(both));
    x86::write128(q, _mm256_extracti128_si256(both, 1));
  }
  static void store(__m256i bytes, uint8_t* p, uint8_t*) {
    x86::write128(p, _mm256_castsi256_si128(_mm256_permute4x64_epi64(bytes, 0xd8)));
  }

 private:
  static __m256i twice(const uint8_t* p) { return _mm256_broadcastsi128_si256(read128(p)); }
};

// Of thirty-two channels beside each other the first eight of each sixteen, or the last eight.
template <bool LAST>
struct HalfPanels {
  static constexpr size_t kChannels = 2 * kPanel, kHeld = kDirectHeld;

  static constexpr size_t channel(size_t lane) { return kFirst + lane % 8 + lane / 8 * kPanel; }
  static __m256i pairs(const uint8_t* x, const uint8_t* y) {
    return LAST ? _mm256_unpackhi_epi8(read(x), read(y)) : _mm256_unpacklo_epi8(read(x), read(y));
  }
  // Anything for zeros: its weights are.
  static __m256i widened(const uint8_t* x) { return pairs(x, x); }
  static void store(__m256i eight, __m256i next, int32_t* p) {
    for (size_t i = 0; i < 2; ++i, eight = next) {
      int32_t* to = p + kFirst + 4 * i;
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(eight));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + kPanel), _mm256_extracti128_si256(eight, 1));
    }
  }
  // What the first halves leave, the last halves add theirs to.
  static void store(__m256i bytes, uint8_t* p, uint8_t* q, uint8_t* held) {
    if (!LAST) return write(held, bytes);
    const __m256i first = read(held);
    write(p, _mm256_unpacklo_epi64(first, bytes));
    write(q, _mm256_unpackhi_epi64(first, bytes));
  }
  static void store(__m256i bytes, uint8_t* p, uint8_t* held) {
    if (!LAST) return write(held, bytes);
    write(p, _mm256_unpacklo_epi64(read(held), bytes));
  }

 private:
  static constexpr size_t kFirst = LAST ? 8 : 0;
};

// HELD: what the first stage multiplies and adds stays in registers, as long as there are some; else only where TWO lines
// leave enough of them.
template <class Order, bool HELD>
struct UnpackedSums {
  using Sum = UnpackedSum;

  static constexpr size_t kChannels = Order::kChannels, kHeld = Order::kHeld;

  static void store(const Sum& s, const int32_t* bias, int32_t* p) {
    const V all = V{s.v[0], s.v[1]} + load(bias);
    Order::store(all.lo, all.hi, p);
  }

  // The first stage. (sum + bias) * b + half is sum * b + offset modulo 2^32, and fits.
  template <End END, bool TWO>
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

    void store(const Sum& x, uint8_t* p, uint8_t* held) const {
      const __m256i h = words(x);
      Order::store(bytes(h, h), p, held);
    }
    void store(const Sum& x, const Sum& y, uint8_t* p, uint8_t* q, uint8_t* held) const {
      Order::store(bytes(words(x), words(y)), p, q, held);
    }

   private:
    // gcc 12 would rather have these in registers than what is read of the image.
    const Bytes& constants() const {
      const Bytes* p = this;
      if (!HELD && !TWO) asm("" : "+r"(p) : "m"(*this));
      return *p;
    }
    __m256i words(const Sum& sum) const {
      const Bytes& c = constants();
      const V x = {sum.v[0], sum.v[1]};
      const V scaled = kWay == Way::low ? (x * c.scaling.b + c.offset).shift_right(c.scaling.shift) : c.scaling(x + c.bias);
      const __m256i h = _mm256_packs_epi32(scaled.lo, scaled.hi);
      return END == kEndFull ? h : _mm256_adds_epi16(h, c.clamp.zero_point);
    }
    __m256i bytes(__m256i x, __m256i y) const {
      const __m256i both = _mm256_packus_epi16(x, y);
      return END == kEndFull ? both : _mm256_min_epu8(_mm256_max_epu8(both, clamp.low), clamp.high);
    }
  };

 private:
  static V load(const int32_t* p) { return {load_eight(p, 0), load_eight(p, 4)}; }
  static __m256i load_eight(const int32_t* p, size_t lane) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(read128(p + Order::channel(lane))),
                                   read128(p + Order::channel(lane + 8)), 1);
  }
};

}  // namespace avx2
}  // namespace mulshift

#endif
