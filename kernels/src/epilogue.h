// What follows an accumulator, in one pass: requantization, and the stages that a fused node adds.
//
//   t = clamp((acc * b + 2^(c-1)) >> c) + z                 per column; acc holds the bias already; c - k by rows, k >= 0
//   y = Add(t, r)                                           if `sum` is set: elementwise.py, one rounding
//   y = table[y]                                            if `table` is set: 256 entries by the bits of y
//   y = Requantize(y), per column                           if `rescale` is set: behind a table of words
//   q = Requantize(y)                                       if `again` is set: a second output
//
// Rounding   half up, once a stage. Every stage clamps as its plain operator does, so fusing changes no bit.
// Ranges     as in requantize.h; |acc| < 2^31 is proven when the node is made.
#ifndef MULSHIFT_SRC_EPILOGUE_H
#define MULSHIFT_SRC_EPILOGUE_H

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "dense.h"
#include "ratios.h"
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
  PairRatio pairs;  // of 16-bit numbers without zero points
};

// The ways of an Add whose multipliers and shift are its operator's, for t and r that are that far from their zero points.
inline void find_ways(int64_t most_t, int64_t most_r, AddStage* s) {
  const bool words = s->r_type == Type::s16 && s->out.type == Type::s16;
  if (words && !s->t_zero_point && !s->r_zero_point && !s->out.zero_point) {
    s->pairs = find_pair_ratio(most_t, s->t_multiplier, most_r, s->r_multiplier, s->shift);
  }
  const SumRatio ratio = find_sum_ratio(most_t, s->t_multiplier, most_r, s->r_multiplier, s->shift);
  s->way = ratio.way;
  s->left = ratio.left;
  s->t_multiplier = ratio.b1;
  s->r_multiplier = ratio.b2;
  s->shift = ratio.shift;
}

struct TableStage {
  Type type;
  const void* entries;
};

// Arrays as those of Stages; scale: what Elementwise::scale takes as high, low, half and shift, null if it does not.
struct RescaleStage {
  int32_t x_zero_point;
  const int32_t *b, *c;
  const int32_t* scale[4];
  Output out;
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
  int32_t least = 0;  // of the shifts
};

// What a node knows from its creation on. Arrays hold one entry a column, padded to whole panels; b and shift as the way
// of their panel wants them.
struct Stages {
  const int32_t *bias, *b, *shift;
  const PanelWay* ways;  // one a panel
  Output first;           // Type::none: y is acc itself
  bool by_rows = false;   // whether each row takes its own k off the shifts
  const AddStage* add = nullptr;
  const TableStage* table = nullptr;
  const RescaleStage* rescale = nullptr;
  const AgainStage* again = nullptr;
};

inline Type type_of_y(const Stages& s) {
  if (s.rescale) return s.rescale->out.type;
  if (s.table) return s.table->type;
  if (s.add) return s.add->out.type;
  return s.first.type == Type::none ? Type::s32 : s.first.type;
}

// The same from a column on, which is the first of a panel.
inline Stages from_column(const Stages& stages, size_t column) {
  Stages s = stages;
  s.bias += column;
  s.b += column;
  s.shift += column;
  s.ways += column / kPanel;
  return s;
}

inline RescaleStage from_column(const RescaleStage& stage, size_t column) {
  RescaleStage s = stage;
  s.b += column;
  s.c += column;
  for (const int32_t*& numbers : s.scale) numbers = numbers ? numbers + column : nullptr;
  return s;
}

// Whether a table of bytes is all that follows a first stage of bytes: it can be looked up where they are stored.
inline bool ends_in_byte_table(const Stages& s) {
  return s.table && size_of(s.table->type) == 1 && s.first.type == Type::u8 && !s.add && !s.again;
}

// The same for words: it is looked up from bytes that are stored elsewhere. They may be scaled.
inline bool ends_in_word_table(const Stages& s) {
  if (s.rescale && !s.rescale->scale[0]) return false;
  return s.table && s.table->type == Type::s16 && s.first.type == Type::u8 && !s.add && !s.again;
}

// Whether signed bytes are all there is: u8 less 128, which is one bit of each.
inline bool ends_in_signed_bytes(const Stages& s) { return s.first.type == Type::s8 && !s.add && !s.table && !s.again; }

// Whether the first stage is all there is, gives u8, and fits 32 bits: what the ..._to_bytes kernels do at once. They store
// whole panels.
inline bool is_plain(const Stages& s, size_t columns) {
  if (columns % kPanel || s.first.type != Type::u8 || s.by_rows || s.add || s.table || s.again) return false;
  for (size_t i = 0; i < columns / kPanel; ++i) {
    if (s.ways[i].way == Way::any) return false;
  }
  return true;
}

// Whether all there is are the first stage and a sum of 16-bit numbers, and both fit 32 bits.
inline bool adds_words(const Stages& s, const PanelWay& way) {
  return s.add && s.add->pairs.fits && way.way != Way::any && !s.by_rows && !s.table && !s.again;
}

// What becomes of the sums of a panel: more than the ..._to_bytes kernels do, or bytes: by Way::low where they may be all of
// u8 with zero point 0, so that saturation is the clamp, by Way::low, by Way::high.
enum End { kEndElsewhere, kEndFull, kEndLow, kEndHigh, kEnds };

// Of the first panel.
inline End end_of(const Stages& s) {
  if (!is_plain(s, kPanel)) return kEndElsewhere;
  if (s.ways->way == Way::high) return kEndHigh;
  return s.first.zero_point == 0 && s.first.low == 0 && s.first.high == 255 ? kEndFull : kEndLow;
}

// The first `count` columns of a panel.
template <class T>
inline void copy_columns(T* to, const T* from, size_t count) {
  for (size_t some = kPanel / 2; some; some /= 2) {
    if (!(count & some)) continue;
    std::memcpy(to, from, some * sizeof(T));
    to += some;
    from += some;
  }
}

// One call: outputs and the residual are [rows][stride] of their element types.
struct Epilogue {
  const Stages* stages;
  void* y;
  const void* r;
  void* q;
  size_t stride;
  const int32_t* k = nullptr;  // of each row, where stages are by rows
};

// A stage is a loop over the rows of one panel, held as lanes between the stages.
template <class V>
struct Finish {
  // acc: s32 [rows][acc_stride], columns first_column.. of rows first_row.. of the outputs; columns start at a panel.
  static void run(const Epilogue& e, const int32_t* acc, size_t acc_stride, size_t rows, size_t first_row,
                  size_t first_column, size_t columns) {
    const Stages& s = *e.stages;
    const bool plain = s.first.type == Type::u8 && !s.by_rows && !s.add && !s.table && !s.again;
    for (size_t i = 0; i < columns; i += kPanel) {
      const size_t column = first_column + i, count = columns - i < kPanel ? columns - i : kPanel;
      for (size_t r = 0; r < rows; r += kRows) {
        const Block block = {rows - r < kRows ? rows - r : kRows, (first_row + r) * e.stride + column, count, e.stride};
        const int32_t* from = acc + r * acc_stride + i;
        if (plain && count == kPanel && s.ways[column / kPanel].way != Way::any) {
          to_bytes(s, from, acc_stride, column, static_cast<uint8_t*>(e.y), block);
        } else if (count == kPanel && adds_words(s, s.ways[column / kPanel])) {
          add_words(e, from, acc_stride, column, block);
        } else {
          all(e, from, acc_stride, column, block, s.by_rows ? e.k + first_row + r : nullptr);
        }
      }
    }
  }

 private:
  static constexpr size_t kRows = 32;

  // Rows of one panel: `at` is the first output element, `stride` from row to row, `count` columns are stored.
  struct Block {
    size_t rows, at, count, stride;
  };

  static void to_bytes(const Stages& s, const int32_t* acc, size_t acc_stride, size_t column, uint8_t* y,
                       const Block& block) {
    const typename V::Bytes clamp(s.first.zero_point, s.first.low, s.first.high);
    const PanelWay way = s.ways[column / kPanel];
    const V b = V::load(s.b + column), shift = V::load(s.shift + column);
    const auto each = [=](const auto scaling) {  // copies: what is stored may be anything of the caller's
      const int32_t* from = acc;
      uint8_t* to = y + block.at;
      size_t r = 0;
      for (; r + 2 <= block.rows; r += 2, from += 2 * acc_stride, to += 2 * block.stride) {
        clamp.store(scaling(V::load(from)), scaling(V::load(from + acc_stride)), to, to + block.stride);
      }
      if (r < block.rows) clamp.store(scaling(V::load(from)), to);
    };
    way.way == Way::low ? each(Scaling<V, Way::low>(b, shift, 0)) : each(Scaling<V, Way::high>(b, shift, way.left));
  }

  // t * bt + r * br of lanes of two, rounded.
  struct PairSum {
    V high, low, half, shift;

    explicit PairSum(const PairRatio& p)
        : high(both(p.high1, p.high2)), low(both(p.low1, p.low2)), half(V::set1(1 << (p.shift - 1))), shift(V::set1(p.shift)) {}
    V operator()(V x) const {
      return (V::multiply_pairs(x, high) + V::multiply_pairs(x, low).shift_right(V::set1(16)) + half).shift_right(shift);
    }

   private:
    static V both(int32_t t, int32_t r) {
      return V::set1(static_cast<int32_t>((static_cast<uint32_t>(t) & 0xffff) | static_cast<uint32_t>(r) << 16));
    }
  };

  static void add_words(const Epilogue& e, const int32_t* acc, size_t acc_stride, size_t column, const Block& block) {
    using Words = typename V::Words;
    const Stages& s = *e.stages;
    const PanelWay way = s.ways[column / kPanel];
    const V b = Words::load(s.b + column), shift = Words::load(s.shift + column);
    const Words first(s.first.low, s.first.high), last(s.add->out.low, s.add->out.high);
    const PairSum sum(s.add->pairs);
    const auto each = [=](const auto scaling) {  // copies: what is stored may be anything of the caller's
      const int32_t* from = acc;
      const int16_t* r = static_cast<const int16_t*>(e.r) + block.at;
      int16_t* to = static_cast<int16_t*>(e.y) + block.at;
      for (size_t i = 0; i < block.rows; ++i, from += acc_stride, r += block.stride, to += block.stride) {
        last.store(sum(first.pair(scaling(Words::load(from)), r)), to);
      }
    };
    way.way == Way::low ? each(Scaling<V, Way::low>(b, shift, 0)) : each(Scaling<V, Way::high>(b, shift, way.left));
  }

  // k: of the block's rows, null where they have none.
  static void all(const Epilogue& e, const int32_t* acc, size_t acc_stride, size_t column, const Block& block,
                  const int32_t* k) {
    const Stages& s = *e.stages;
    V t[kRows];
    if (s.first.type == Type::none) {
      for (size_t r = 0; r < block.rows; ++r) t[r] = V::load(acc + r * acc_stride);
    } else {
      const PanelWay way = s.ways[column / kPanel];
      const V b = V::load(s.b + column), shift = V::load(s.shift + column);
      const auto sums = [&](size_t r) { return V::load(acc + r * acc_stride); };
      if (k) {
        for (size_t r = 0; r < block.rows; ++r) t[r] = scale_row(way, b, shift, k[r], s.first, sums(r));
      } else {
        scale(way.way, way.left, b, shift, s.first, sums, t, block.rows);
      }
    }
    if (s.add) add(*s.add, e.r, t, block);
    if (s.table) {
      for (size_t r = 0; r < block.rows; ++r) t[r] = look_up(*s.table, t[r]);
    }
    if (s.rescale) rescale(from_column(*s.rescale, column), t, block.rows);
    put(type_of_y(s), t, e.y, block);
    if (!s.again) return;
    const Ratio& ratio = s.again->ratio;
    const V zero_point = V::set1(s.again->x_zero_point);
    const auto centred = [&](size_t r) { return t[r] - zero_point; };
    scale(ratio.way, ratio.left, V::set1(ratio.b), V::set1(ratio.shift), s.again->out, centred, t, block.rows);
    put(s.again->out.type, t, e.q, block);
  }

  static void rescale(const RescaleStage& s, V* t, size_t rows) {
    const V zero_point = V::set1(s.x_zero_point), b = V::load(s.b), c = V::load(s.c);
    const Clamp<V> clamp(s.out);
    for (size_t r = 0; r < rows; ++r) t[r] = rescale_wide(t[r] - zero_point, b, c, clamp);
  }

  // t[r] = clamp(x(r) * b / 2^c)
  template <class X>
  static void scale(Way way, int32_t left, V b, V shift, const Output& out, const X& x, V* t, size_t rows) {
    const Clamp<V> clamp(out);
    if (way == Way::any) {
      for (size_t r = 0; r < rows; ++r) t[r] = rescale_wide(x(r), b, shift, clamp);
    } else if (way == Way::low) {
      const Scaling<V, Way::low> scaling(b, shift, 0);
      for (size_t r = 0; r < rows; ++r) t[r] = clamp(scaling(x(r)));
    } else {
      const Scaling<V, Way::high> scaling(b, shift, left);
      for (size_t r = 0; r < rows; ++r) t[r] = clamp(scaling(x(r)));
    }
  }

  // clamp(x * b / 2^(c-k)). Way::high leaves no shift below 1; its b and c are those of Way::any, shifted up.
  static V scale_row(const PanelWay& way, V b, V shift, int32_t k, const Output& out, V x) {
    const Clamp<V> clamp(out);
    if (way.way == Way::low) return clamp(Scaling<V, Way::low>(b, shift - V::set1(k), 0)(x));
    if (way.way == Way::high && k < way.least) return clamp(Scaling<V, Way::high>(b, shift - V::set1(k), way.left)(x));
    const int32_t up = way.way == Way::high ? 32 - way.left : 0;
    return rescale_wide(x, b, shift + V::set1(up - k), clamp);
  }

  static void add(const AddStage& s, const void* from, V* t, const Block& block) {
    if (block.count < kPanel) {
      V r[kRows];
      get(s.r_type, from, r, block);
      return add(s, t, block.rows, [&](size_t i) { return r[i]; });
    }
    switch (s.r_type) {
      case Type::u8:
        return add(s, t, block.rows, whole<uint8_t>(from, block));
      case Type::s8:
        return add(s, t, block.rows, whole<int8_t>(from, block));
      default:
        return add(s, t, block.rows, whole<int16_t>(from, block));
    }
  }

  // r(i): the i-th row of a whole panel.
  template <class T>
  static auto whole(const void* from, const Block& block) {
    const T* p = static_cast<const T*>(from) + block.at;
    return [p, stride = block.stride](size_t i) { return V::load(p + i * stride); };
  }

  template <class R>
  static void add(const AddStage& s, V* t, size_t rows, const R& r) {
    const V tz = V::set1(s.t_zero_point), rz = V::set1(s.r_zero_point), bt = V::set1(s.t_multiplier),
            br = V::set1(s.r_multiplier), shift = V::set1(s.shift);
    const Clamp<V> clamp(s.out);
    if (s.way == Way::any) {
      for (size_t i = 0; i < rows; ++i) {
        const typename V::Wide sum = V::add(V::multiply(t[i] - tz, bt), V::multiply(r(i) - rz, br));
        t[i] = V::round_shift(sum, shift, clamp.low_less_zero, clamp.high_less_zero) + clamp.zero_point;
      }
      return;
    }
    const V half = V::power(shift - V::set1(1));
    if (s.way == Way::low) {
      for (size_t i = 0; i < rows; ++i) {
        t[i] = clamp(((t[i] - tz) * bt + (r(i) - rz) * br + half).shift_right(shift));
      }
      return;
    }
    for (size_t i = 0; i < rows; ++i) {
      const V high = V::high((t[i] - tz).shift_left(s.left), bt, (r(i) - rz).shift_left(s.left), br);
      t[i] = clamp((high + half).shift_right(shift));
    }
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
  static void get(const void* from, V* t, const Block& block) {
    const T* p = static_cast<const T*>(from) + block.at;
    for (size_t r = 0; r < block.rows; ++r, p += block.stride) {
      if (block.count == kPanel) {
        t[r] = V::load(p);
        continue;
      }
      // Rows follow each other: what is read behind one is of the next, but for the last.
      const bool is_inside = (block.rows - 1 - r) * block.stride + block.count >= kPanel;
      if (is_inside) {
        t[r] = V::load(p);
        continue;
      }
      T held[kPanel] = {};
      copy_columns(held, p, block.count);
      t[r] = V::load(held);
    }
  }

  static void get(Type type, const void* from, V* t, const Block& block) {
    switch (type) {
      case Type::u8:
        return get<uint8_t>(from, t, block);
      case Type::s8:
        return get<int8_t>(from, t, block);
      default:
        return get<int16_t>(from, t, block);
    }
  }

  template <class T>
  static void put(const V* t, void* to, const Block& block) {
    T* p = static_cast<T*>(to) + block.at;
    for (size_t r = 0; r < block.rows; ++r, p += block.stride) {
      if (block.count == kPanel) {
        t[r].store(p);
        continue;
      }
      T held[kPanel];
      t[r].store(held);
      copy_columns(p, held, block.count);
    }
  }

  static void put(Type type, const V* t, void* to, const Block& block) {
    switch (type) {
      case Type::u8:
        return put<uint8_t>(t, to, block);
      case Type::s8:
        return put<int8_t>(t, to, block);
      case Type::s16:
        return put<int16_t>(t, to, block);
      default:
        return put<int32_t>(t, to, block);
    }
  }
};

}  // namespace mulshift

#endif
