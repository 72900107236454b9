// RowQuantize of one row: 8 bits with a power of two of its own.
//
//   m = max |x - zx|,  k = max(bits(m) - 7, 0),  q = clamp(((x - zx) + (2^k >> 1)) >> k, -128, 127) + 128
//
// Rounding   half up, by an arithmetic shift.
// Ranges     x: u8, s8, s16; |x - zx| < 2^16, so that nothing leaves int32.
#ifndef MULSHIFT_SRC_ROW_QUANTIZE_H
#define MULSHIFT_SRC_ROW_QUANTIZE_H

#include <cstddef>
#include <cstdint>

#include "tensor.h"

namespace mulshift {

constexpr int32_t kMostRowShift = 9;

struct RowKernels {
  // x: n elements of a row; q: as many.
  void (*quantize)(const void* x, Type type, size_t n, int32_t x_zero_point, uint8_t* q, int32_t* k);
};

// k of a row with that m.
inline int32_t row_shift_of(int32_t m) {
  constexpr int32_t kKeptBits = 7;
  int32_t bits = 0;
  for (; m; m >>= 1) ++bits;
  return bits > kKeptBits ? bits - kKeptBits : 0;
}

template <class V>
class RowQuantize {
 public:
  static void run(const void* x, Type type, size_t n, int32_t x_zero_point, uint8_t* q, int32_t* k) {
    switch (type) {
      case Type::u8:
        return row(static_cast<const uint8_t*>(x), n, x_zero_point, q, k);
      case Type::s8:
        return row(static_cast<const int8_t*>(x), n, x_zero_point, q, k);
      default:
        return row(static_cast<const int16_t*>(x), n, x_zero_point, q, k);
    }
  }

 private:
  static constexpr size_t kLanes = V::lanes;
  static constexpr int32_t kMiddle = 128, kHigh = 255;

  template <class T>
  static void row(const T* x, size_t n, int32_t zx, uint8_t* q, int32_t* k) {
    *k = row_shift_of(largest(x, n, zx));
    const int32_t offset = ((int32_t{1} << *k) >> 1) - zx;
    const V offsets = V::set1(offset), shift = V::set1(*k), middle = V::set1(kMiddle), low = V::set1(0), high = V::set1(kHigh);
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      ((V::load(x + i) + offsets).shift_right(shift) + middle).max(low).min(high).store(q + i);
    }
    for (; i < n; ++i) {
      const int32_t y = ((x[i] + offset) >> *k) + kMiddle;
      q[i] = static_cast<uint8_t>(y < 0 ? 0 : y > kHigh ? kHigh : y);
    }
  }

  // max |x - zx|.
  template <class T>
  static int32_t largest(const T* x, size_t n, int32_t zx) {
    V least = V::set1(zx), most = least;
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      const V v = V::load(x + i);
      least = least.min(v);
      most = most.max(v);
    }
    int32_t lows[kLanes], highs[kLanes], low = zx, high = zx;
    least.store(lows);
    most.store(highs);
    for (size_t lane = 0; lane < kLanes; ++lane) {
      low = lows[lane] < low ? lows[lane] : low;
      high = highs[lane] > high ? highs[lane] : high;
    }
    for (; i < n; ++i) {
      low = x[i] < low ? x[i] : low;
      high = x[i] > high ? x[i] : high;
    }
    return high - zx > zx - low ? high - zx : zx - low;
  }
};

}  // namespace mulshift

#endif
