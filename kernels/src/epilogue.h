// What follows an accumulator, in one pass: requantization, and the stages that a fused node adds.
//
//   t = clamp((acc * b + 2^(c-1)) >> c) + z                 per column; acc holds the bias already
//   y = Add(t, r)                                           if `sum` is set: elementwise.py, one rounding
//   y = table[y]                                            if `table` is set: 256 entries by the bits of y
//   q = Requantize(y)                                       if `again` is set: a second output
//
// Rounding   half up, once a stage. Every stage clamps as its plain operator does, so fusing changes no bit.
// Ranges     as in requantize.h; |acc| < 2^31 is proven when the node is made.
#ifndef MULSHIFT_SRC_EPILOGUE_H
#define MULSHIFT_SRC_EPILOGUE_H

#include <cstddef>
#include <cstdint>

#include "dense.h"
#include "rescale.h"
#include "tensor.h"

namespace mulshift {

struct AddStage {
  Type r_type;
  int32_t t_zero_point, r_zero_point, t_multiplier, r_multiplier, shift;
  bool narrow;
  Output out;
};

struct TableStage {
  Type type;
  const void* entries;
};

struct AgainStage {
  int32_t x_zero_point, b, c;
  bool narrow;
  Output out;
};

// What a node knows from its creation on. Arrays hold one entry a column, padded to whole panels with 0 (c with 2).
struct Stages {
  const int32_t *bias, *b, *c;
  const uint8_t* narrow;  // one flag a panel of sixteen columns: 32-bit arithmetic holds the whole first stage
  Output first;           // Type::none: y is acc itself
  const AddStage* add = nullptr;
  const TableStage* table = nullptr;
  const AgainStage* again = nullptr;
};

inline Type type_of_y(const Stages& s) {
  if (s.table) return s.table->type;
  if (s.add) return s.add->out.type;
  return s.first.type == Type::none ? Type::s32 : s.first.type;
}

// One call: outputs and the residual are [rows][stride] of their element types.
struct Epilogue {
  const Stages* stages;
  void* y;
  const void* r;
  void* q;
  size_t stride;
};

template <class V>
struct Finish {
  // acc: s32 [rows][acc_stride], columns first_column.. of rows first_row.. of the outputs; columns start at a panel.
  static void run(const Epilogue& e, const int32_t* acc, size_t acc_stride, size_t rows, size_t first_row,
                  size_t first_column, size_t columns) {
    const Stages& s = *e.stages;
    const bool plain = s.first.type == Type::u8 && !s.add && !s.table && !s.again;
    for (size_t i = 0; i < columns; i += kPanel) {
      const size_t column = first_column + i, count = columns - i < kPanel ? columns - i : kPanel;
      const size_t at = first_row * e.stride + column;
      if (plain && s.narrow[column / kPanel] && count == kPanel) {
        simple(s, acc + i, acc_stride, rows, column, static_cast<uint8_t*>(e.y) + at, e.stride);
      } else {
        general(e, acc + i, acc_stride, rows, column, at, count);
      }
    }
  }

 private:
  static void simple(const Stages& s, const int32_t* acc, size_t acc_stride, size_t rows, size_t column, uint8_t* y,
                     size_t stride) {
    const V b = V::load(s.b + column), c = V::load(s.c + column);
    const V half = V::power(c - V::set1(1));
    const typename V::Bytes clamp(s.first.zero_point, s.first.low, s.first.high);
    for (size_t r = 0; r < rows; ++r, acc += acc_stride, y += stride) {
      clamp.store((V::load(acc) * b + half).shift_right(c), y);
    }
  }

  static void general(const Epilogue& e, const int32_t* acc, size_t acc_stride, size_t rows, size_t column, size_t at,
                      size_t count) {
    const Stages& s = *e.stages;
    if (s.first.type == Type::none) {
      for (size_t r = 0; r < rows; ++r, acc += acc_stride, at += e.stride) {
        put(V::load(acc), Type::s32, e.y, at, count);
      }
      return;
    }
    const bool narrow = s.narrow[column / kPanel] != 0;
    const V b = V::load(s.b + column), c = V::load(s.c + column);
    const V half = V::power((c - V::set1(1)).min(V::set1(30)));
    const Clamp<V> clamp(s.first);
    for (size_t r = 0; r < rows; ++r, acc += acc_stride, at += e.stride) {
      const V x = V::load(acc);
      V y = narrow ? rescale_narrow(x, b, c, half, clamp) : rescale_wide(x, b, c, clamp);
      Type type = s.first.type;
      if (s.add) {
        y = add(*s.add, y, get(s.add->r_type, e.r, at, count));
        type = s.add->out.type;
      }
      if (s.table) {
        y = look_up(*s.table, y);
        type = s.table->type;
      }
      put(y, type, e.y, at, count);
      if (s.again) put(rescale(*s.again, y), s.again->out.type, e.q, at, count);
    }
  }

  static V add(const AddStage& s, V t, V r) {
    const V x = t - V::set1(s.t_zero_point), z = r - V::set1(s.r_zero_point);
    const V bt = V::set1(s.t_multiplier), br = V::set1(s.r_multiplier), c = V::set1(s.shift);
    const Clamp<V> clamp(s.out);
    if (s.narrow) {
      const V sum = x * bt + z * br + V::set1(int32_t{1} << (s.shift - 1));
      return (sum.shift_right(c) + clamp.zero_point).max(clamp.low).min(clamp.high);
    }
    const typename V::Wide sum = V::add(V::multiply(x, bt), V::multiply(z, br));
    return V::round_shift(sum, c, clamp.low_less_zero, clamp.high_less_zero) + clamp.zero_point;
  }

  static V rescale(const AgainStage& s, V y) {
    const V x = y - V::set1(s.x_zero_point), b = V::set1(s.b), c = V::set1(s.c);
    const Clamp<V> clamp(s.out);
    if (s.narrow) return rescale_narrow(x, b, c, V::set1(int32_t{1} << (s.c - 1)), clamp);
    return rescale_wide(x, b, c, clamp);
  }

  static V look_up(const TableStage& s, V y) {
    int32_t index[kPanel], entry[kPanel];
    y.store(index);
    for (size_t i = 0; i < kPanel; ++i) {
      const uint8_t at = static_cast<uint8_t>(index[i]);
      switch (s.type) {
        case Type::u8:
          entry[i] = static_cast<const uint8_t*>(s.entries)[at];
          break;
        case Type::s8:
          entry[i] = static_cast<const int8_t*>(s.entries)[at];
          break;
        default:
          entry[i] = static_cast<const int16_t*>(s.entries)[at];
      }
    }
    return V::load(entry);
  }

  template <class T>
  static V get(const void* from, size_t at, size_t count) {
    const T* p = static_cast<const T*>(from) + at;
    if (count == kPanel) return V::load(p);
    T held[kPanel] = {};
    for (size_t i = 0; i < count; ++i) held[i] = p[i];
    return V::load(held);
  }

  static V get(Type type, const void* from, size_t at, size_t count) {
    switch (type) {
      case Type::u8:
        return get<uint8_t>(from, at, count);
      case Type::s8:
        return get<int8_t>(from, at, count);
      default:
        return get<int16_t>(from, at, count);
    }
  }

  template <class T>
  static void put(V y, void* to, size_t at, size_t count) {
    T* p = static_cast<T*>(to) + at;
    if (count == kPanel) return y.store(p);
    T held[kPanel];
    y.store(held);
    for (size_t i = 0; i < count; ++i) p[i] = held[i];
  }

  static void put(V y, Type type, void* to, size_t at, size_t count) {
    switch (type) {
      case Type::u8:
        return put<uint8_t>(y, to, at, count);
      case Type::s8:
        return put<int8_t>(y, to, at, count);
      case Type::s16:
        return put<int16_t>(y, to, at, count);
      default:
        return put<int32_t>(y, to, at, count);
    }
  }
};

}  // namespace mulshift

#endif
