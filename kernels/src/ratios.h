// One way (rescale.h) for many dyadic numbers, or for a sum of two products.
#ifndef MULSHIFT_SRC_RATIOS_H
#define MULSHIFT_SRC_RATIOS_H

#include <cstddef>
#include <cstdint>

#include "rescale.h"

namespace mulshift {

// The fastest way that is exact for |x| <= bound and each of n pairs; `b` and `c` become what that way takes.
Ratio find_ratio_of_all(int64_t bound, int32_t* b, int32_t* c, size_t n);

// x1 * b1 + x2 * b2, then the same shift for both.
struct SumRatio {
  Way way = Way::any;
  int32_t left = 0, b1 = 0, b2 = 0, shift = 2;
};
// For |x1| <= bound1, |x2| <= bound2, both below 2^31, with a sum below 2^62; b1 and b2 of either sign, above -2^31.
SumRatio find_sum_ratio(int64_t bound1, int32_t b1, int64_t bound2, int32_t b2, int32_t c);

// The same for 16-bit numbers by products of 16 bits, where b = high * 2^16 + low:
//
//   (x1 b1 + x2 b2 + 2^(c-1)) >> c = (x1 high1 + x2 high2 + ((x1 low1 + x2 low2) >> 16) + 2^(shift-1)) >> shift, shift = c - 16
struct PairRatio {
  bool fits = false;
  int32_t high1 = 0, high2 = 0, low1 = 0, low2 = 0, shift = 0;
};
// For bounds up to 2^15; every sum must fit 32 bits.
PairRatio find_pair_ratio(int64_t bound1, int32_t b1, int64_t bound2, int32_t b2, int32_t c);

// Whether the ways of 32 bits leave room for the zero point: what they round to is below 2^30, and V::Bytes may hold the
// zero point of bytes in 16 bits.
inline bool fits_zero_point(const Output& out) {
  const int32_t limit = int32_t{1} << (out.type == Type::u8 ? 14 : 30);
  return out.zero_point > -limit && out.zero_point < limit;
}

}  // namespace mulshift

#endif
