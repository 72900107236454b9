// Requantization on sixteen lanes; requantize.h has the formula, its rounding and why nothing overflows.
//
// narrow  all of x * b + 2^(c-1) fits int32 (proven by the caller): one 32-bit multiply, c at most 31.
// wide    any int32 x, any dyadic number: 64-bit products, clamped before they return to 32 bits.
#ifndef MULSHIFT_SRC_RESCALE_H
#define MULSHIFT_SRC_RESCALE_H

#include "simd/portable.h"
#include "tensor.h"

namespace mulshift {

// Zero point and clamp of an Output as lanes. `low - zero_point` and `high - zero_point` must fit int32.
template <class V>
struct Clamp {
  V zero_point, low, high, low_less_zero, high_less_zero;

  explicit Clamp(const Output& out)
      : zero_point(V::set1(out.zero_point)),
        low(V::set1(out.low)),
        high(V::set1(out.high)),
        low_less_zero(V::set1(out.low - out.zero_point)),
        high_less_zero(V::set1(out.high - out.zero_point)) {}
};

template <class V>
inline V rescale_narrow(V x, V b, V c, V half, const Clamp<V>& clamp) {
  return ((x * b + half).shift_right(c) + clamp.zero_point).max(clamp.low).min(clamp.high);
}

template <class V>
inline V rescale_wide(V x, V b, V c, const Clamp<V>& clamp) {
  return V::round_shift(V::multiply(x, b), c, clamp.low_less_zero, clamp.high_less_zero) + clamp.zero_point;
}

}  // namespace mulshift

#endif
