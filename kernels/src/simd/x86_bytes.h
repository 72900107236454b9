// Moves of bytes between four rows of sixteen, in the 128 bits that AVX2 and AVX-512 share.
//
// Internal linkage: each instruction set compiles its own copy. Include it after the intrinsics, which a test may emulate.
#ifndef MULSHIFT_SRC_SIMD_X86_BYTES_H
#define MULSHIFT_SRC_SIMD_X86_BYTES_H

#include <cstdint>
#include <cstring>

namespace mulshift {
namespace x86 {

static inline __m128i read128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
static inline void write128(void* p, __m128i x) { _mm_storeu_si128(static_cast<__m128i*>(p), x); }

// out: [16][4] = (a, b, c, d) of each byte.
static inline void interleave(const int8_t* a, const int8_t* b, const int8_t* c, const int8_t* d, int8_t* out) {
  const __m128i x = read128(a), y = read128(b), z = read128(c), w = read128(d);
  const __m128i xy0 = _mm_unpacklo_epi8(x, y), xy1 = _mm_unpackhi_epi8(x, y);
  const __m128i zw0 = _mm_unpacklo_epi8(z, w), zw1 = _mm_unpackhi_epi8(z, w);
  write128(out, _mm_unpacklo_epi16(xy0, zw0));
  write128(out + 16, _mm_unpackhi_epi16(xy0, zw0));
  write128(out + 32, _mm_unpacklo_epi16(xy1, zw1));
  write128(out + 48, _mm_unpackhi_epi16(xy1, zw1));
}

// Four bytes of each row beside each other: out[i * stride] = (a, b, c, d)[4 i .. 4 i + 3].
static inline void transpose(const int8_t* a, const int8_t* b, const int8_t* c, const int8_t* d, int8_t* out,
                             int stride) {
  const __m128i x = read128(a), y = read128(b), z = read128(c), w = read128(d);
  const __m128i xy0 = _mm_unpacklo_epi32(x, y), xy1 = _mm_unpackhi_epi32(x, y);
  const __m128i zw0 = _mm_unpacklo_epi32(z, w), zw1 = _mm_unpackhi_epi32(z, w);
  write128(out, _mm_unpacklo_epi64(xy0, zw0));
  write128(out + stride, _mm_unpackhi_epi64(xy0, zw0));
  write128(out + 2 * stride, _mm_unpacklo_epi64(xy1, zw1));
  write128(out + 3 * stride, _mm_unpackhi_epi64(xy1, zw1));
}

// out = field * scale - half of sixteen bytes, where a field is `mask` bits from `shift` on; scale: 1 or 2.
static inline void fields(const uint8_t* x, int shift, int mask, int scale, int half, int8_t* out) {
  const __m128i shifted = _mm_srl_epi16(read128(x), _mm_cvtsi32_si128(shift));
  const __m128i field = _mm_and_si128(shifted, _mm_set1_epi8(static_cast<char>(mask)));
  const __m128i scaled = scale == 1 ? field : _mm_add_epi8(field, field);
  write128(out, _mm_sub_epi8(scaled, _mm_set1_epi8(static_cast<char>(half))));
}

// y = x * m of sixteen bytes, four of each of four multipliers; products fit s8.
static inline void multiply_fours(const int8_t* x, const uint8_t* m, int8_t* y) {
  int32_t four;
  std::memcpy(&four, m, sizeof(four));
  const __m128i each = _mm_setr_epi8(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  const __m128i wide = _mm_shuffle_epi8(_mm_cvtsi32_si128(four), each), low = _mm_set1_epi16(255);
  const __m128i even = _mm_maddubs_epi16(_mm_and_si128(wide, low), read128(x));
  const __m128i odd = _mm_maddubs_epi16(_mm_andnot_si128(low, wide), read128(x));
  write128(y, _mm_or_si128(_mm_and_si128(even, low), _mm_slli_epi16(odd, 8)));
}

// y = x[place] of sixteen bytes, for eight places from 0 to 15.
static inline void choose(const uint8_t* x, const uint8_t* places, uint8_t* y) {
  const __m128i index = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(places));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(y), _mm_shuffle_epi8(read128(x), index));
}

}  // namespace x86
}  // namespace mulshift

#endif
