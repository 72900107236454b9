// LayerNorm and RmsNorm of rows of n elements; ir/operators/norm.py and inverse_root.py have their meaning.
//
//   sum = sum x, squares = sum x^2                                        in SIMD, exact
//   LayerNorm  offset = sum,    v = max(n * squares - sum^2 + epsilon, 1)         the zero point of x cancels out
//   RmsNorm    offset = n * zx, v = max(n * sum (x - zx)^2 + epsilon, 1)
//   v^(-1/2) = r * 2^(-46 - e), k = 46 + e - fraction                     64-bit scalars, once a row
//   u = n * x - offset,  z = (u * r + 2^(k-1)) >> k,  y = clamp(((z * w + bias) >> shift) + z_y)      in SIMD, 32 bits
//
// Rounding   half up, twice; 2^(shift-1) lies in `bias` here.
// Ranges     x: u8, s8, s16; 1 <= n <= 2^14; 0 <= epsilon <= 2^60; 0 <= fraction <= 20; 2 <= shift <= 31; |z_y| < 2^30.
// Overflow   |x|, |x - zx| < 2^16, so |u| < 2^30, all terms of v are at most 2^60 and v < 2^62; r < 2^31. z is taken from
//            the upper word of (u * 2^left) * r, left = max(33 - k, 0), which leaves k + left - 32 from 1 to 29 to shift
//            by: a floor of a floor is one floor. It fits, for u^2 <= n * v and v < 4^(e + 16) give
//            |u| * 2^left < sqrt(n) * 2^(fraction + 3) <= 2^30. |z * w + bias| < 2^31 is proven when the node is made.
// Sums       of squares of s16, two by two: p = x^2 + x'^2 - 2^30 is in [-2^30, 2^30]. p >> 15 and the 15 bits below it
//            are added up apart; 512 pairs a lane stay below 2^25.
// Layouts    x, y: n elements of a row; w, bias: n elements, then zeros up to a multiple of 16.
#ifndef MULSHIFT_SRC_NORM_H
#define MULSHIFT_SRC_NORM_H

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "rescale.h"
#include "tensor.h"

namespace mulshift {

constexpr size_t kMaxNormTerms = 16384;
constexpr int64_t kMaxNormEpsilon = int64_t{1} << 60;
constexpr int32_t kMaxNormFraction = 20;

struct NormSpec {
  bool of_mean;  // LayerNorm, not RmsNorm
  Type x_type;
  int32_t x_zero_point;
  int64_t epsilon;
  int32_t fraction, shift;
  Output out;
  size_t n;
  const int32_t *w, *bias;
};

// z = (high((n * x - offset) << left, r) + 2^(shift-1)) >> shift, where high is the upper word of a product.
struct NormRow {
  int32_t offset, r, left, shift;
};

struct NormKernels {
  void (*sums)(const void* x, Type type, size_t n, int64_t* sum, int64_t* squares);
  void (*scale)(const NormSpec& spec, const NormRow& row, const void* x, void* y);
};

// What a row with these sums is scaled by.
NormRow norm_row(const NormSpec& spec, int64_t sum, int64_t squares);

// max |z| of a row of n elements: floor(sqrt(n) * 2^fraction) + 1.
int64_t largest_normalized(size_t n, int32_t fraction);

template <class V>
class Norm {
 public:
  static void sums(const void* x, Type type, size_t n, int64_t* sum, int64_t* squares) {
    switch (type) {
      case Type::u8:
        return bytes(static_cast<const uint8_t*>(x), n, sum, squares);
      case Type::s8:
        return bytes(static_cast<const int8_t*>(x), n, sum, squares);
      default:
        return words(static_cast<const int16_t*>(x), n, sum, squares);
    }
  }

  static void scale(const NormSpec& spec, const NormRow& row, const void* x, void* y) {
    switch (spec.x_type) {
      case Type::u8:
        return scale_from(spec, row, static_cast<const uint8_t*>(x), y);
      case Type::s8:
        return scale_from(spec, row, static_cast<const int8_t*>(x), y);
      default:
        return scale_from(spec, row, static_cast<const int16_t*>(x), y);
    }
  }

 private:
  static constexpr size_t kLanes = V::lanes, kPairs = 2 * kLanes;

  static int64_t sum_of(V x) {
    int32_t lanes[kLanes];
    int64_t sum = 0;
    x.store(lanes);
    for (const int32_t lane : lanes) sum += lane;
    return sum;
  }

  template <class T>
  static void rest(const T* x, size_t first, size_t n, int64_t* sum, int64_t* squares) {
    for (size_t i = first; i < n; ++i) {
      *sum += x[i];
      *squares += int32_t{x[i]} * x[i];
    }
  }

  // A lane adds up at most 2^10 squares of at most 2^16.
  template <class T>
  static void bytes(const T* x, size_t n, int64_t* sum, int64_t* squares) {
    V a = V::set1(0), b = a;
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      const V v = V::load(x + i);
      a = a + v;
      b = b + v * v;
    }
    *sum = sum_of(a);
    *squares = sum_of(b);
    rest(x, i, n, sum, squares);
  }

  static void words(const int16_t* x, size_t n, int64_t* sum, int64_t* squares) {
    constexpr int32_t kBits = 15, kMiddle = 1 << 30;
    const V middle = V::set1(-kMiddle), bits = V::set1(kBits);
    V a = V::set1(0), high = a, low = a;
    int16_t ones[kPairs];
    for (int16_t& one : ones) one = 1;
    size_t i = 0;
    for (; i + kPairs <= n; i += kPairs) {
      a = V::multiply_pairs(a, x + i, ones);
      const V p = V::multiply_pairs(middle, x + i, x + i), top = p.shift_right(bits);
      high = high + top;
      low = low + (p - top.shift_left(kBits));
    }
    *sum = sum_of(a);
    const int64_t pairs = static_cast<int64_t>(i / 2);
    *squares = sum_of(high) * (1 << kBits) + sum_of(low) + pairs * kMiddle;
    rest(x, i, n, sum, squares);
  }

  template <class T>
  static void scale_from(const NormSpec& spec, const NormRow& row, const T* x, void* y) {
    switch (spec.out.type) {
      case Type::u8:
        return scale_to(spec, row, x, static_cast<uint8_t*>(y));
      case Type::s8:
        return scale_to(spec, row, x, static_cast<int8_t*>(y));
      case Type::s16:
        return scale_to(spec, row, x, static_cast<int16_t*>(y));
      default:
        return scale_to(spec, row, x, static_cast<int32_t*>(y));
    }
  }

  // Zero point, clamp and store.
  template <class Y, class = void>
  struct Ending {
    Clamp<V> clamp;
    explicit Ending(const Output& out) : clamp(out) {}
    void store(V x, Y* y) const { clamp(x).store(y); }
    void store(V a, V b, Y* y) const {
      store(a, y);
      store(b, y + kLanes);
    }
  };
  template <class NONE>
  struct Ending<uint8_t, NONE> {
    typename V::Bytes clamp;
    explicit Ending(const Output& out) : clamp(out.zero_point, out.low, out.high) {}
    void store(V x, uint8_t* y) const { clamp.store(x, y); }
    void store(V a, V b, uint8_t* y) const { clamp.store(a, b, y, y + kLanes); }
  };

  template <class T, class Y>
  static void scale_to(const NormSpec& spec, const NormRow& row, const T* x, Y* y) {
    const V n = V::set1(static_cast<int32_t>(spec.n)), offset = V::set1(row.offset), r = V::set1(row.r);
    const Scaling<V, Way::high> normalize(r, V::set1(row.shift), row.left);
    const V shift = V::set1(spec.shift);
    const Ending<Y> ending(spec.out);
    const int32_t *w = spec.w, *bias = spec.bias;
    const auto made = [=](const T* from, size_t i) {  // copies: bytes that are stored may be anything of the caller's
      const V z = normalize(V::load(from) * n - offset);
      return (z * V::load(w + i) + V::load(bias + i)).shift_right(shift);
    };
    if (spec.n < kLanes) {
      T few[kLanes] = {};
      Y held[kLanes];
      std::memcpy(few, x, spec.n * sizeof(T));
      for (size_t i = spec.n; i < kLanes; ++i) few[i] = x[0];  // |u| of another number might be too large
      ending.store(made(few, 0), held);
      std::memcpy(y, held, spec.n * sizeof(Y));
      return;
    }
    size_t i = 0;
    for (; i + kPairs <= spec.n; i += kPairs) ending.store(made(x + i, i), made(x + i + kLanes, i + kLanes), y + i);
    for (; i < spec.n; i += kLanes) {
      const size_t at = i + kLanes <= spec.n ? i : spec.n - kLanes;  // the last ones overlap those before
      ending.store(made(x + at, at), y + at);
    }
  }
};

}  // namespace mulshift

#endif
