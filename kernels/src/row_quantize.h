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

inline int32_t row_shift_of(int32_t m) {
  constexpr int32_t kKeptBits = 7;
  int32_t bits = 0;
  for (; m; m >>= 1) ++bits;
  return bits > kKeptBits ? bits - kKeptBits : 0;
}

template <class T>
void quantize_row(const T* x, size_t n, int32_t zx, uint8_t* q, int32_t* k) {
  constexpr int32_t kMiddle = 128;
  int32_t low = 0, high = 0;
  for (size_t i = 0; i < n; ++i) {
    const int32_t value = x[i] - zx;
    low = value < low ? value : low;
    high = value > high ? value : high;
  }
  const int32_t shift = row_shift_of(high > -low ? high : -low), half = (int32_t{1} << shift) >> 1;
  for (size_t i = 0; i < n; ++i) {
    const int32_t y = ((x[i] - zx + half) >> shift) + kMiddle;
    q[i] = static_cast<uint8_t>(y < 0 ? 0 : y > 255 ? 255 : y);
  }
  *k = shift;
}

inline void quantize_row(const void* x, Type type, size_t n, int32_t zx, uint8_t* q, int32_t* k) {
  switch (type) {
    case Type::u8:
      return quantize_row(static_cast<const uint8_t*>(x), n, zx, q, k);
    case Type::s8:
      return quantize_row(static_cast<const int8_t*>(x), n, zx, q, k);
    default:
      return quantize_row(static_cast<const int16_t*>(x), n, zx, q, k);
  }
}

}  // namespace mulshift

#endif
