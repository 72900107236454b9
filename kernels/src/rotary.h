// RotaryEmbedding of one row: its two halves turned by angles, requantized. ir/operators/rotary.py has its meaning.
//
//   acc1 = (x1 - zx) * cos - (x2 - zx) * sin
//   acc2 = (x2 - zx) * cos + (x1 - zx) * sin
//   y = clamp(((acc * b + 2^(c-1)) >> c) + z)
//
// Rounding   half up, once.
// Ranges     x: u8, s8 with any cos and sin of 16 bits; s16 with cos and sin from -2^14 to 2^14, which `within` tells.
// Overflow   |x - zx| <= 255 and 2^15, or 65535 and 2^14: |acc| <= 2 * 255 * 2^15 or 2 * 65535 * 2^14, both below 2^31.
// ratio      of rescale.h for the greatest |acc|; z is an element of the type of y, 0 for s32.
// Layouts    x, y: 2 * half elements, x1 then x2; cos, sin: half elements.
#ifndef MULSHIFT_SRC_ROTARY_H
#define MULSHIFT_SRC_ROTARY_H

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "rescale.h"
#include "tensor.h"

namespace mulshift {

constexpr int32_t kMaxAngle = 1 << 14;  // of a cosine or sine beside an x of 16 bits

struct RotarySpec {
  Type x_type;
  int32_t x_zero_point;
  Ratio ratio;
  Output out;
};

struct RotaryKernels {
  bool (*within)(const int16_t* angles, size_t n);  // whether all are from -kMaxAngle to kMaxAngle
  void (*row)(const RotarySpec& spec, size_t half, const int16_t* cos, const int16_t* sin, const void* x, void* y);
};

template <class V>
class Rotary {
 public:
  static bool within(const int16_t* angles, size_t n) {
    const V most = V::set1(kMaxAngle);
    V high = V::set1(0), low = high;
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      const V v = V::load(angles + i);
      high = high.max(v);
      low = low.min(v);
    }
    bool good = (high - most).greatest() <= 0 && (V::set1(-kMaxAngle) - low).greatest() <= 0;
    for (; i < n; ++i) good = good && angles[i] <= kMaxAngle && angles[i] >= -kMaxAngle;
    return good;
  }

  static void row(const RotarySpec& spec, size_t half, const int16_t* cos, const int16_t* sin, const void* x, void* y) {
    switch (spec.x_type) {
      case Type::u8:
        return row_from(spec, half, cos, sin, static_cast<const uint8_t*>(x), y);
      case Type::s8:
        return row_from(spec, half, cos, sin, static_cast<const int8_t*>(x), y);
      default:
        return row_from(spec, half, cos, sin, static_cast<const int16_t*>(x), y);
    }
  }

 private:
  static constexpr size_t kLanes = V::lanes;

  template <class X>
  static void row_from(const RotarySpec& spec, size_t half, const int16_t* cos, const int16_t* sin, const X* x,
                       void* y) {
    switch (spec.out.type) {
      case Type::u8:
        return row_to(spec, half, cos, sin, x, static_cast<uint8_t*>(y));
      case Type::s8:
        return row_to(spec, half, cos, sin, x, static_cast<int8_t*>(y));
      case Type::s16:
        return row_to(spec, half, cos, sin, x, static_cast<int16_t*>(y));
      default:
        return row_to(spec, half, cos, sin, x, static_cast<int32_t*>(y));
    }
  }

  template <class X, class Y>
  static void row_to(const RotarySpec& spec, size_t half, const int16_t* cos, const int16_t* sin, const X* x, Y* y) {
    const V b = V::set1(spec.ratio.b), c = V::set1(spec.ratio.shift);
    const Clamp<V> clamp(spec.out);
    if (spec.ratio.way == Way::low) {
      const Scaling<V, Way::low> scale(b, c, 0);
      return turn(spec, half, cos, sin, x, y, [&](V acc) { return clamp(scale(acc)); });
    }
    if (spec.ratio.way == Way::high) {
      const Scaling<V, Way::high> scale(b, c, spec.ratio.left);
      return turn(spec, half, cos, sin, x, y, [&](V acc) { return clamp(scale(acc)); });
    }
    turn(spec, half, cos, sin, x, y, [&](V acc) { return rescale_wide(acc, b, c, clamp); });
  }

  template <class X, class Y, class F>
  static void turn(const RotarySpec& spec, size_t half, const int16_t* cos, const int16_t* sin, const X* x, Y* y,
                   const F& rescaled) {
    const V zx = V::set1(spec.x_zero_point);
    const auto some = [&](const X* x1, const X* x2, const int16_t* cosines, const int16_t* sines, Y* y1, Y* y2) {
      const V first = V::load(x1) - zx, second = V::load(x2) - zx, co = V::load(cosines), si = V::load(sines);
      rescaled(first * co - second * si).store(y1);
      rescaled(second * co + first * si).store(y2);
    };
    if (half < kLanes) {
      X few[2][kLanes] = {};
      int16_t angles[2][kLanes] = {};
      Y made[2][kLanes];
      std::memcpy(few[0], x, half * sizeof(X));
      std::memcpy(few[1], x + half, half * sizeof(X));
      std::memcpy(angles[0], cos, half * sizeof(int16_t));
      std::memcpy(angles[1], sin, half * sizeof(int16_t));
      some(few[0], few[1], angles[0], angles[1], made[0], made[1]);
      std::memcpy(y, made[0], half * sizeof(Y));
      std::memcpy(y + half, made[1], half * sizeof(Y));
      return;
    }
    size_t i = 0;
    for (; i + kLanes <= half; i += kLanes) some(x + i, x + half + i, cos + i, sin + i, y + i, y + half + i);
    if (i == half) return;
    i = half - kLanes;  // overlap the lanes before
    some(x + i, x + half + i, cos + i, sin + i, y + i, y + half + i);
  }
};

}  // namespace mulshift

#endif
