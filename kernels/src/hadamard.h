// Hadamard of one group of g elements: y = x H, requantized. ir/operators/hadamard.py has its meaning.
//
//   H = S_slices (x) B, S the Sylvester matrix, B [columns, columns] of 1 and -1
//   acc[a] = sum over b of (x[a][b] - zx) * B[b]                             for each slice a: products of pairs of s16
//   acc[a], acc[a + d] = acc[a] + acc[a + d], acc[a] - acc[a + d]            d = 1, 2, 4, ... slices / 2, bit d of a 0
//   y = clamp(((acc * b + 2^(c-1)) >> c) + z)
//
// Rounding   half up, once.
// Ranges     x: u8, s8, s16; slices a power of two; columns from 16 on, or slices = 1.
// Overflow   every sum of centred x is one of at most g terms, and g * |x - zx| < 2^31 is proven when the node is made.
//            zx lies in `start`: the sums in between are of at most columns terms of |x| and |zx|, so at most 2^16 * 2^12.
// ratio      of rescale.h for g * |x - zx|; z is an element of the type of y, 0 for s32.
// Layouts    x, y: g elements [slices][columns]; base: [(columns + 1) / 2][stride][2], rows of B two by two, zeros beyond;
//            start: [stride], -zx * (sum of a column of B); words: g + 16 of s16; acc: [slices][stride]; stride: columns
//            rounded up to 16.
#ifndef MULSHIFT_SRC_HADAMARD_H
#define MULSHIFT_SRC_HADAMARD_H

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "rescale.h"
#include "tensor.h"

namespace mulshift {

constexpr size_t kMaxBase = 4096;  // columns of B

struct HadamardSpec {
  Type x_type;
  Ratio ratio;
  Output out;
  size_t slices, columns, stride;
  const int16_t* base;
  const int32_t* start;
};

struct HadamardKernels {
  void (*group)(const HadamardSpec& spec, const void* x, int16_t* words, int32_t* acc, void* y);
};

template <class V>
class Hadamard {
 public:
  static void group(const HadamardSpec& spec, const void* x, int16_t* words, int32_t* acc, void* y) {
    widen(spec, x, words);
    multiply(spec, words, acc);
    butterflies(spec, acc);
    switch (spec.out.type) {
      case Type::u8:
        return finish(spec, acc, static_cast<uint8_t*>(y));
      case Type::s8:
        return finish(spec, acc, static_cast<int8_t*>(y));
      case Type::s16:
        return finish(spec, acc, static_cast<int16_t*>(y));
      default:
        return finish(spec, acc, static_cast<int32_t*>(y));
    }
  }

 private:
  static constexpr size_t kLanes = V::lanes;

  static void widen(const HadamardSpec& spec, const void* x, int16_t* words) {
    const size_t n = spec.slices * spec.columns;
    words[n] = 0;  // the partner of the last one of an odd number; its weight is 0
    switch (spec.x_type) {
      case Type::u8:
        return widen(static_cast<const uint8_t*>(x), n, words);
      case Type::s8:
        return widen(static_cast<const int8_t*>(x), n, words);
      default:
        std::memcpy(words, x, n * sizeof(int16_t));
    }
  }
  template <class X>
  static void widen(const X* x, size_t n, int16_t* words) {
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) V::load(x + i).store(words + i);
    for (; i < n; ++i) words[i] = x[i];
  }

  static void multiply(const HadamardSpec& spec, const int16_t* words, int32_t* acc) {
    const size_t pairs = (spec.columns + 1) / 2;
    for (size_t a = 0; a < spec.slices; ++a) {
      const int16_t* x = words + a * spec.columns;
      for (size_t first = 0; first < spec.stride; first += kLanes) {
        V sum = V::load(spec.start + first);
        const int16_t* base = spec.base + 2 * first;
        for (size_t k = 0; k < pairs; ++k) sum = V::multiply_pair(sum, x + 2 * k, base + 2 * k * spec.stride);
        sum.store(acc + a * spec.stride + first);
      }
    }
  }

  static void butterflies(const HadamardSpec& spec, int32_t* acc) {
    const size_t end = spec.slices * spec.stride;
    size_t d = spec.stride;
    for (; 2 * d < end; d *= 4) {  // two rounds at once
      for (size_t first = 0; first < end; first += 4 * d) {
        for (size_t i = first; i < first + d; i += kLanes) {
          int32_t *p0 = acc + i, *p1 = p0 + d, *p2 = p1 + d, *p3 = p2 + d;
          const V x0 = V::load(p0), x1 = V::load(p1), x2 = V::load(p2), x3 = V::load(p3);
          const V a0 = x0 + x1, a1 = x0 - x1, a2 = x2 + x3, a3 = x2 - x3;
          (a0 + a2).store(p0);
          (a1 + a3).store(p1);
          (a0 - a2).store(p2);
          (a1 - a3).store(p3);
        }
      }
    }
    if (d >= end) return;
    for (size_t i = 0; i < d; i += kLanes) {
      const V x0 = V::load(acc + i), x1 = V::load(acc + d + i);
      (x0 + x1).store(acc + i);
      (x0 - x1).store(acc + d + i);
    }
  }

  template <class Y>
  static void finish(const HadamardSpec& spec, const int32_t* acc, Y* y) {
    const V b = V::set1(spec.ratio.b), c = V::set1(spec.ratio.shift);
    const Clamp<V> clamp(spec.out);
    if (spec.ratio.way == Way::low) {
      const Scaling<V, Way::low> scale(b, c, 0);
      return put(spec, acc, y, [&](V v) { return clamp(scale(v)); });
    }
    if (spec.ratio.way == Way::high) {
      const Scaling<V, Way::high> scale(b, c, spec.ratio.left);
      return put(spec, acc, y, [&](V v) { return clamp(scale(v)); });
    }
    put(spec, acc, y, [&](V v) { return rescale_wide(v, b, c, clamp); });
  }

  template <class Y, class F>
  static void put(const HadamardSpec& spec, const int32_t* acc, Y* y, const F& rescaled) {
    const size_t n = spec.columns;
    if (n < kLanes) {
      Y made[kLanes];
      rescaled(V::load(acc)).store(made);
      std::memcpy(y, made, n * sizeof(Y));
      return;
    }
    for (size_t a = 0; a < spec.slices; ++a, acc += spec.stride, y += n) {
      size_t i = 0;
      for (; i + kLanes <= n; i += kLanes) rescaled(V::load(acc + i)).store(y + i);
      if (i == n) continue;
      i = n - kLanes;  // overlap the lanes before
      rescaled(V::load(acc + i)).store(y + i);
    }
  }
};

}  // namespace mulshift

#endif
