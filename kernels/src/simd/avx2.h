// Sixteen int32 lanes on AVX2; the meaning of each operation is in portable.h.
#ifndef MULSHIFT_SRC_SIMD_AVX2_H
#define MULSHIFT_SRC_SIMD_AVX2_H

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "x86_bytes.h"

namespace mulshift {
namespace avx2 {

using x86::read128;
using x86::write128;

struct V {
  static constexpr int lanes = 16;
  __m256i lo, hi;

  // Even and odd lanes of lo, then of hi, four int64 each.
  struct Wide {
    __m256i v[4];
  };

  static V set1(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
  static V load(const int32_t* p) { return {read256(p), read256(p + 8)}; }
  static V load(const uint8_t* p) {
    const __m128i b = read128(p);
    return {_mm256_cvtepu8_epi32(b), _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(b, b))};
  }
  static V load(const int8_t* p) {
    const __m128i b = read128(p);
    return {_mm256_cvtepi8_epi32(b), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(b, b))};
  }
  static V load(const int16_t* p) {
    return {_mm256_cvtepi16_epi32(read128(p)), _mm256_cvtepi16_epi32(read128(p + 8))};
  }

  void store(int32_t* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), lo);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), hi);
  }
  void store(int16_t* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), packed16()); }
  void store(uint8_t* p) const {
    const __m256i h = packed16();
    write128(p, _mm_packus_epi16(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1)));
  }
  void store(int8_t* p) const {
    const __m256i h = packed16();
    write128(p, _mm_packs_epi16(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1)));
  }

  // Saturating 16-bit steps: what they change lies outside [0, 255] on the same side.
  struct Bytes {
    __m256i zero_point, low, high;
    Bytes(int32_t z, int32_t l, int32_t h)
        : zero_point(_mm256_set1_epi16(static_cast<int16_t>(z))),
          low(_mm256_set1_epi8(static_cast<char>(l))),
          high(_mm256_set1_epi8(static_cast<char>(h))) {}
    void store(V x, uint8_t* p) const {
      const __m256i h = _mm256_adds_epi16(_mm256_packs_epi32(x.lo, x.hi), zero_point);
      const __m128i b = _mm_packus_epi16(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
      const __m128i in_order = _mm_shuffle_epi32(b, 0xd8);
      write128(p, _mm_min_epu8(_mm_max_epu8(in_order, _mm256_castsi256_si128(low)), _mm256_castsi256_si128(high)));
    }
    void store(V x, V y, uint8_t* p, uint8_t* q) const {
      const __m256i a = _mm256_adds_epi16(_mm256_packs_epi32(x.lo, x.hi), zero_point);
      const __m256i b = _mm256_adds_epi16(_mm256_packs_epi32(y.lo, y.hi), zero_point);
      const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
      const __m256i both = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(a, b), order);
      const __m256i clamped = _mm256_min_epu8(_mm256_max_epu8(both, low), high);
      write128(p, _mm256_castsi256_si128(clamped));
      write128(q, _mm256_extracti128_si256(clamped, 1));
    }
    // Zero point 0, all of u8.
    static void store_saturated(V x, V y, uint8_t* p, uint8_t* q) {
      const __m256i both = _mm256_packus_epi16(_mm256_packs_epi32(x.lo, x.hi), _mm256_packs_epi32(y.lo, y.hi));
      const __m256i in_order = _mm256_permutevar8x32_epi32(both, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
      write128(p, _mm256_castsi256_si128(in_order));
      write128(q, _mm256_extracti128_si256(in_order, 1));
    }
  };

  // Lanes 0 to 3 and 8 to 11, then the others: packing brings them in order.
  struct Words {
    __m256i low, high;
    Words(int32_t l, int32_t h)
        : low(_mm256_set1_epi16(static_cast<int16_t>(l))), high(_mm256_set1_epi16(static_cast<int16_t>(h))) {}
    static V load(const int32_t* p) { return {both(p, p + 8), both(p + 4, p + 12)}; }
    void store(V x, int16_t* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), clamped(x)); }
    V pair(V x, const int16_t* r) const {
      const __m256i first = clamped(x), second = read256(r);
      return {_mm256_unpacklo_epi16(first, second), _mm256_unpackhi_epi16(first, second)};
    }

   private:
    static __m256i both(const int32_t* p, const int32_t* q) {
      return _mm256_inserti128_si256(_mm256_castsi128_si256(read128(p)), read128(q), 1);
    }
    __m256i clamped(V x) const {
      return _mm256_min_epi16(_mm256_max_epi16(_mm256_packs_epi32(x.lo, x.hi), low), high);
    }
  };

  V operator+(V o) const { return {_mm256_add_epi32(lo, o.lo), _mm256_add_epi32(hi, o.hi)}; }
  V operator-(V o) const { return {_mm256_sub_epi32(lo, o.lo), _mm256_sub_epi32(hi, o.hi)}; }
  V operator*(V o) const { return {_mm256_mullo_epi32(lo, o.lo), _mm256_mullo_epi32(hi, o.hi)}; }
  V min(V o) const { return {_mm256_min_epi32(lo, o.lo), _mm256_min_epi32(hi, o.hi)}; }
  V max(V o) const { return {_mm256_max_epi32(lo, o.lo), _mm256_max_epi32(hi, o.hi)}; }
  V shift_right(V c) const { return {_mm256_srav_epi32(lo, c.lo), _mm256_srav_epi32(hi, c.hi)}; }
  V shift_left(int32_t count) const {
    const __m128i c = _mm_cvtsi32_si128(count);
    return {_mm256_sll_epi32(lo, c), _mm256_sll_epi32(hi, c)};
  }
  static V power(V c) {
    const __m256i one = _mm256_set1_epi32(1);
    return {_mm256_sllv_epi32(one, c.lo), _mm256_sllv_epi32(one, c.hi)};
  }

  static void interleave(const uint8_t* a, const uint8_t* b, int16_t* out) {
    const __m128i x = read128(a), y = read128(b);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(x, y)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 16), _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(x, y)));
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
    add_in_place(sum.lo, _mm256_madd_epi16(read256(x), read256(w)));
    add_in_place(sum.hi, _mm256_madd_epi16(read256(x + 16), read256(w + 16)));
    return sum;
  }
  static V multiply_pairs(V x, V w) { return {_mm256_madd_epi16(x.lo, w.lo), _mm256_madd_epi16(x.hi, w.hi)}; }
  static V multiply_pair(V sum, const int16_t* x, const int16_t* w) {
    int32_t pair;
    std::memcpy(&pair, x, sizeof(pair));
    const __m256i pairs = _mm256_set1_epi32(pair);
    add_in_place(sum.lo, _mm256_madd_epi16(pairs, read256(w)));
    add_in_place(sum.hi, _mm256_madd_epi16(pairs, read256(w + 16)));
    return sum;
  }

  // Upper halves of b are zero, so those of the products are.
  static V high16(V a, V b) { return {_mm256_mulhi_epu16(a.lo, b.lo), _mm256_mulhi_epu16(a.hi, b.hi)}; }
  int32_t greatest() const {
    const __m256i eight = _mm256_max_epi32(lo, hi);
    const __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
  }
  int32_t sum() const {
    const __m256i eight = _mm256_add_epi32(lo, hi);
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
  }

  static V high(V a, V b) {
    return {halves(_mm256_mul_epi32(a.lo, b.lo), _mm256_mul_epi32(odd(a.lo), odd(b.lo))),
            halves(_mm256_mul_epi32(a.hi, b.hi), _mm256_mul_epi32(odd(a.hi), odd(b.hi)))};
  }
  static V high(V a, V b, V c, V d) {
    const Wide x = multiply(a, b), y = multiply(c, d);
    return {halves(_mm256_add_epi64(x.v[0], y.v[0]), _mm256_add_epi64(x.v[1], y.v[1])),
            halves(_mm256_add_epi64(x.v[2], y.v[2]), _mm256_add_epi64(x.v[3], y.v[3]))};
  }

  static Wide multiply(V a, V b) {
    return {{_mm256_mul_epi32(a.lo, b.lo), _mm256_mul_epi32(odd(a.lo), odd(b.lo)), _mm256_mul_epi32(a.hi, b.hi),
             _mm256_mul_epi32(odd(a.hi), odd(b.hi))}};
  }
  static Wide add(Wide a, Wide b) {
    for (int i = 0; i < 4; ++i) a.v[i] = _mm256_add_epi64(a.v[i], b.v[i]);
    return a;
  }
  // There is no arithmetic 64-bit shift: 2^62 goes in before a logical one and 2^(62-c) comes out after it.
  static V round_shift(Wide x, V c, V low, V high) {
    const __m256i even = _mm256_set1_epi64x(0xffffffff);
    return {join(round_shift4(x.v[0], _mm256_and_si256(c.lo, even), low.lo, high.lo),
                 round_shift4(x.v[1], odd(c.lo), odd(low.lo), odd(high.lo))),
            join(round_shift4(x.v[2], _mm256_and_si256(c.hi, even), low.hi, high.hi),
                 round_shift4(x.v[3], odd(c.hi), odd(low.hi), odd(high.hi)))};
  }

 private:
  static __m256i read256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  // gcc 12 moves a sum to another register and back in every step of a loop unless it is told not to.
  static void add_in_place(__m256i& sum, __m256i x) { asm("vpaddd %1, %0, %0" : "+x"(sum) : "x"(x)); }
  static __m256i odd(__m256i x) { return _mm256_srli_epi64(x, 32); }
  static __m256i join(__m256i even, __m256i odd_lanes) {
    return _mm256_blend_epi32(even, _mm256_slli_epi64(odd_lanes, 32), 0xaa);
  }
  // The upper halves of 64-bit lanes: even lanes move down, odd ones stay.
  static __m256i halves(__m256i even, __m256i odd_lanes) { return _mm256_blend_epi32(odd(even), odd_lanes, 0xaa); }
  __m256i packed16() const { return _mm256_permute4x64_epi64(_mm256_packs_epi32(lo, hi), 0xd8); }
  // The low half of each 64-bit lane of c, low and high counts; upper halves of c are zero.
  static __m256i round_shift4(__m256i x, __m256i c, __m256i low, __m256i high) {
    const __m256i one = _mm256_set1_epi64x(1), offset = _mm256_set1_epi64x(int64_t{1} << 62);
    const __m256i half = _mm256_srli_epi64(_mm256_sllv_epi64(one, c), 1);
    const __m256i raised = _mm256_add_epi64(_mm256_add_epi64(x, half), offset);
    const __m256i y = _mm256_sub_epi64(_mm256_srlv_epi64(raised, c), _mm256_srlv_epi64(offset, c));
    const __m256i l = sign_extend(low), h = sign_extend(high);
    const __m256i above = _mm256_blendv_epi8(y, h, _mm256_cmpgt_epi64(y, h));
    return _mm256_blendv_epi8(above, l, _mm256_cmpgt_epi64(l, above));
  }
  static __m256i sign_extend(__m256i x) {
    const __m256i sign = _mm256_srai_epi32(_mm256_slli_epi64(x, 32), 31);
    return _mm256_blend_epi32(x, sign, 0xaa);
  }
};

}  // namespace avx2
}  // namespace mulshift

#endif
