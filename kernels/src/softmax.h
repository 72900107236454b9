// Powers of two of scores below the greatest of their row: what Softmax and Attention share (ir/operators/exp2.py).
//
//   d = max - x, t = min((d * b + 2^(c-1)) >> c, end), i = t >> 12, f = t & 4095
//   p = 65536 - ((f * (45341 - ((f * (15200 - ((f * 2632) >> 12))) >> 12))) >> 12)      2^16 * 2^(-f / 4096)
//   weights    e = ((255 * p >> i) + 2^15) >> 16        0 to 255: 255 * 2^(-t / 4096), half up; 0 from t = 9 << 12 on
//   powers     e = (p << 7) >> i                        0 to 2^23; 0 from t = 24 << 12 on
//
// Overflow   f < 2^12 and coefficients below 2^16: products below 2^28; 255 * p and p << 7 are at most 2^24. A d beyond
//            `reach`, the least whose t is at the end, gives the same t: it is lowered to that, which makes room for 32 bits.
#ifndef MULSHIFT_SRC_SOFTMAX_H
#define MULSHIFT_SRC_SOFTMAX_H

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "dense.h"
#include "reciprocal.h"
#include "rescale.h"
#include "tensor.h"

namespace mulshift {

constexpr int32_t kMasked = -(1 << 30);  // below every score that is attended

// At t = 9 << 12 weights are 0 already, at 24 << 12 powers: up to here, 31 octaves, t need not stop at the end.
constexpr int32_t kMostT = 31 << 12;

// How t comes from d.
struct Exponent {
  Ratio ratio;
  int32_t reach = 0, end = 0;

  Exponent() = default;
  Exponent(int32_t b, int32_t c, int32_t octaves) : reach(INT32_MAX), end(octaves << 12) {
    if (b && c <= 46) {  // else t stays below 2^16
      const int64_t half = int64_t{1} << (c - 1), wanted = (int64_t{end} << c) - half, d = (wanted + b - 1) / b;
      if (d < INT32_MAX) reach = static_cast<int32_t>(d);
    }
    ratio = find_ratio(reach, b, c);
    if ((int64_t{reach} * b >> c) >= kMostT - 1) ratio = {Way::any, 0, b, c};
  }
};

// Rows of sums over keys: y = clamp(((acc - z * total) * b + 2^(c-1)) >> c), b and c of multiplier / 2^shift / max(total, 1).
struct Division {
  int32_t zero_point;  // z
  int32_t multiplier, shift;
  int64_t most;  // |acc - z * total| is at most that many times the total
  Output out;
};

struct SoftmaxKernels {
  // The weights of n > 0 keys as elements of a product's rows, and their sum. scores: s32 [n]; mask: [n], 0 where a key is
  // masked, or null. Up to the next multiple of 16, scores may be read and weights of 0 are written.
  int32_t (*weights)(const Exponent& exponent, const int32_t* scores, const uint8_t* mask, size_t n, Held held, void* a);
  // Powers of n > 0 elements x in Q23, and their sum. e: s32, room up to the next multiple of 16.
  uint64_t (*powers)(const Exponent& exponent, const void* x, Type type, size_t n, int32_t* e);
  // y = clamp(((x - less) * b + 2^(c-1)) >> c): n elements; x may be read up to the next multiple of 16.
  void (*scale)(const int32_t* x, int32_t less, const Ratio& ratio, const Output& out, size_t n, void* y);
  // n elements of each row; those of acc may be read up to the next multiple of 16. y_stride: in bytes.
  void (*divide)(const Division& division, const int32_t* acc, size_t acc_stride, const int32_t* totals, size_t rows, size_t n,
                 void* y, size_t y_stride);
};

template <class V>
class Softmax {
 public:
  static int32_t weights(const Exponent& exponent, const int32_t* scores, const uint8_t* mask, size_t n, Held held,
                         void* a) {
    switch (held) {
      case Held::raw:
        return weights_as<0>(exponent, scores, mask, n, static_cast<uint8_t*>(a));
      case Held::centred:
        return weights_as<0>(exponent, scores, mask, n, static_cast<int16_t*>(a));
      default:
        return weights_as<128>(exponent, scores, mask, n, static_cast<int8_t*>(a));
    }
  }

  static uint64_t powers(const Exponent& exponent, const void* x, Type type, size_t n, int32_t* e) {
    switch (type) {
      case Type::u8:
        return powers_of(exponent, static_cast<const uint8_t*>(x), n, e);
      case Type::s8:
        return powers_of(exponent, static_cast<const int8_t*>(x), n, e);
      case Type::s16:
        return powers_of(exponent, static_cast<const int16_t*>(x), n, e);
      default:
        return powers_of(exponent, static_cast<const int32_t*>(x), n, e);
    }
  }

  static void divide(const Division& division, const int32_t* acc, size_t acc_stride, const int32_t* totals, size_t rows,
                     size_t n, void* y, size_t y_stride) {
    switch (division.out.type) {
      case Type::u8:
        return divide_to<uint8_t>(division, acc, acc_stride, totals, rows, n, y, y_stride);
      case Type::s8:
        return divide_to<int8_t>(division, acc, acc_stride, totals, rows, n, y, y_stride);
      default:
        return divide_to<int16_t>(division, acc, acc_stride, totals, rows, n, y, y_stride);
    }
  }

  static void scale(const int32_t* x, int32_t less, const Ratio& ratio, const Output& out, size_t n, void* y) {
    switch (ratio.way) {
      case Way::low:
        return put<Rescaled<Way::low>>(x, less, ratio, out, n, y);
      case Way::high:
        return put<Rescaled<Way::high>>(x, less, ratio, out, n, y);
      default:
        return put<WideRescaled>(x, less, ratio, out, n, y);
    }
  }

 private:
  static constexpr size_t kLanes = V::lanes;

  // 2^16 * 2^(-f / 4096), and the octave i. (f * x) >> 12 is ((f << 4) * x) >> 16, and f << 4 is t << 4 modulo 2^16.
  struct Power {
    V p, i;
    explicit Power(V t) : i(t.shift_right(V::set1(12))) {
      const V f = t.shift_left(4);
      const V p3 = V::set1(15200) - V::high16(f, V::set1(2632));
      const V p2 = V::set1(45341) - V::high16(f, p3);
      p = V::set1(65536) - V::high16(f, p2);
    }
  };

  // t of scores below the greatest one.
  template <Way WAY>
  struct Times {
    V top, floor;
    Scaling<V, WAY> scaling;

    Times(const Exponent& x, int32_t greatest)
        : top(V::set1(greatest)),
          floor(lowest(x, greatest)),
          scaling(V::set1(x.ratio.b), V::set1(x.ratio.shift), x.ratio.left) {}
    V operator()(V x) const { return scaling(top - x.max(floor)); }
  };
  struct WideTimes {
    V top, floor, b, c, zero, end;

    WideTimes(const Exponent& x, int32_t greatest)
        : top(V::set1(greatest)),
          floor(lowest(x, greatest)),
          b(V::set1(x.ratio.b)),
          c(V::set1(x.ratio.shift)),
          zero(V::set1(0)),
          end(V::set1(x.end)) {}
    V operator()(V x) const { return V::round_shift(V::multiply(top - x.max(floor), b), c, zero, end); }
  };

  // The score of which t is at the end.
  static V lowest(const Exponent& x, int32_t greatest) {
    const int64_t found = int64_t{greatest} - x.reach;
    return V::set1(found < INT32_MIN ? INT32_MIN : static_cast<int32_t>(found));
  }

  // Which of the sixteen keys from i on are attended, as 0 and 1.
  static V attended(const uint8_t* mask, size_t i, size_t n) {
    if (mask && n - i >= kLanes) return V::load(mask + i).min(V::set1(1));
    uint8_t flags[kLanes];
    for (size_t k = 0; k < kLanes; ++k) flags[k] = i + k < n && (!mask || mask[i + k]);
    return V::load(flags);
  }
  // kMasked where not attended.
  static V limited(V score, V flags) { return score.min((flags + flags - V::set1(1)).shift_left(30)); }

  static V weight(V t) {
    const Power power(t);
    const V most = power.p.shift_left(8) - power.p;
    return (most.shift_right(power.i) + V::set1(1 << 15)).shift_right(V::set1(16));
  }

  template <int32_t LESS, class T>
  static void put_less(V e, T* a) {
    LESS ? (e - V::set1(LESS)).store(a) : e.store(a);
  }

  // a holds weights less LESS.
  template <int32_t LESS, class T>
  static int32_t weights_as(const Exponent& exponent, const int32_t* scores, const uint8_t* mask, size_t n, T* a) {
    const void* first = mask ? std::memchr(mask, 0, n) : nullptr;  // that is masked
    const size_t plain = (first ? static_cast<size_t>(static_cast<const uint8_t*>(first) - mask) : n) / kLanes * kLanes;
    V most = V::set1(kMasked);
    for (size_t i = 0; i < plain; i += kLanes) most = most.max(V::load(scores + i));
    for (size_t i = plain; i < n; i += kLanes) most = most.max(limited(V::load(scores + i), attended(mask, i, n)));
    const int32_t top = most.greatest();
    if (top == kMasked) {
      for (size_t i = 0; i < n; i += kLanes) V::set1(-LESS).store(a + i);
      return 0;
    }
    switch (exponent.ratio.way) {
      case Way::low:
        return weigh<Times<Way::low>, LESS>(exponent, top, scores, mask, plain, n, a);
      case Way::high:
        return weigh<Times<Way::high>, LESS>(exponent, top, scores, mask, plain, n, a);
      default:
        return weigh<WideTimes, LESS>(exponent, top, scores, mask, plain, n, a);
    }
  }

  // The first `plain` keys are attended.
  template <class Exponents, int32_t LESS, class T>
  static int32_t weigh(const Exponent& exponent, int32_t top, const int32_t* scores, const uint8_t* mask, size_t plain,
                       size_t n, T* a) {
    const Exponents t_of(exponent, top);
    V sum = V::set1(0);
    for (size_t i = 0; i < plain; i += kLanes) {
      const V e = weight(t_of(V::load(scores + i)));
      sum = sum + e;
      put_less<LESS>(e, a + i);
    }
    for (size_t i = plain; i < n; i += kLanes) {
      const V flags = attended(mask, i, n);
      const V e = weight(t_of(V::load(scores + i).min(t_of.top))).min(flags.shift_left(8) - flags);
      sum = sum + e;
      put_less<LESS>(e, a + i);
    }
    return sum.sum();
  }

  // The sixteen elements from i on; behind the n-th, the first one.
  template <class T>
  static V elements(const T* x, size_t i, size_t n) {
    if (n - i >= kLanes) return V::load(x + i);
    T held[kLanes];
    for (size_t k = 0; k < kLanes; ++k) held[k] = x[i + k < n ? i + k : 0];
    return V::load(held);
  }

  template <class T>
  static uint64_t powers_of(const Exponent& exponent, const T* x, size_t n, int32_t* e) {
    V most = elements(x, 0, n);
    for (size_t i = kLanes; i < n; i += kLanes) most = most.max(elements(x, i, n));
    switch (exponent.ratio.way) {
      case Way::low:
        return raise<Times<Way::low>>(exponent, most.greatest(), x, n, e);
      case Way::high:
        return raise<Times<Way::high>>(exponent, most.greatest(), x, n, e);
      default:
        return raise<WideTimes>(exponent, most.greatest(), x, n, e);
    }
  }

  template <class Exponents, class T>
  static uint64_t raise(const Exponent& exponent, int32_t top, const T* x, size_t n, int32_t* e) {
    constexpr size_t kAtOnce = 15 * kLanes;  // 240 * 2^23 fits int32
    const Exponents t_of(exponent, top);
    uint64_t total = 0;
    for (size_t first = 0; first < n; first += kAtOnce) {
      const size_t last = first + kAtOnce < n ? first + kAtOnce : n;
      V sum = V::set1(0);
      for (size_t i = first; i < last; i += kLanes) {
        const Power power(t_of(elements(x, i, n)));
        V q23 = power.p.shift_left(7).shift_right(power.i);
        if (n - i < kLanes) q23 = q23.min(attended(nullptr, i, n).shift_left(23));
        q23.store(e + i);
        sum = sum + q23;
      }
      total += static_cast<uint64_t>(sum.sum());
    }
    return total;
  }

  // (x - less) * b / 2^c, clamped.
  template <Way WAY>
  struct Rescaled {
    V less;
    Scaling<V, WAY> scaling;
    Clamp<V> clamp;

    Rescaled(int32_t minus, const Ratio& ratio, const Output& out)
        : less(V::set1(minus)), scaling(V::set1(ratio.b), V::set1(ratio.shift), ratio.left), clamp(out) {}
    V operator()(V x) const { return clamp(scaling(x - less)); }
  };
  struct WideRescaled {
    V less, b, shift;
    Clamp<V> clamp;

    WideRescaled(int32_t minus, const Ratio& ratio, const Output& out)
        : less(V::set1(minus)), b(V::set1(ratio.b)), shift(V::set1(ratio.shift)), clamp(out) {}
    V operator()(V x) const { return rescale_wide(x - less, b, shift, clamp); }
  };

  template <class T>
  static void divide_to(const Division& d, const int32_t* acc, size_t acc_stride, const int32_t* totals, size_t rows, size_t n,
                        void* y, size_t y_stride) {
    char* to = static_cast<char*>(y);
    const Clamp<V> clamp(d.out);
    for (size_t r = 0; r < rows; ++r, acc += acc_stride, to += y_stride) {
      const int32_t total = totals[r], less = d.zero_point * total;
      const RowDyadic row = row_dyadic(static_cast<uint64_t>(total ? total : 1), d.multiplier, d.shift);
      const Ratio ratio = find_ratio(total * d.most, row.b, row.c);
      if (ratio.way != Way::high) {
        scale(acc, less, ratio, d.out, n, to);
        continue;
      }
      const Scaling<V, Way::high> scaling(V::set1(ratio.b), V::set1(ratio.shift), ratio.left);
      put_row([&](V x) { return clamp(scaling(x - V::set1(less))); }, acc, n, reinterpret_cast<T*>(to));
    }
  }

  template <class F>
  static void put(const int32_t* x, int32_t less, const Ratio& ratio, const Output& out, size_t n, void* y) {
    switch (out.type) {
      case Type::u8:
        return put_as<F>(x, less, ratio, out, n, static_cast<uint8_t*>(y));
      case Type::s8:
        return put_as<F>(x, less, ratio, out, n, static_cast<int8_t*>(y));
      case Type::s16:
        return put_as<F>(x, less, ratio, out, n, static_cast<int16_t*>(y));
      default:
        return put_as<F>(x, less, ratio, out, n, static_cast<int32_t*>(y));
    }
  }
  template <class F, class T>
  static void put_as(const int32_t* x, int32_t less, const Ratio& ratio, const Output& out, size_t n, T* y) {
    put_row(F(less, ratio, out), x, n, y);
  }

  template <class F, class T>
  __attribute__((always_inline)) static void put_row(const F& f, const int32_t* x, size_t n, T* y) {
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) f(V::load(x + i)).store(y + i);
    if (i == n) return;
    T held[kLanes];
    f(V::load(x + i)).store(held);
    for (size_t k = 0; i + k < n; ++k) y[i + k] = held[k];
  }
};

}  // namespace mulshift

#endif
