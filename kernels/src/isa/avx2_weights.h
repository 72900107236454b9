// Weights of scores on AVX2, thirty-two at a time, in 16 bits from t on: the bytes that softmax.h gives.
//
//   h = floor(255 p / 256) = 65280 - m + (m >> 8)           p = 65536 - m, m < 2^15; up to 65280
//   e = ((255 p >> i) + 2^15) >> 16 = ((h >> (7 + i)) + 1) >> 1
//
// Floors of floors are one floor. h >> (7 + i) is the upper half of h * 2^(9-i); from i = 10 on it is 0, and so is e.
// Ranges     Way::low, so t fits int32; one beyond 65535 is lowered to that, i = 15.
#ifndef MULSHIFT_SRC_ISA_AVX2_WEIGHTS_H
#define MULSHIFT_SRC_ISA_AVX2_WEIGHTS_H

#include <immintrin.h>

#include <cstring>

#include "../simd/avx2.h"
#include "../softmax.h"

namespace mulshift {
namespace avx2 {

class ByteWeights {
 public:
  static int32_t run(const Exponent& exponent, const int32_t* scores, const uint8_t* mask, size_t n, Held held, void* a) {
    if (held != Held::raw || exponent.ratio.way != Way::low) return Softmax<V>::weights(exponent, scores, mask, n, held, a);
    const bool masked = mask && std::memchr(mask, 0, n);
    if (!masked) mask = nullptr;
    const int32_t top = masked ? greatest_of(scores, mask, 0, n, V::set1(kMasked)) : greatest(scores, n);
    uint8_t* e = static_cast<uint8_t*>(a);
    if (top == kMasked) {
      std::memset(e, 0, (n + kLanes - 1) / kLanes * kLanes);
      return 0;
    }
    return ByteWeights(exponent, top).all(scores, mask, n, e);
  }

 private:
  static constexpr size_t kLanes = 16, kTwice = 32;

  ByteWeights(const Exponent& x, int32_t top)
      : b_(_mm256_set1_epi32(x.ratio.b)), shift_(_mm_cvtsi32_si128(x.ratio.shift)) {
    const int64_t lowest = int64_t{top} - x.reach, half = int64_t{1} << (x.ratio.shift - 1);
    floor_ = _mm256_set1_epi32(lowest < INT32_MIN ? INT32_MIN : static_cast<int32_t>(lowest));
    top_ = _mm256_set1_epi32(static_cast<int32_t>(static_cast<uint32_t>(int64_t{top} * x.ratio.b + half)));  // modulo 2^32
  }

  static __m256i read(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

  static int32_t greatest(const int32_t* scores, size_t n) {
    V most = V::set1(kMasked);
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) most = most.max(V::load(scores + i));
    return greatest_of(scores, nullptr, i, n, most);
  }

  // 255 where one of the sixteen keys from i on is attended, else 0.
  static __m128i attended(const uint8_t* mask, size_t i, size_t n) {
    alignas(32) static constexpr uint8_t kFirst[2 * kLanes] = {255, 255, 255, 255, 255, 255, 255, 255,
                                                               255, 255, 255, 255, 255, 255, 255, 255};
    const size_t left = n - i < kLanes ? n - i : kLanes;
    const __m128i counted = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kFirst + kLanes - left));
    if (!mask) return counted;
    uint8_t flags[kLanes] = {};
    const uint8_t* from = mask + i;
    if (left < kLanes) from = static_cast<const uint8_t*>(std::memcpy(flags, from, left));
    const __m128i given = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm_andnot_si128(_mm_cmpeq_epi8(given, _mm_setzero_si128()), counted);
  }

  // Of `most` and the keys from i on.
  static int32_t greatest_of(const int32_t* scores, const uint8_t* mask, size_t i, size_t n, V most) {
    const __m256i masked = _mm256_set1_epi32(kMasked);
    for (; i < n; i += kLanes) {
      const __m128i flags = attended(mask, i, n);
      const __m256i low = _mm256_cvtepi8_epi32(flags), high = _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(flags, flags));
      most = most.max({_mm256_blendv_epi8(masked, read(scores + i), low), _mm256_blendv_epi8(masked, read(scores + i + 8), high)});
    }
    return most.greatest();
  }

  int32_t all(const int32_t* scores, const uint8_t* mask, size_t n, uint8_t* e) const {
    __m256i sum = _mm256_setzero_si256();
    const auto add = [&](__m256i weights) {
      sum = _mm256_add_epi64(sum, _mm256_sad_epu8(weights, _mm256_setzero_si256()));
    };
    size_t i = 0;
    for (; i + kTwice <= n; i += kTwice) {
      __m256i made = weights(read(scores + i), read(scores + i + 8), read(scores + i + 16), read(scores + i + 24));
      if (mask) made = _mm256_and_si256(made, _mm256_set_m128i(attended(mask, i + kLanes, n), attended(mask, i, n)));
      add(made);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(e + i), made);
    }
    for (; i < n; i += kLanes) {
      const __m256i low = read(scores + i), high = read(scores + i + 8);
      const __m128i made = _mm_and_si128(_mm256_castsi256_si128(weights(low, high, low, high)), attended(mask, i, n));
      add(_mm256_zextsi128_si256(made));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(e + i), made);
    }
    const __m128i two = _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    return _mm_cvtsi128_si32(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two)));
  }

  // Scores above the top are those of keys that do not count.
  __m256i times(__m256i scores) const {
    const __m256i scaled = _mm256_mullo_epi32(_mm256_max_epi32(scores, floor_), b_);
    return _mm256_srl_epi32(_mm256_sub_epi32(top_, scaled), shift_);
  }

  struct Power {
    __m256i h, octave;
    explicit Power(__m256i t) : octave(_mm256_srli_epi16(t, 12)) {
      const __m256i f = _mm256_slli_epi16(t, 4);
      const __m256i p3 = _mm256_sub_epi16(_mm256_set1_epi16(15200), _mm256_mulhi_epu16(f, _mm256_set1_epi16(2632)));
      const __m256i p2 = _mm256_sub_epi16(_mm256_set1_epi16(static_cast<int16_t>(45341)), _mm256_mulhi_epu16(f, p3));
      const __m256i m = _mm256_mulhi_epu16(f, p2);
      h = _mm256_add_epi16(_mm256_sub_epi16(_mm256_set1_epi16(static_cast<int16_t>(65280)), m), _mm256_srli_epi16(m, 8));
    }
  };

  // Of eight scores each, in order.
  __m256i weights(__m256i s0, __m256i s1, __m256i s2, __m256i s3) const {
    // 2^(9-i): its lower and its upper byte
    const __m256i lower = _mm256_setr_epi8(0, 0, -128, 64, 32, 16, 8, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, -128, 64, 32, 16, 8, 4,
                                           2, 1, 0, 0, 0, 0, 0, 0);
    const __m256i upper = _mm256_setr_epi8(2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                           0, 0, 0, 0);
    const Power p(_mm256_packus_epi32(times(s0), times(s1))), q(_mm256_packus_epi32(times(s2), times(s3)));
    const __m256i octaves = _mm256_packus_epi16(p.octave, q.octave);
    const __m256i low = _mm256_shuffle_epi8(lower, octaves), high = _mm256_shuffle_epi8(upper, octaves);
    const __m256i x = _mm256_mulhi_epu16(p.h, _mm256_unpacklo_epi8(low, high));
    const __m256i y = _mm256_mulhi_epu16(q.h, _mm256_unpackhi_epi8(low, high)), zero = _mm256_setzero_si256();
    const __m256i made = _mm256_packus_epi16(_mm256_avg_epu16(x, zero), _mm256_avg_epu16(y, zero));
    return _mm256_permutevar8x32_epi32(made, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  }

  __m256i b_, floor_, top_;
  __m128i shift_;
};

}  // namespace avx2
}  // namespace mulshift

#endif
