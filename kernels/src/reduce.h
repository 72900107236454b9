// Sums of elements, the part of ReduceMean that depends on the instruction set.
//
// Ranges     count * max |x| < 2^31 holds for the element type, so no partial sum leaves int32.
#ifndef MULSHIFT_SRC_REDUCE_H
#define MULSHIFT_SRC_REDUCE_H

#include <cstddef>
#include <cstdint>

#include "tensor.h"

namespace mulshift {

constexpr size_t kSumColumns = 64;

struct ReduceKernels {
  // The sum of x[0..n).
  int32_t (*row)(const void* x, Type type, size_t n);
  // sums[i] = sum over r < rows of x[r * stride + first + i], i < columns <= kSumColumns; rows of `stride` elements.
  void (*columns)(const void* x, Type type, size_t rows, size_t stride, size_t first, size_t columns, int32_t* sums);
};

template <class V>
class Reduce {
 public:
  static int32_t row(const void* x, Type type, size_t n) {
    switch (type) {
      case Type::u8:
        return row(static_cast<const uint8_t*>(x), n);
      case Type::s8:
        return row(static_cast<const int8_t*>(x), n);
      default:
        return row(static_cast<const int16_t*>(x), n);
    }
  }

  static void columns(const void* x, Type type, size_t rows, size_t stride, size_t first, size_t columns,
                      int32_t* sums) {
    switch (type) {
      case Type::u8:
        return all(static_cast<const uint8_t*>(x), rows, stride, first, columns, sums);
      case Type::s8:
        return all(static_cast<const int8_t*>(x), rows, stride, first, columns, sums);
      default:
        return all(static_cast<const int16_t*>(x), rows, stride, first, columns, sums);
    }
  }

 private:
  static constexpr size_t kLanes = V::lanes;

  template <class T>
  static int32_t row(const T* x, size_t n) {
    V sums = V::set1(0);
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) sums = sums + V::load(x + i);
    int32_t lanes[kLanes], sum = 0;
    sums.store(lanes);
    for (size_t k = 0; k < kLanes; ++k) sum += lanes[k];
    for (; i < n; ++i) sum += x[i];
    return sum;
  }

  template <class T>
  static void all(const T* x, size_t rows, size_t stride, size_t first, size_t columns, int32_t* sums) {
    if (columns == kSumColumns) return four(x + first, rows, stride, sums);
    size_t i = 0;
    for (; i + kLanes <= columns; i += kLanes) one(x + first + i, rows, stride).store(sums + i);
    if (i == columns) return;
    const size_t last = first + columns;
    if (last >= kLanes) {  // overlap the columns before
      int32_t lanes[kLanes];
      one(x + last - kLanes, rows, stride).store(lanes);
      for (; i < columns; ++i) sums[i] = lanes[kLanes + i - columns];
      return;
    }
    for (; i < columns; ++i) {
      sums[i] = 0;
      for (size_t r = 0; r < rows; ++r) sums[i] += x[r * stride + first + i];
    }
  }

  template <class T>
  static V one(const T* x, size_t rows, size_t stride) {
    V sum = V::set1(0);
    for (size_t r = 0; r < rows; ++r, x += stride) sum = sum + V::load(x);
    return sum;
  }

  template <class T>
  static void four(const T* x, size_t rows, size_t stride, int32_t* sums) {
    V a = V::set1(0), b = a, c = a, d = a;
    for (size_t r = 0; r < rows; ++r, x += stride) {
      a = a + V::load(x);
      b = b + V::load(x + kLanes);
      c = c + V::load(x + 2 * kLanes);
      d = d + V::load(x + 3 * kLanes);
    }
    a.store(sums);
    b.store(sums + kLanes);
    c.store(sums + 2 * kLanes);
    d.store(sums + 3 * kLanes);
  }
};

}  // namespace mulshift

#endif
