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

// Both sides of an Add share the shift. Way::high: left shifts are of t and r less their zero points.
struct AddStage {
  Type r_type;
  int32_t t_zero_point, r_zero_point, t_multiplier, r_multiplier, shift;
  Way way;
  int32_t left;
  Output out;
};

struct TableStage {
  Type type;
  const void* entries;
};

struct AgainStage {
  int32_t x_zero_point;
  Ratio ratio;
  Output out;
};

// How the first stage of a panel of sixteen columns is computed.
struct PanelWay {
  Way way;
  int32_t left;
};

// What a node knows from its creation on. Arrays hold one entry a column, padded to whole panels; b and shift as the way
// of their panel wants them.
struct Stages {
  const int32_t *bias, *b, *shift;
  const PanelWay* ways;  // one a panel
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
    for (size_t i = 0; i < columns; i += kPanel) {
      const size_t column = first_column + i, count = columns - i < kPanel ? columns - i : kPanel;
      const Block block = {acc + i, acc_stride, rows, first_row * e.stride + column, count};
      if (s.first.type == Type::none) {
        copy(e, block);
        continue;
      }
      const PanelWay way = s.ways[column / kPanel];
      const V b = V::load(s.b + column), shift = V::load(s.shift + column);
      switch (way.way) {
        case Way::low:
          scaled(e, block, Scaling<V, Way::low>(b, shift, 0));
          break;
        case Way::high:
          scaled(e, block, Scaling<V, Way::high>(b, shift, way.left));
          break;
        case Way::any:
          const Clamp<V> clamp(s.first);
          staged(e, block, [&](V x) { return rescale_wide(x, b, shift, clamp); });
      }
    }
  }

 private:
  // Rows of one panel; `at` is the first output element.
  struct Block {
    const int32_t* acc;
    size_t stride, rows, at, count;
  };

  static void copy(const Epilogue& e, const Block& block) {
    for (size_t r = 0; r < block.rows; ++r) {
      put(V::load(block.acc + r * block.stride), Type::s32, e.y, block.at + r * e.stride, block.count);
    }
  }

  template <class S>
  static void scaled(const Epilogue& e, const Block& block, const S& scaling) {
    const Stages& s = *e.stages;
    if (s.first.type == Type::u8 && !s.add && !s.table && !s.again && block.count == kPanel) {
      const typename V::Bytes clamp(s.first.zero_point, s.first.low, s.first.high);
      uint8_t* y = static_cast<uint8_t*>(e.y) + block.at;
      for (size_t r = 0; r < block.rows; ++r) {
        clamp.store(scaling(V::load(block.acc + r * block.stride)), y + r * e.stride);
      }
      return;
    }
    const Clamp<V> clamp(s.first);
    staged(e, block, [&](V x) { return clamp(scaling(x)); });
  }

  // first: accumulators to t. Each combination of the later stages has its own loop.
  template <class F>
  static void staged(const Epilogue& e, const Block& block, const F& first) {
    const Stages& s = *e.stages;
    if (!s.add) return with_table(e, block, [&](V x, size_t) { return first(x); });
    const AddStage& a = *s.add;
    const V tz = V::set1(a.t_zero_point), rz = V::set1(a.r_zero_point), bt = V::set1(a.t_multiplier),
            br = V::set1(a.r_multiplier), shift = V::set1(a.shift);
    const Clamp<V> clamp(a.out);
    const auto r = [&](size_t at) { return get(a.r_type, e.r, at, block.count) - rz; };
    if (a.way == Way::any) {
      return with_table(e, block, [&](V x, size_t at) {
        const typename V::Wide sum = V::add(V::multiply(first(x) - tz, bt), V::multiply(r(at), br));
        return V::round_shift(sum, shift, clamp.low_less_zero, clamp.high_less_zero) + clamp.zero_point;
      });
    }
    const V half = V::power(shift - V::set1(1));
    if (a.way == Way::low) {
      return with_table(e, block, [&](V x, size_t at) {
        return clamp(((first(x) - tz) * bt + r(at) * br + half).shift_right(shift));
      });
    }
    with_table(e, block, [&](V x, size_t at) {
      const V high = V::high((first(x) - tz).shift_left(a.left), bt, r(at).shift_left(a.left), br);
      return clamp((high + half).shift_right(shift));
    });
  }

  template <class F>
  static void with_table(const Epilogue& e, const Block& block, const F& f) {
    const Stages& s = *e.stages;
    if (!s.table) return with_again(e, block, f);
    with_again(e, block, [&](V x, size_t at) { return look_up(*s.table, f(x, at)); });
  }

  template <class F>
  static void with_again(const Epilogue& e, const Block& block, const F& f) {
    const Stages& s = *e.stages;
    const Type type = type_of_y(s);
    if (!s.again) return each_row(e, block, [&](V x, size_t at) { put(f(x, at), type, e.y, at, block.count); });
    const AgainStage& a = *s.again;
    const V zero_point = V::set1(a.x_zero_point), b = V::set1(a.ratio.b), shift = V::set1(a.ratio.shift);
    const Clamp<V> clamp(a.out);
    const auto both = [&](V y, V q, size_t at) {
      put(y, type, e.y, at, block.count);
      put(q, a.out.type, e.q, at, block.count);
    };
    if (a.ratio.way == Way::any) {
      return each_row(e, block, [&](V x, size_t at) {
        const V y = f(x, at);
        both(y, rescale_wide(y - zero_point, b, shift, clamp), at);
      });
    }
    if (a.ratio.way == Way::low) {
      const Scaling<V, Way::low> scaling(b, shift, 0);
      return each_row(e, block, [&](V x, size_t at) {
        const V y = f(x, at);
        both(y, clamp(scaling(y - zero_point)), at);
      });
    }
    const Scaling<V, Way::high> scaling(b, shift, a.ratio.left);
    each_row(e, block, [&](V x, size_t at) {
      const V y = f(x, at);
      both(y, clamp(scaling(y - zero_point)), at);
    });
  }

  template <class F>
  static void each_row(const Epilogue& e, const Block& block, const F& f) {
    for (size_t r = 0; r < block.rows; ++r) f(V::load(block.acc + r * block.stride), block.at + r * e.stride);
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
