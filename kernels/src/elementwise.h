// Elementwise operators: one rounding, on sixteen lanes at a time. ir/operators/ has their meaning.
//
//   Requantize  y = clamp((((x - zx) * b + 2^(c-1)) >> c) + z)
//   Add         y = clamp((((x - zx) * bx + (y - zy) * by + 2^(c-1)) >> c) + z)
//   Mul         acc = (x - zx) * (y - zy), then as Requantize with zx = 0
//   Affine      acc = (x - zx) * w + bias, then the same
//
// Rounding   half up, once.
// Ranges     x, y: u8, s8, s16, or s32 for Requantize; |x - zx| and acc fit int32; b (of Add: |bx|, |by|), c as in
//            requantize.h.
// way        of rescale.h, for every element; `left`, b and c are what it takes. Way::low and Way::high need |z| < 2^30.
// Layouts    Rows: every operand row-major or repeated, y row-major.
#ifndef MULSHIFT_SRC_ELEMENTWISE_H
#define MULSHIFT_SRC_ELEMENTWISE_H

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "broadcast.h"
#include "rescale.h"
#include "tensor.h"

namespace mulshift {

// Operands: x, b, c.
struct RequantizeSpec {
  Type x_type;
  int32_t x_zero_point;
  Way way;
  int32_t left;
  Output out;
};

// Operands: x, y.
struct AddSpec {
  Type x_type, y_type;
  int32_t x_zero_point, y_zero_point, x_multiplier, y_multiplier, shift;
  Way way;
  int32_t left;
  Output out;
};

// Operands: x, y.
struct MulSpec {
  Type x_type, y_type;
  int32_t x_zero_point, y_zero_point, multiplier, shift;
  Way way;
  int32_t left;
  Output out;
};

// Operands: x, w, bias, b, c.
struct AffineSpec {
  Type x_type;
  int32_t x_zero_point;
  Way way;
  int32_t left;
  Output out;
};

// What Affine is where w is one 2^k and bias and zx are 0: y = clamp(((x * b + 2^(c-1)) >> c) + z), 17 <= c <= 46, of s16,
// with 32-bit products. b = high * 2^16 + low, and 2^(c-1) has no bits below 2^16:
//
//   (x * b + 2^(c-1)) >> c = (x * high + ((x * low) >> 16) + half) >> shift       shift = c - 16, half = 2^(shift-1)
//
// Operands: x, high, low, half, shift. |x * low| < 2^31; |x * high| + 2^15 + half < 2^31.
struct ScaleSpec {
  static constexpr Way way = Way::low;  // in 32 bits
  Output out;
};

// These four numbers of b / 2^c, `step` apart; false where c leaves none.
inline bool put_scale(int32_t b, int32_t c, int32_t* to, size_t step) {
  if (c < 17 || c > 46) return false;
  to[0] = b >> 16;
  to[step] = b & 0xffff;
  to[2 * step] = 1 << (c - 17);
  to[3 * step] = c - 16;
  return true;
}

struct ElementwiseKernels {
  void (*requantize)(const RequantizeSpec& spec, const Rows& rows);
  void (*add)(const AddSpec& spec, const Rows& rows);
  void (*mul)(const MulSpec& spec, const Rows& rows);
  void (*affine)(const AffineSpec& spec, const Rows& rows);
  void (*scale)(const ScaleSpec& spec, const Rows& rows);
};

// The same in 64-bit scalars, for every legal zero point and clamp.
extern const ElementwiseKernels exact_elementwise;

// Whether the kernels of an instruction set can do it: Way::any needs both ends of the clamp less z to fit int32.
inline bool fits_lanes(Way way, const Output& out) {
  const int64_t low = int64_t{out.low} - out.zero_point, high = int64_t{out.high} - out.zero_point;
  return way != Way::any || (low >= INT32_MIN && high <= INT32_MAX);
}

template <class V>
class Elementwise {
 public:
  static void requantize(const RequantizeSpec& spec, const Rows& rows) {
    const V zx = V::set1(spec.x_zero_point);
    const auto centred = [=](V x) { return x - zx; };
    const Any x(rows, 0, spec.x_type);
    if (rows.varies[1] || rows.varies[2]) return scaled(spec, rows, centred, Words(rows, 1), Words(rows, 2), x);
    const Once b(rows, 1), c(rows, 2);
    if (spec.x_type == Type::u8) return scaled(spec, rows, centred, b, c, Bytes(rows, 0));
    scaled(spec, rows, centred, b, c, x);
  }

  static void add(const AddSpec& spec, const Rows& rows) {
    if (spec.x_type == Type::u8 && spec.y_type == Type::u8) return add(spec, rows, Bytes(rows, 0), Bytes(rows, 1));
    add(spec, rows, Any(rows, 0, spec.x_type), Any(rows, 1, spec.y_type));
  }

  static void mul(const MulSpec& spec, const Rows& rows) {
    const V zx = V::set1(spec.x_zero_point), zy = V::set1(spec.y_zero_point);
    const auto product = [=](V x, V y) { return (x - zx) * (y - zy); };
    const Once b(&spec.multiplier), c(&spec.shift);
    if (spec.x_type == Type::u8 && spec.y_type == Type::u8) {
      return scaled(spec, rows, product, b, c, Bytes(rows, 0), Bytes(rows, 1));
    }
    scaled(spec, rows, product, b, c, Any(rows, 0, spec.x_type), Any(rows, 1, spec.y_type));
  }

  static void affine(const AffineSpec& spec, const Rows& rows) {
    const V zx = V::set1(spec.x_zero_point);
    const auto acc = [=](V x, V w, V bias) { return (x - zx) * w + bias; };
    const Any x(rows, 0, spec.x_type);
    scaled(spec, rows, acc, Words(rows, 3), Words(rows, 4), x, Words(rows, 1), Words(rows, 2));
  }

  static void scale(const ScaleSpec& spec, const Rows& rows) {
    const V sixteen = V::set1(16);
    const auto f = [=](V high, V low, V half, V shift, V x) __attribute__((always_inline)) {
      return (x * high + (x * low).shift_right(sixteen) + half).shift_right(shift);
    };
    bool by_columns = rows.n >= kLanes && rows.varies[0] && spec.out.type == Type::u8;
    for (size_t i = 1; i < 5; ++i) by_columns = by_columns && rows.varies[i] && !rows.row_stride[i];
    if (by_columns) return scale_columns(f, spec, rows);
    rounded(rows, spec.out, f, Words(rows, 1), Words(rows, 2), Words(rows, 3), Words(rows, 4), Typed<int16_t>(rows, 0));
  }

 private:
  static constexpr size_t kLanes = V::lanes;

  // Two rows at a time: each column has its own numbers.
  template <class F>
  static void scale_columns(const F& f, const ScaleSpec& spec, const Rows& rows) {
    const typename V::Bytes clamp(spec.out.zero_point, spec.out.low, spec.out.high);
    const auto numbers = [&](size_t i) { return static_cast<const int32_t*>(rows.data[i]); };
    const int32_t *high = numbers(1), *low = numbers(2), *half = numbers(3), *shift = numbers(4);
    const size_t n = rows.n, stride = rows.row_stride[0];
    const int16_t* x = static_cast<const int16_t*>(rows.data[0]);
    uint8_t* y = static_cast<uint8_t*>(rows.y);
    for (size_t r = 0; r < rows.rows; r += 2) {
      const size_t next = r + 1 < rows.rows;  // else the same row twice
      const int16_t *x0 = x + r * stride, *x1 = x0 + next * stride;
      uint8_t *y0 = y + r * n, *y1 = y0 + next * n;
      const auto some = [=](size_t i) __attribute__((always_inline)) {
        const V h = V::load(high + i), l = V::load(low + i), a = V::load(half + i), c = V::load(shift + i);
        clamp.store(f(h, l, a, c, V::load(x0 + i)), f(h, l, a, c, V::load(x1 + i)), y0 + i, y1 + i);
      };
      for (size_t i = 0; i + kLanes < n; i += kLanes) some(i);
      some(n - kLanes);
    }
  }

  // An operand: sixteen lanes from element i of the current row on. One that is repeated along the row has its element
  // sixteen times in `held`; a row shorter than sixteen is copied there.
  template <class T>
  class Typed {
   public:
    Typed(const Rows& rows, size_t operand)
        : row_(static_cast<const T*>(rows.data[operand])),
          stride_(rows.row_stride[operand]),
          n_(rows.n),
          varies_(rows.varies[operand]) {}

    void start(size_t row) {
      const T* p = row_ + row * stride_;
      at_ = p;
      step_ = 1;
      if (varies_ && n_ >= kLanes) return;
      for (size_t i = 0; i < kLanes; ++i) held_[i] = p[varies_ ? (i < n_ ? i : 0) : 0];
      at_ = held_;
      step_ = varies_ ? 1 : 0;
    }
    V get(size_t i) const { return V::load(at_ + i * step_); }

   private:
    const T* row_;
    size_t stride_, n_;
    bool varies_;
    const T* at_ = nullptr;
    size_t step_ = 1;
    T held_[kLanes];
  };
  using Bytes = Typed<uint8_t>;
  using Words = Typed<int32_t>;

  // An s32 operand that is repeated along the row.
  class Once {
   public:
    Once(const Rows& rows, size_t operand)
        : row_(static_cast<const int32_t*>(rows.data[operand])), stride_(rows.row_stride[operand]) {}
    explicit Once(const int32_t* number) : row_(number), stride_(0) {}
    void start(size_t row) { lanes_ = V::set1(row_[row * stride_]); }
    V get(size_t) const { return lanes_; }

   private:
    const int32_t* row_;
    size_t stride_;
    V lanes_ = V::set1(0);
  };

  // The same as Typed, of a type known at run time.
  class Any {
   public:
    Any(const Rows& rows, size_t operand, Type type)
        : type_(type), u8_(rows, operand), s8_(rows, operand), s16_(rows, operand), s32_(rows, operand) {}

    void start(size_t row) {
      switch (type_) {
        case Type::u8:
          return u8_.start(row);
        case Type::s8:
          return s8_.start(row);
        case Type::s16:
          return s16_.start(row);
        default:
          return s32_.start(row);
      }
    }
    V get(size_t i) const {
      switch (type_) {
        case Type::u8:
          return u8_.get(i);
        case Type::s8:
          return s8_.get(i);
        case Type::s16:
          return s16_.get(i);
        default:
          return s32_.get(i);
      }
    }

   private:
    Type type_;
    Typed<uint8_t> u8_;
    Typed<int8_t> s8_;
    Typed<int16_t> s16_;
    Typed<int32_t> s32_;
  };

  // Where sixteen lanes go: element i of a row of y. Rows shorter than sixteen are made in `held`.
  class ToAny {
   public:
    ToAny(const Rows& rows, Type type)
        : type_(type), size_(size_of_element(type)), y_(static_cast<char*>(rows.y)), n_(rows.n) {}
    void start(size_t row) { at_ = n_ < kLanes ? held_ : y_ + row * n_ * size_; }
    // The lanes are in the range of the type.
    void put(size_t i, V v) {
      switch (type_) {
        case Type::u8:
          return v.store(reinterpret_cast<uint8_t*>(at_) + i);
        case Type::s8:
          return v.store(reinterpret_cast<int8_t*>(at_) + i);
        case Type::s16:
          return v.store(reinterpret_cast<int16_t*>(at_) + i);
        default:
          return v.store(reinterpret_cast<int32_t*>(at_) + i);
      }
    }
    void finish(size_t row) const {
      if (n_ < kLanes) std::memcpy(y_ + row * n_ * size_, held_, n_ * size_);
    }

   private:
    Type type_;
    size_t size_;
    char* y_;
    size_t n_;
    char* at_ = nullptr;
    alignas(int32_t) char held_[kLanes * sizeof(int32_t)];
  };

  // The same for bytes whose lanes have yet to get the zero point and the clamp.
  class ToBytes {
   public:
    ToBytes(const Rows& rows, const Output& out)
        : y_(static_cast<uint8_t*>(rows.y)), n_(rows.n), clamp_(out.zero_point, out.low, out.high) {}
    void start(size_t row) { at_ = n_ < kLanes ? held_ : y_ + row * n_; }
    void put(size_t i, V v) { clamp_.store(v, at_ + i); }
    void finish(size_t row) const {
      if (n_ < kLanes) std::memcpy(y_ + row * n_, held_, n_);
    }

   private:
    uint8_t* y_;
    size_t n_;
    typename V::Bytes clamp_;
    uint8_t* at_ = nullptr;
    uint8_t held_[kLanes];
  };

  static size_t size_of_element(Type type) { return type == Type::s32 ? 4 : type == Type::s16 ? 2 : 1; }

  // y = requantized acc(operands...), by b and c.
  template <class Spec, class F, class B, class... In>
  static void scaled(const Spec& spec, const Rows& rows, const F& acc, B b, B c, In... in) {
    const int32_t left = spec.left;
    if (spec.way == Way::low) {
      const auto f = [&](V bi, V ci, auto... x) { return Scaling<V, Way::low>(bi, ci, 0)(acc(x...)); };
      return rounded(rows, spec.out, f, b, c, in...);
    }
    if (spec.way == Way::high) {
      const auto f = [&](V bi, V ci, auto... x) { return Scaling<V, Way::high>(bi, ci, left)(acc(x...)); };
      return rounded(rows, spec.out, f, b, c, in...);
    }
    const Clamp<V> clamp(spec.out);
    const auto f = [&](V bi, V ci, auto... x) { return rescale_wide(acc(x...), bi, ci, clamp); };
    clamped(rows, spec.out.type, f, b, c, in...);
  }

  template <class X, class Y>
  static void add(const AddSpec& spec, const Rows& rows, X x, Y y) {
    const V zx = V::set1(spec.x_zero_point), zy = V::set1(spec.y_zero_point);
    const V bx = V::set1(spec.x_multiplier), by = V::set1(spec.y_multiplier), c = V::set1(spec.shift);
    if (spec.way == Way::any) {
      const Clamp<V> clamp(spec.out);
      const auto f = [&](V xi, V yi) {
        const typename V::Wide sum = V::add(V::multiply(xi - zx, bx), V::multiply(yi - zy, by));
        return V::round_shift(sum, c, clamp.low_less_zero, clamp.high_less_zero) + clamp.zero_point;
      };
      return clamped(rows, spec.out.type, f, x, y);
    }
    const V half = V::power(c - V::set1(1));
    const int32_t left = spec.left;
    if (spec.way == Way::low) {
      const auto f = [&](V xi, V yi) { return ((xi - zx) * bx + (yi - zy) * by + half).shift_right(c); };
      return rounded(rows, spec.out, f, x, y);
    }
    const auto f = [&](V xi, V yi) {
      return (V::high((xi - zx).shift_left(left), bx, (yi - zy).shift_left(left), by) + half).shift_right(c);
    };
    rounded(rows, spec.out, f, x, y);
  }

  // y = clamp(f(operands...) + z).
  template <class F, class... In>
  static void rounded(const Rows& rows, const Output& out, const F& f, In... in) {
    if (out.type == Type::u8) return map(rows, ToBytes(rows, out), f, in...);
    const Clamp<V> clamp(out);
    clamped(rows, out.type, [&](auto... x) { return clamp(f(x...)); }, in...);
  }

  // y = f(operands...), which is in the range of its type.
  template <class F, class... In>
  static void clamped(const Rows& rows, Type type, const F& f, In... in) {
    map(rows, ToAny(rows, type), f, in...);
  }

  // y = f(operands...) along every row. The last sixteen lanes of a row overlap those before: y is no operand.
  template <class Out, class F, class... In>
  static void map(const Rows& rows, Out out, const F& f, In... in) {
    const size_t last = rows.n < kLanes ? 0 : rows.n - kLanes;
    for (size_t r = 0; r < rows.rows; ++r) {
      (in.start(r), ...);
      out.start(r);
      for (size_t i = 0; i < last; i += kLanes) out.put(i, f(in.get(i)...));
      out.put(last, f(in.get(last)...));
      out.finish(r);
    }
  }
};

}  // namespace mulshift

#endif
