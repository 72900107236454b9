// One row of a linear interpolation: y[i] = (x0[i] - zx) * w0 + (x1[i] - zx) * w1.
//
// Ranges     x0, x1: u8, s8, s16 or s32; the sum and both products fit int32. y: s32. Not rounded.
#ifndef MULSHIFT_SRC_LERP_H
#define MULSHIFT_SRC_LERP_H

#include <cstddef>
#include <cstdint>

#include "tensor.h"

namespace mulshift {

struct LerpRow {
  Type type;
  const void *x0, *x1;
  int32_t x_zero_point, w0, w1;
};

struct LerpKernels {
  void (*row)(const LerpRow& row, size_t n, int32_t* y);
};

template <class V>
class Lerp {
 public:
  static void row(const LerpRow& r, size_t n, int32_t* y) {
    switch (r.type) {
      case Type::u8:
        return row<uint8_t>(r, n, y);
      case Type::s8:
        return row<int8_t>(r, n, y);
      case Type::s16:
        return row<int16_t>(r, n, y);
      default:
        return row<int32_t>(r, n, y);
    }
  }

 private:
  template <class T>
  static void row(const LerpRow& r, size_t n, int32_t* y) {
    const T *x0 = static_cast<const T*>(r.x0), *x1 = static_cast<const T*>(r.x1);
    const V zx = V::set1(r.x_zero_point), w0 = V::set1(r.w0), w1 = V::set1(r.w1);
    size_t i = 0;
    for (; i + V::lanes <= n; i += V::lanes) {
      ((V::load(x0 + i) - zx) * w0 + (V::load(x1 + i) - zx) * w1).store(y + i);
    }
    for (; i < n; ++i) y[i] = (x0[i] - r.x_zero_point) * r.w0 + (x1[i] - r.x_zero_point) * r.w1;
  }
};

}  // namespace mulshift

#endif
