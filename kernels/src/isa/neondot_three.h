// Depthwise 3x3 on NEON: four sdot a step, for any weights; activations are x - 128, the bias takes 128 * sum w.
#ifndef MULSHIFT_SRC_ISA_NEONDOT_THREE_H
#define MULSHIFT_SRC_ISA_NEONDOT_THREE_H

#include "../three.h"
#include "neondot_dense.h"

namespace mulshift {
namespace neon {

struct ThreeStep : SumsInOrder<V> {
  struct Column {
    int8x16_t v[4];
  };

  static Column lay(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d) {
    const uint8x16x2_t outer = vzipq_u8(centred(a), centred(c)), inner = vzipq_u8(centred(b), centred(d));
    const uint16x8x2_t first = vzipq_u16(vreinterpretq_u16_u8(outer.val[0]), vreinterpretq_u16_u8(inner.val[0]));
    const uint16x8x2_t second = vzipq_u16(vreinterpretq_u16_u8(outer.val[1]), vreinterpretq_u16_u8(inner.val[1]));
    return {{vreinterpretq_s8_u16(first.val[0]), vreinterpretq_s8_u16(first.val[1]), vreinterpretq_s8_u16(second.val[0]),
             vreinterpretq_s8_u16(second.val[1])}};
  }
  static Column lay(const uint8_t* a, const uint8_t* b, const uint8_t* c) { return lay(a, b, c, b); }

  template <size_t I>
  static V sum(const Column& a, const Column& b, const Column& c, const int8_t* w) {
    V s;
    for (int i = 0; i < 4; ++i) {
      const int8_t* from = w + 64 * I + 16 * static_cast<size_t>(i);
      s.v[i] = vdotq_s32(vdupq_n_s32(0), a.v[i], vld1q_s8(from));
      s.v[i] = vdotq_s32(s.v[i], b.v[i], vld1q_s8(from + 128));
      s.v[i] = vdotq_s32(s.v[i], c.v[i], vld1q_s8(from + 256));
    }
    return s;
  }
  static void two(const Column& a, const Column& b, const Column& c, const Column& d, const Column& e, const Column& f, const int8_t* w, V* sums) {
    sums[0] = sum<0>(a, b, c, w);
    sums[1] = sum<0>(d, e, f, w);
  }

 private:
  static uint8x16_t centred(const uint8_t* p) { return veorq_u8(vld1q_u8(p), vdupq_n_u8(0x80)); }
};

inline uint8_t prepare_three(const int8_t* w, size_t stride, int8_t* out, int32_t* bias) {
  arrange_three(w, stride, out);
  for (size_t ch = 0; ch < kPanel; ++ch) {
    for (size_t tap = 0; tap < 9; ++tap) bias[ch] += 128 * w[tap * stride + ch];
  }
  return 0;
}

constexpr DirectKernels kThree = {1, kThreeBytes, prepare_three, {Three<ThreeStep>::way()}};

}  // namespace neon
}  // namespace mulshift

#endif
