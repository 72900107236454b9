// Multiplication by a dyadic number b / 2^c on sixteen lanes, rounding half up; requantize.h has the formula.
//
// Way::low   (x * b + 2^(c-1)) >> c in 32 bits: the caller has proven that |x| * b + 2^(c-1) < 2^31, so c <= 31.
// Way::high  ((x * 2^left * b') / 2^32 + 2^(shift-1)) >> shift, where b' = b * 2^s and shift = c + s + left - 32 is from
//            1 to 31. A floor of a floor is one floor, and 2^(shift-1) has no bits below 2^32: the same bits as
//            (x * b + 2^(c-1)) >> c with b and c shifted up. Needs |x| * 2^left < 2^31 and b' < 2^31.
// Way::any   64-bit products, clamped before they return to 32 bits: any int32 x, any b and c.
#ifndef MULSHIFT_SRC_RESCALE_H
#define MULSHIFT_SRC_RESCALE_H

#include "simd/portable.h"
#include "tensor.h"

namespace mulshift {

enum class Way : uint8_t { low, high, any };

struct Ratio {
  Way way = Way::any;
  int32_t left = 0;  // of Way::high
  int32_t b = 0, shift = 2;
};

// How far a number below 2^31 can be shifted up and stay below it.
inline int32_t room_of(int64_t x) {
  if (x <= 0) return 31;
  const int32_t room = __builtin_clzll(static_cast<unsigned long long>(x)) - 33;
  return room < 0 ? 0 : room;
}

// The fastest way that is exact for all |x| <= bound < 2^31.
inline Ratio find_ratio(int64_t bound, int32_t b, int32_t c) {
  const int64_t limit = int64_t{1} << 31, half = int64_t{1} << (c - 1);
  if (c <= 31 && bound * b + half < limit) return {Way::low, 0, b, c};
  const int32_t wanted = c < 33 ? 33 - c : 0, room = room_of(b), s = wanted < room ? wanted : room, left = wanted - s;
  if (left <= room_of(bound) && c + s + left <= 63) return {Way::high, left, b << s, c + s + left - 32};
  return {Way::any, 0, b, c};
}

// Zero point and clamp of an Output as lanes. For rescale_wide, low and high less the zero point must fit int32.
template <class V>
struct Clamp {
  V zero_point, low, high, low_less_zero, high_less_zero;

  explicit Clamp(const Output& out)
      : zero_point(V::set1(out.zero_point)),
        low(V::set1(out.low)),
        high(V::set1(out.high)),
        low_less_zero(V::set1(static_cast<int32_t>(int64_t{out.low} - out.zero_point))),
        high_less_zero(V::set1(static_cast<int32_t>(int64_t{out.high} - out.zero_point))) {}

  V operator()(V rounded) const { return (rounded + zero_point).max(low).min(high); }
};

template <class V>
inline V rescale_narrow(V x, V b, V c, V half, const Clamp<V>& clamp) {
  return clamp((x * b + half).shift_right(c));
}

template <class V>
inline V rescale_wide(V x, V b, V c, const Clamp<V>& clamp) {
  return V::round_shift(V::multiply(x, b), c, clamp.low_less_zero, clamp.high_less_zero) + clamp.zero_point;
}

// A ratio in lanes, for one of the two 32-bit ways.
template <class V, Way WAY>
struct Scaling {
  static_assert(WAY != Way::any, "has 64-bit results");
  V b, shift, half;
  int32_t left;

  Scaling(V b_, V shift_, int32_t left_) : b(b_), shift(shift_), half(V::power(shift_ - V::set1(1))), left(left_) {}

  V operator()(V x) const {
    if (WAY == Way::low) return (x * b + half).shift_right(shift);
    return (V::high(x.shift_left(left), b) + half).shift_right(shift);
  }
};

}  // namespace mulshift

#endif
