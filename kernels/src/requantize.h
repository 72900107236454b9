// Requantization, the portable definition that every faster form is compared with (ARITHMETIC.md section 2).
//
// Formula    y = clamp(((acc * b + 2^(c-1)) >> c) + z, qmin, qmax), exact integers, >> is floor division by 2^c.
// Rounding   half up: to nearest, exact halves towards +infinity (-2.5 -> -2, 2.5 -> 3), once.
// Ranges     acc any int32; 0 <= b < 2^31; 2 <= c <= 62; z any int32; qmin <= qmax, both int32.
// Overflow   |acc * b| <= 2^31 * (2^31 - 1) < 2^62 and 2^(c-1) <= 2^61, so |sum| < 2^62 + 2^61 < 2^63.
//            After the shift (c >= 2) it is below 2^61 + 2^60, so adding z fits; the clamp brings it back to int32.
// Carried by plain C++: one 64-bit multiply, add, shift, add, two compares.
#ifndef MULSHIFT_SRC_REQUANTIZE_H
#define MULSHIFT_SRC_REQUANTIZE_H

#include <cstdint>

static_assert((int64_t{-1} >> 1) == -1, "the compiler must shift negative numbers arithmetically");

inline int32_t requantize_half_up(int32_t acc, int32_t b, int32_t c, int32_t zero_point, int32_t qmin, int32_t qmax) {
  const int64_t half = int64_t{1} << (c - 1);
  const int64_t y = ((int64_t{acc} * b + half) >> c) + zero_point;
  if (y < qmin) return qmin;
  if (y > qmax) return qmax;
  return static_cast<int32_t>(y);
}

#endif
