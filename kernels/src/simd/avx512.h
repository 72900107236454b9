// Sixteen int32 lanes on AVX-512; the meaning of each operation is in portable.h.
#ifndef MULSHIFT_SRC_SIMD_AVX512_H
#define MULSHIFT_SRC_SIMD_AVX512_H

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "x86.h"
#include "x86_bytes.h"

namespace mulshift {
namespace avx512 {

using x86::read128;
using x86::write128;

struct V {
  static constexpr int lanes = 16;
  __m512i v;

  // Even lanes, then odd ones, eight int64 each.
  struct Wide {
    __m512i even, odd;
  };

  static V set1(int32_t x) { return {_mm512_set1_epi32(x)}; }
  static V load(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
  static V load(const uint8_t* p) { return {_mm512_cvtepu8_epi32(read128(p))}; }
  static V load(const int8_t* p) { return {_mm512_cvtepi8_epi32(read128(p))}; }
  static V load(const int16_t* p) {
    return {_mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }

  void store(int32_t* p) const { _mm512_storeu_si512(p, v); }
  void store(int16_t* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(v));
  }
  void store(uint8_t* p) const { write128(p, _mm512_cvtepi32_epi8(v)); }
  void store(int8_t* p) const { write128(p, _mm512_cvtepi32_epi8(v)); }

  struct Bytes {
    __m512i zero_point, low;
    __m128i high;
    Bytes(int32_t z, int32_t l, int32_t h)
        : zero_point(_mm512_set1_epi32(z)), low(_mm512_set1_epi32(l)), high(_mm_set1_epi8(static_cast<char>(h))) {}
    void store(V x, uint8_t* p) const {
      const __m512i y = _mm512_max_epi32(_mm512_add_epi32(x.v, zero_point), low);
      write128(p, _mm_min_epu8(_mm512_cvtusepi32_epi8(y), high));
    }
    void store(V x, V y, uint8_t* p, uint8_t* q) const {
      store(x, p);
      store(y, q);
    }
  };

  struct Words {
    __m512i low, high;
    Words(int32_t l, int32_t h) : low(_mm512_set1_epi32(l)), high(_mm512_set1_epi32(h)) {}
    static V load(const int32_t* p) { return V::load(p); }
    void store(V x, int16_t* p) const { clamped(x).store(p); }
    V pair(V x, const int16_t* r) const {
      const __m512i first = _mm512_and_si512(clamped(x).v, _mm512_set1_epi32(0xffff));
      return {_mm512_or_si512(first, _mm512_slli_epi32(V::load(r).v, 16))};
    }

   private:
    V clamped(V x) const { return {_mm512_min_epi32(_mm512_max_epi32(x.v, low), high)}; }
  };

  V operator+(V o) const { return {_mm512_add_epi32(v, o.v)}; }
  V operator-(V o) const { return {_mm512_sub_epi32(v, o.v)}; }
  V operator*(V o) const { return {_mm512_mullo_epi32(v, o.v)}; }
  V min(V o) const { return {_mm512_min_epi32(v, o.v)}; }
  V max(V o) const { return {_mm512_max_epi32(v, o.v)}; }
  V shift_right(V c) const { return {_mm512_srav_epi32(v, c.v)}; }
  V shift_left(int32_t count) const { return {_mm512_sll_epi32(v, _mm_cvtsi32_si128(count))}; }
  static V power(V c) { return {_mm512_sllv_epi32(_mm512_set1_epi32(1), c.v)}; }

  static void interleave(const uint8_t* a, const uint8_t* b, int16_t* out) {
    const __m128i x = read128(a), y = read128(b);
    const __m256i bytes = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi8(x, y)),
                                                  _mm_unpackhi_epi8(x, y), 1);
    _mm512_storeu_si512(out, _mm512_cvtepu8_epi16(bytes));
  }
  static void interleave(const int8_t* a, const int8_t* b, const int8_t* c, const int8_t* d, int8_t* out) {
    x86::interleave(a, b, c, d, out);
  }
  static void transpose(const int8_t* a, const int8_t* b, const int8_t* c, const int8_t* d, int8_t* out, int stride) {
    x86::transpose(a, b, c, d, out, stride);
  }
  static void fields(const uint8_t* x, int shift, int mask, int scale, int half, int8_t* out) {
    x86::fields(x, shift, mask, scale, half, out);
  }
  static void multiply_fours(const int8_t* x, const uint8_t* m, int8_t* y) { x86::multiply_fours(x, m, y); }
  static void choose(const uint8_t* x, const uint8_t* places, uint8_t* y) { x86::choose(x, places, y); }
  static V multiply_pairs(V sum, const int16_t* x, const int16_t* w) {
    return {_mm512_dpwssd_epi32(sum.v, _mm512_loadu_si512(x), _mm512_loadu_si512(w))};
  }
  static V multiply_pairs(V x, V w) { return {_mm512_dpwssd_epi32(_mm512_setzero_si512(), x.v, w.v)}; }
  static V multiply_pair(V sum, const int16_t* x, const int16_t* w) {
    int32_t pair;
    std::memcpy(&pair, x, sizeof(pair));
    return {_mm512_dpwssd_epi32(sum.v, _mm512_set1_epi32(pair), _mm512_loadu_si512(w))};
  }

  // Upper halves of b are zero, so those of the products are.
  static V high16(V a, V b) { return {_mm512_mulhi_epu16(a.v, b.v)}; }
  int32_t greatest() const {
    const __m256i eight = _mm256_max_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    const __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
  }
  int32_t sum() const {
    const __m256i eight = _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
  }

  static V high(V a, V b) {
    const Wide p = multiply(a, b);
    return {halves(p.even, p.odd)};
  }
  static V high(V a, V b, V c, V d) {
    const Wide p = add(multiply(a, b), multiply(c, d));
    return {halves(p.even, p.odd)};
  }

  static Wide multiply(V a, V b) { return {_mm512_mul_epi32(a.v, b.v), _mm512_mul_epi32(odd_of(a.v), odd_of(b.v))}; }
  static Wide add(Wide a, Wide b) { return {_mm512_add_epi64(a.even, b.even), _mm512_add_epi64(a.odd, b.odd)}; }
  static V round_shift(Wide x, V c, V low, V high) {
    const __m512i even = round_shift8(x.even, _mm512_and_si512(c.v, _mm512_set1_epi64(0xffffffff)), even_of(low.v),
                                      even_of(high.v));
    const __m512i odd = round_shift8(x.odd, odd_of(c.v), _mm512_srai_epi64(low.v, 32), _mm512_srai_epi64(high.v, 32));
    return {_mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32))};
  }

 private:
  static __m512i odd_of(__m512i x) { return _mm512_srli_epi64(x, 32); }
  static __m512i even_of(__m512i x) { return _mm512_srai_epi64(_mm512_slli_epi64(x, 32), 32); }
  // The upper halves of 64-bit lanes: even lanes move down, odd ones stay.
  static __m512i halves(__m512i even, __m512i odd) { return _mm512_mask_blend_epi32(0xaaaa, odd_of(even), odd); }
  static __m512i round_shift8(__m512i x, __m512i c, __m512i low, __m512i high) {
    const __m512i half = _mm512_srli_epi64(_mm512_sllv_epi64(_mm512_set1_epi64(1), c), 1);
    const __m512i y = _mm512_srav_epi64(_mm512_add_epi64(x, half), c);
    return _mm512_min_epi64(_mm512_max_epi64(y, low), high);
  }
};

}  // namespace avx512
}  // namespace mulshift

#endif
