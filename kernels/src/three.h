// Depthwise 3x3 windows straight from the image, sixteen channels a Step: nothing is laid out in memory first.
//
// A column of the image, four rows of it, becomes sixteen groups of bytes: x of rows (0, 2, 1, 3) of one channel. One
// step multiplies a group by four weights and adds. A window takes three steps, one a kernel column. Two windows below
// each other share their columns: the upper one multiplies row 3 by 0, the lower one row 0. Outer rows are neighbours,
// because two weights that meet in 16 bits should be small, and the middle one of a kernel is not. A Step may put another
// row in the place of row 3, for lines of windows by themselves.
//
// Ranges    sums are below 2^20: any s8 weights.
#ifndef MULSHIFT_SRC_THREE_H
#define MULSHIFT_SRC_THREE_H

#include "direct.h"

namespace mulshift {

constexpr size_t kThreeBytes = 3 * 2 * 64;  // of prepared weights of sixteen channels

// Step: Column lay(a, b, c, d), a column's rows 0 to 3, and lay(a, b, c), the first three and what stands for row 3; Sum
// sum<I>(a, b, c, w), the products of three columns by weights of [kernel column][64] from I * 64 on, 128 apart; two(a, b, c,
// d, e, f, w, sums), two such sums with I = 0, of a, b, c and of d, e, f; and what SumsInOrder has.

// Of sixteen channels: [kernel column][upper, lower window][channel(0 to 15)][rows 0, 2, 1, 3].
template <class Channel>
inline void arrange_three(const int8_t* w, size_t stride, int8_t* out, const Channel& channel) {
  for (size_t kx = 0; kx < 3; ++kx) {
    for (size_t lower = 0; lower < 2; ++lower) {
      for (size_t ch = 0; ch < kPanel; ++ch) {
        constexpr size_t order[4] = {0, 2, 1, 3};
        for (size_t i = 0; i < 4; ++i) {
          const size_t ky = order[i] - lower;  // wraps: no row of the kernel
          *out++ = ky < 3 ? w[(3 * ky + kx) * stride + channel(ch)] : int8_t{0};
        }
      }
    }
  }
}
inline void arrange_three(const int8_t* w, size_t stride, int8_t* out) {
  arrange_three(w, stride, out, [](size_t ch) { return ch; });
}

// What a line of windows reads, or two lines. `at`: where the first row is, which may be above the image: all wraps.
struct ThreeRows {
  const DirectRow a, b, c, d;

  ThreeRows(const DirectInput& in, size_t row, size_t at, size_t pitch)
      : a(in, row, at), b(in, row + 1, at + pitch), c(in, row + 2, at + 2 * pitch), d(in, row + 3, at + 3 * pitch) {}
};

// The columns of a line, by turns.
template <class Step, bool TWO>
class ThreeColumns {
 public:
  using Column = typename Step::Column;

  ThreeColumns(const DirectInput& in, const ThreeRows& rows)
      : a_(rows.a), b_(rows.b), c_(rows.c), d_(rows.d), x_(in.column), w_(in.w),
        outside_(lay(in.outside, in.outside, in.outside, in.outside)) {}

  __attribute__((always_inline)) Column next() {
    if (__builtin_expect(static_cast<size_t>(x_++) >= w_, 0)) return outside_;  // wraps left of the image
    const Column column = lay(a_.x, b_.x, c_.x, d_.x);
    a_.x += a_.step;
    b_.x += b_.step;
    c_.x += c_.step;
    if (TWO) d_.x += d_.step;
    return column;
  }

 private:
  static Column lay(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d) {
    if constexpr (TWO) return Step::lay(a, b, c, d);
    return Step::lay(a, b, c);
  }

  DirectRow a_, b_, c_, d_;
  ptrdiff_t x_;
  const size_t w_;
  const Column outside_;
};

// A line of windows: two neighbours share what is read of weights. Or two lines, a window of each at a time. Columns change
// their roles by the order in which a loop names them, not their registers.
template <class Step, size_t STRIDE, bool TWO, class T, class Put>
class ThreeLine {
 public:
  using Column = typename Step::Column;
  using Sum = typename Step::Sum;

  __attribute__((always_inline)) ThreeLine(const ThreeColumns<Step, TWO>& columns, const int8_t* w, T* to, size_t step,
                                           size_t below, const Put& put)
      : columns_(columns), w_(w), to_(to), step_(step), below_(below), put_(put) {}

  __attribute__((always_inline)) void run(size_t count) {
    Column a = next(), b = TWO || STRIDE == 1 ? next() : a;
    if constexpr (TWO) {
      for (; count >= 3; count -= 3) {
        const Column c = next();
        both(a, b, c);
        a = next();
        both(b, c, a);
        b = next();
        both(c, a, b);
      }
      for (; count; --count) {
        const Column c = next();
        both(a, b, c);
        a = b;
        b = c;
      }
      return;
    }
    for (; count >= 4; count -= 4) {
      if (STRIDE == 1) {
        const Column c = next(), d = next();
        two(a, b, c, b, c, d);
        a = next();
        b = next();
        two(c, d, a, d, a, b);
      } else {
        b = next();
        const Column c = next(), d = next(), e = next();
        two(a, b, c, c, d, e);
        const Column f = next(), g = next(), h = next();
        a = next();
        two(e, f, g, g, h, a);
      }
    }
    if (count >= 2) {
      if (STRIDE == 2) b = next();
      const Column c = next(), d = next(), e = STRIDE == 2 ? next() : d;
      STRIDE == 1 ? two(a, b, c, b, c, d) : two(a, b, c, c, d, e);
      a = STRIDE == 1 ? c : e;
      b = d;
    }
    if (count % 2 == 0) return;
    if (STRIDE == 2) b = next();
    put_(Step::template sum<0>(a, b, next(), w_), to_);
  }

 private:
  __attribute__((always_inline)) Column next() { return columns_.next(); }
  __attribute__((always_inline)) void both(const Column& a, const Column& b, const Column& c) {
    const Sum upper = Step::template sum<0>(a, b, c, w_), lower = Step::template sum<1>(a, b, c, w_);
    put_(upper, lower, to_, to_ + below_);
    to_ += step_;
  }
  __attribute__((always_inline)) void two(const Column& a, const Column& b, const Column& c, const Column& d,
                                          const Column& e, const Column& f) {
    Sum sums[2];
    Step::two(a, b, c, d, e, f, w_, sums);
    put_(sums[0], sums[1], to_, to_ + step_);
    to_ += 2 * step_;
  }

  ThreeColumns<Step, TWO> columns_;
  const int8_t* w_;
  T* to_;
  const size_t step_, below_;
  Put put_;
};

// Weights of a Step are kThreeBytes behind those of the one before.
template <class... Steps>
struct Three : DirectRuns<Three<Steps...>, Steps...> {
  template <size_t STRIDE, bool TWO, class T, class... Puts>
  __attribute__((always_inline)) static void run(const DirectInput& from, const int8_t* w, const DirectOutput& out, T* to,
                                                 size_t step, const Puts&... puts) {
    constexpr size_t kLines = TWO ? 2 : 1;
    const DirectInput in = from;  // a copy: what is stored may be anything of the caller's
    const size_t count = out.count, below = count * step, pitch = in.w * in.step, next = kLines * in.down;
    size_t row = static_cast<size_t>(in.row), at = row * pitch;
    for (size_t left = out.lines; left; left -= kLines, row += next, at += next * pitch, to += kLines * below) {
      const ThreeRows rows(in, row, at, pitch);
      const int8_t* own = w;
      ((ThreeLine<Steps, STRIDE, TWO, T, Puts>({in, rows}, own, to, step, below, puts).run(count), own += kThreeBytes), ...);
    }
  }
};

}  // namespace mulshift

#endif
