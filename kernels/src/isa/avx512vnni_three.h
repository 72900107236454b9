// Depthwise 3x3 on AVX-512 VNNI: one vpdpbusd a step, for any weights.
#ifndef MULSHIFT_SRC_ISA_AVX512VNNI_THREE_H
#define MULSHIFT_SRC_ISA_AVX512VNNI_THREE_H

#include "../three.h"
#include "avx512vnni_dense.h"

namespace mulshift {
namespace avx512 {

struct ThreeStep : SumsInOrder<V> {
  using Column = __m512i;

  static Column lay(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d) {
    return _mm512_or_si512(_mm512_or_si512(spread(a, 0), spread(c, 1)), _mm512_or_si512(spread(b, 2), spread(d, 3)));
  }
  static Column lay(const uint8_t* a, const uint8_t* b, const uint8_t* c) {
    return _mm512_or_si512(_mm512_or_si512(spread(a, 0), spread(c, 1)), spread(b, 2));
  }
  template <size_t I>
  static V sum(Column a, Column b, Column c, const int8_t* w) {
    __m512i s = _mm512_setzero_si512();
    add_products(s, a, _mm512_loadu_si512(w + 64 * I));
    add_products(s, b, _mm512_loadu_si512(w + 64 * I + 128));
    add_products(s, c, _mm512_loadu_si512(w + 64 * I + 256));
    return {s};
  }
  static void two(Column a, Column b, Column c, Column d, Column e, Column f, const int8_t* w, V* sums) {
    sums[0] = sum<0>(a, b, c, w);
    sums[1] = sum<0>(d, e, f, w);
  }

 private:
  // Sixteen bytes, each at one place of four, zeros elsewhere.
  static __m512i spread(const uint8_t* p, int place) {
    const __m512i four = _mm512_set_epi32(3, 2, 1, 0, 3, 2, 1, 0, 3, 2, 1, 0, 3, 2, 1, 0);
    const __m512i lane = _mm512_set_epi32(12, 12, 12, 12, 8, 8, 8, 8, 4, 4, 4, 4, 0, 0, 0, 0);
    const __m512i from = _mm512_slli_epi32(_mm512_add_epi32(four, lane), static_cast<unsigned>(8 * place));
    const __m512i elsewhere = _mm512_set1_epi32(static_cast<int>(0x80808080u & ~(0xffu << (8 * place))));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(read128(p)), _mm512_or_si512(from, elsewhere));
  }
};

inline uint8_t prepare_three(const int8_t* w, size_t stride, int8_t* out, int32_t*) {
  arrange_three(w, stride, out);
  return 0;
}

constexpr DirectKernels kThree = {1, kThreeBytes, prepare_three, {Three<ThreeStep>::way()}};

}  // namespace avx512
}  // namespace mulshift

#endif
