// Sixteen int32 lanes on NEON; the meaning of each operation is in portable.h.
#ifndef MULSHIFT_SRC_SIMD_NEON_H
#define MULSHIFT_SRC_SIMD_NEON_H

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace mulshift {
namespace neon {

struct V {
  static constexpr int lanes = 16;
  int32x4_t v[4];

  struct Wide {
    int64x2_t v[8];
  };

  static V set1(int32_t x) {
    const int32x4_t four = vdupq_n_s32(x);
    return {{four, four, four, four}};
  }
  static V load(const int32_t* p) { return {{vld1q_s32(p), vld1q_s32(p + 4), vld1q_s32(p + 8), vld1q_s32(p + 12)}}; }
  static V load(const uint8_t* p) {
    const uint8x16_t b = vld1q_u8(p);
    return widen(vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(b))), vreinterpretq_s16_u16(vmovl_high_u8(b)));
  }
  static V load(const int8_t* p) {
    const int8x16_t b = vld1q_s8(p);
    return widen(vmovl_s8(vget_low_s8(b)), vmovl_high_s8(b));
  }
  static V load(const int16_t* p) { return widen(vld1q_s16(p), vld1q_s16(p + 8)); }

  void store(int32_t* p) const {
    for (int i = 0; i < 4; ++i) vst1q_s32(p + 4 * i, v[i]);
  }
  void store(int16_t* p) const {
    vst1q_s16(p, narrow(v[0], v[1]));
    vst1q_s16(p + 8, narrow(v[2], v[3]));
  }
  void store(int8_t* p) const {
    vst1q_s8(p, vcombine_s8(vmovn_s16(narrow(v[0], v[1])), vmovn_s16(narrow(v[2], v[3]))));
  }
  void store(uint8_t* p) const { store(reinterpret_cast<int8_t*>(p)); }

  struct Bytes {
    int32x4_t zero_point, low, high;
    Bytes(int32_t z, int32_t l, int32_t h) : zero_point(vdupq_n_s32(z)), low(vdupq_n_s32(l)), high(vdupq_n_s32(h)) {}
    void store(V x, uint8_t* p) const {
      V y;
      for (int i = 0; i < 4; ++i) y.v[i] = vminq_s32(vmaxq_s32(vaddq_s32(x.v[i], zero_point), low), high);
      y.store(p);
    }
    void store(V x, V y, uint8_t* p, uint8_t* q) const {
      store(x, p);
      store(y, q);
    }
  };

  struct Words {
    int32x4_t low, high;
    Words(int32_t l, int32_t h) : low(vdupq_n_s32(l)), high(vdupq_n_s32(h)) {}
    static V load(const int32_t* p) { return V::load(p); }
    void store(V x, int16_t* p) const { clamped(x).store(p); }
    V pair(V x, const int16_t* r) const {
      return clamped(x).each(V::load(r), [](int32x4_t a, int32x4_t b) { return vsliq_n_s32(a, b, 16); });
    }

   private:
    V clamped(V x) const {
      for (int i = 0; i < 4; ++i) x.v[i] = vminq_s32(vmaxq_s32(x.v[i], low), high);
      return x;
    }
  };

  V operator+(V o) const { return each(o, [](int32x4_t a, int32x4_t b) { return vaddq_s32(a, b); }); }
  V operator-(V o) const { return each(o, [](int32x4_t a, int32x4_t b) { return vsubq_s32(a, b); }); }
  V operator*(V o) const { return each(o, [](int32x4_t a, int32x4_t b) { return vmulq_s32(a, b); }); }
  V min(V o) const { return each(o, [](int32x4_t a, int32x4_t b) { return vminq_s32(a, b); }); }
  V max(V o) const { return each(o, [](int32x4_t a, int32x4_t b) { return vmaxq_s32(a, b); }); }
  V shift_right(V c) const { return each(c, [](int32x4_t a, int32x4_t b) { return vshlq_s32(a, vnegq_s32(b)); }); }
  V shift_left(int32_t count) const {
    return each(set1(count), [](int32x4_t a, int32x4_t b) { return vshlq_s32(a, b); });
  }
  static V power(V c) { return set1(1).each(c, [](int32x4_t a, int32x4_t b) { return vshlq_s32(a, b); }); }

  static void interleave(const uint8_t* a, const uint8_t* b, int16_t* out) {
    const uint8x16_t x = vld1q_u8(a), y = vld1q_u8(b);
    const uint8x16_t low = vzip1q_u8(x, y), high = vzip2q_u8(x, y);
    vst1q_s16(out, vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(low))));
    vst1q_s16(out + 8, vreinterpretq_s16_u16(vmovl_high_u8(low)));
    vst1q_s16(out + 16, vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(high))));
    vst1q_s16(out + 24, vreinterpretq_s16_u16(vmovl_high_u8(high)));
  }
  static void interleave(const int8_t* a, const int8_t* b, const int8_t* c, const int8_t* d, int8_t* out) {
    vst4q_s8(out, {{vld1q_s8(a), vld1q_s8(b), vld1q_s8(c), vld1q_s8(d)}});
  }
  static void transpose(const int8_t* a, const int8_t* b, const int8_t* c, const int8_t* d, int8_t* out, int stride) {
    const int32x4_t x = vreinterpretq_s32_s8(vld1q_s8(a)), y = vreinterpretq_s32_s8(vld1q_s8(b));
    const int32x4_t z = vreinterpretq_s32_s8(vld1q_s8(c)), w = vreinterpretq_s32_s8(vld1q_s8(d));
    const int64x2_t xy0 = vreinterpretq_s64_s32(vzip1q_s32(x, y)), xy1 = vreinterpretq_s64_s32(vzip2q_s32(x, y));
    const int64x2_t zw0 = vreinterpretq_s64_s32(vzip1q_s32(z, w)), zw1 = vreinterpretq_s64_s32(vzip2q_s32(z, w));
    vst1q_s8(out, vreinterpretq_s8_s64(vzip1q_s64(xy0, zw0)));
    vst1q_s8(out + stride, vreinterpretq_s8_s64(vzip2q_s64(xy0, zw0)));
    vst1q_s8(out + 2 * stride, vreinterpretq_s8_s64(vzip1q_s64(xy1, zw1)));
    vst1q_s8(out + 3 * stride, vreinterpretq_s8_s64(vzip2q_s64(xy1, zw1)));
  }
  static void fields(const uint8_t* x, int shift, int mask, int scale, int half, int8_t* out) {
    const uint8x16_t shifted = vshlq_u8(vld1q_u8(x), vdupq_n_s8(static_cast<int8_t>(-shift)));
    const int8x16_t field = vreinterpretq_s8_u8(vandq_u8(shifted, vdupq_n_u8(static_cast<uint8_t>(mask))));
    const int8x16_t scaled = scale == 1 ? field : vaddq_s8(field, field);
    vst1q_s8(out, vsubq_s8(scaled, vdupq_n_s8(static_cast<int8_t>(half))));
  }
  static void multiply_fours(const int8_t* x, const uint8_t* m, int8_t* y) {
    uint32_t four;
    std::memcpy(&four, m, sizeof(four));
    const uint8x16_t each = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    const uint8x16_t wide = vqtbl1q_u8(vreinterpretq_u8_u32(vdupq_n_u32(four)), each);
    vst1q_s8(y, vmulq_s8(vld1q_s8(x), vreinterpretq_s8_u8(wide)));
  }
  static void choose(const uint8_t* x, const uint8_t* places, uint8_t* y) {
    vst1_u8(y, vqtbl1_u8(vld1q_u8(x), vld1_u8(places)));
  }
  static V multiply_pairs(V sum, const int16_t* x, const int16_t* w) {
    for (int i = 0; i < 4; ++i) {
      const int16x8_t a = vld1q_s16(x + 8 * i), b = vld1q_s16(w + 8 * i);
      const int32x4_t low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
      const uint32x4_t pairs = vreinterpretq_u32_s32(vpaddq_s32(low, vmull_high_s16(a, b)));
      sum.v[i] = vreinterpretq_s32_u32(vaddq_u32(vreinterpretq_u32_s32(sum.v[i]), pairs));
    }
    return sum;
  }
  static V multiply_pairs(V x, V w) {
    return x.each(w, [](int32x4_t a, int32x4_t b) {
      return vmlal_s16(vmull_s16(vmovn_s32(a), vmovn_s32(b)), vshrn_n_s32(a, 16), vshrn_n_s32(b, 16));
    });
  }
  static V multiply_pair(V sum, const int16_t* x, const int16_t* w) {
    const int16x4_t first = vdup_n_s16(x[0]), second = vdup_n_s16(x[1]), x4 = vzip1_s16(first, second);
    const int16x8_t a = vcombine_s16(x4, x4);
    for (int i = 0; i < 4; ++i) {
      const int16x8_t b = vld1q_s16(w + 8 * i);
      const int32x4_t low = vmull_s16(x4, vget_low_s16(b));
      const uint32x4_t pairs = vreinterpretq_u32_s32(vpaddq_s32(low, vmull_high_s16(a, b)));
      sum.v[i] = vreinterpretq_s32_u32(vaddq_u32(vreinterpretq_u32_s32(sum.v[i]), pairs));
    }
    return sum;
  }

  static V high16(V a, V b) {
    return a.each(b, [](int32x4_t x, int32x4_t y) {
      const uint32x4_t low = vandq_u32(vreinterpretq_u32_s32(x), vdupq_n_u32(0xffff));
      return vreinterpretq_s32_u32(vshrq_n_u32(vmulq_u32(low, vreinterpretq_u32_s32(y)), 16));
    });
  }
  int32_t greatest() const { return vmaxvq_s32(vmaxq_s32(vmaxq_s32(v[0], v[1]), vmaxq_s32(v[2], v[3]))); }
  int32_t sum() const { return vaddvq_s32(vaddq_s32(vaddq_s32(v[0], v[1]), vaddq_s32(v[2], v[3]))); }

  static V high(V a, V b) { return halves(multiply(a, b)); }
  static V high(V a, V b, V c, V d) { return halves(add(multiply(a, b), multiply(c, d))); }

  static Wide multiply(V a, V b) {
    Wide r;
    for (int i = 0; i < 4; ++i) {
      r.v[2 * i] = vmull_s32(vget_low_s32(a.v[i]), vget_low_s32(b.v[i]));
      r.v[2 * i + 1] = vmull_high_s32(a.v[i], b.v[i]);
    }
    return r;
  }
  static Wide add(Wide a, Wide b) {
    for (int i = 0; i < 8; ++i) a.v[i] = vaddq_s64(a.v[i], b.v[i]);
    return a;
  }
  // vrshl by a negative count rounds half up.
  static V round_shift(Wide x, V c, V low, V high) {
    V r;
    for (int i = 0; i < 4; ++i) {
      const int32x2_t first = round_shift2(x.v[2 * i], vmovl_s32(vget_low_s32(c.v[i])),
                                           vmovl_s32(vget_low_s32(low.v[i])), vmovl_s32(vget_low_s32(high.v[i])));
      const int32x2_t second = round_shift2(x.v[2 * i + 1], vmovl_high_s32(c.v[i]), vmovl_high_s32(low.v[i]),
                                            vmovl_high_s32(high.v[i]));
      r.v[i] = vcombine_s32(first, second);
    }
    return r;
  }

 private:
  static V widen(int16x8_t a, int16x8_t b) {
    return {{vmovl_s16(vget_low_s16(a)), vmovl_high_s16(a), vmovl_s16(vget_low_s16(b)), vmovl_high_s16(b)}};
  }
  static int16x8_t narrow(int32x4_t a, int32x4_t b) { return vcombine_s16(vmovn_s32(a), vmovn_s32(b)); }
  static V halves(Wide x) {
    V r;
    for (int i = 0; i < 4; ++i) r.v[i] = vshrn_high_n_s64(vshrn_n_s64(x.v[2 * i], 32), x.v[2 * i + 1], 32);
    return r;
  }
  static int32x2_t round_shift2(int64x2_t x, int64x2_t c, int64x2_t low, int64x2_t high) {
    const int64x2_t y = vrshlq_s64(x, vnegq_s64(c));
    const int64x2_t below = vbslq_s64(vcgtq_s64(y, high), high, y);
    return vmovn_s64(vbslq_s64(vcgtq_s64(low, below), low, below));
  }
  template <class F>
  V each(V o, F f) const {
    return {{f(v[0], o.v[0]), f(v[1], o.v[1]), f(v[2], o.v[2]), f(v[3], o.v[3])}};
  }
};

}  // namespace neon
}  // namespace mulshift

#endif
