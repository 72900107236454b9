// The intrinsics of x86, or an emulation of them where a test runs an instruction set that its machine lacks.
#ifndef MULSHIFT_SRC_SIMD_X86_H
#define MULSHIFT_SRC_SIMD_X86_H

#if defined(MULSHIFT_EMULATED)
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#include <cstdint>
#include <cstring>

// What SIMDe 0.7.4 lacks, lane by lane.
namespace mulshift {
namespace emulated {

template <class To, class From, int LANES, class ToVector, class FromVector, class F>
inline ToVector each(FromVector x, F f) {
  From from[LANES];
  To to[LANES];
  std::memcpy(from, &x, sizeof(from));
  for (int i = 0; i < LANES; ++i) to[i] = static_cast<To>(f(from[i]));
  ToVector r;
  std::memcpy(&r, to, sizeof(to));
  return r;
}

template <class T>
inline T same(T x) {
  return x;
}

}  // namespace emulated
}  // namespace mulshift

#define MULSHIFT_EMULATE(NAME, TO_VECTOR, TO, FROM_VECTOR, FROM, LANES, F)               \
  inline TO_VECTOR NAME(FROM_VECTOR x) {                                                 \
    return mulshift::emulated::each<TO, FROM, LANES, TO_VECTOR, FROM_VECTOR>(x, F);      \
  }
MULSHIFT_EMULATE(_mm512_cvtepu8_epi32, __m512i, int32_t, __m128i, uint8_t, 16, mulshift::emulated::same<uint8_t>)
MULSHIFT_EMULATE(_mm512_cvtepi8_epi32, __m512i, int32_t, __m128i, int8_t, 16, mulshift::emulated::same<int8_t>)
MULSHIFT_EMULATE(_mm512_cvtepi16_epi32, __m512i, int32_t, __m256i, int16_t, 16, mulshift::emulated::same<int16_t>)
MULSHIFT_EMULATE(_mm512_cvtepu8_epi16, __m512i, int16_t, __m256i, uint8_t, 32, mulshift::emulated::same<uint8_t>)
MULSHIFT_EMULATE(_mm512_cvtepi32_epi16, __m256i, int16_t, __m512i, int32_t, 16, mulshift::emulated::same<int32_t>)
MULSHIFT_EMULATE(_mm512_cvtepi32_epi8, __m128i, int8_t, __m512i, int32_t, 16, mulshift::emulated::same<int32_t>)
MULSHIFT_EMULATE(_mm512_cvtusepi32_epi8, __m128i, uint8_t, __m512i, uint32_t, 16,
                 [](uint32_t v) { return v > 255 ? 255u : v; })
#undef MULSHIFT_EMULATE

namespace mulshift {
namespace emulated {

// Arithmetic shifts right, every lane by its own count.
template <class T, int LANES>
inline __m512i shift_right(__m512i x, __m512i counts) {
  T a[LANES], c[LANES];
  std::memcpy(a, &x, sizeof(a));
  std::memcpy(c, &counts, sizeof(c));
  for (int i = 0; i < LANES; ++i) a[i] = a[i] >> c[i];
  std::memcpy(&x, a, sizeof(a));
  return x;
}

inline __m512i high_of_products(__m512i x, __m512i y) {
  uint16_t a[32], b[32];
  std::memcpy(a, &x, sizeof(a));
  std::memcpy(b, &y, sizeof(b));
  for (int i = 0; i < 32; ++i) a[i] = static_cast<uint16_t>(static_cast<uint32_t>(a[i]) * b[i] >> 16);
  std::memcpy(&x, a, sizeof(a));
  return x;
}

}  // namespace emulated
}  // namespace mulshift

inline __m512i _mm512_mulhi_epu16(__m512i x, __m512i y) { return mulshift::emulated::high_of_products(x, y); }
inline __m512i _mm512_srav_epi32(__m512i x, __m512i c) { return mulshift::emulated::shift_right<int32_t, 16>(x, c); }
inline __m512i _mm512_srav_epi64(__m512i x, __m512i c) { return mulshift::emulated::shift_right<int64_t, 8>(x, c); }
inline __m512i _mm512_srai_epi64(__m512i x, int c) { return _mm512_srav_epi64(x, _mm512_set1_epi64(c)); }
#else
#include <immintrin.h>
#endif

#endif
