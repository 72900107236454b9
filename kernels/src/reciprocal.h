// Division of a row by its sum: b / 2^c is about multiplier / 2^shift / total.
//
// Formula    ir/operators/reciprocal.py: leading zeros, the tangent of 1/x at 0.75, three Newton steps, each floored.
// Ranges     1 <= total < 2^40; 0 <= multiplier < 2^31; so 0 <= b <= multiplier.
// Overflow   m < 2^31 and r <= 2^30: products stay below 2^62.
#ifndef MULSHIFT_SRC_RECIPROCAL_H
#define MULSHIFT_SRC_RECIPROCAL_H

#include <cstdint>

namespace mulshift {

struct RowDyadic {
  int32_t b, c;
};

inline RowDyadic row_dyadic(uint64_t total, int32_t multiplier, int32_t shift) {
  const int32_t log = 63 - __builtin_clzll(total);
  const uint64_t m = (total << (39 - log)) >> 9;
  uint64_t r = 1431655764 - ((m * 477218589) >> 30);
  for (int i = 0; i < 3; ++i) r = (r * ((uint64_t{1} << 31) - 1 - ((m * r) >> 30))) >> 30;
  const uint64_t b = (r * static_cast<uint64_t>(multiplier) + (uint64_t{1} << 29)) >> 30;
  return {static_cast<int32_t>(b), shift + log};
}

}  // namespace mulshift

#endif
