// Depthwise 3x3 windows, sixteen channels, straight from the image: nothing is laid out in memory first.
//
// A column of the image, four rows of it, becomes sixteen groups of bytes: x of rows (0, 2, 1, 3) of one channel. One
// step multiplies a group by four weights and adds. A window takes three steps, one a kernel column. Two windows below
// each other share their columns: the upper one multiplies row 3 by 0, the lower one row 0. Outer rows are neighbours,
// because two weights that meet in 16 bits should be small, and the middle one of a kernel is not.
//
// Ranges    sums are below 2^20: any s8 weights.
#ifndef MULSHIFT_SRC_THREE_H
#define MULSHIFT_SRC_THREE_H

#include "direct.h"

namespace mulshift {

constexpr size_t kThreeBytes = 2 * 3 * 2 * 64;  // of prepared weights of sixteen channels

// Step: Column lay(a, b, c, d), a column's rows 0 to 3, or the first three, and anything; Sum sum<I>(a, b, c, w), the
// products of three columns by weights of [kernel column][64] from I * 64 on, 128 apart; two(a, b, c, d, e, f, w, sums), two
// such sums with I = 0, of a, b, c and of d, e, f; and what SumsInOrder has.

template <class Step>
struct Three : DirectRuns<Three<Step>, Step> {
  // Of one panel: [kernel column][upper, lower window][16 channels][rows 0, 2, 1, 3].
  static void arrange(const int8_t* w, size_t stride, int8_t* out) {
    for (size_t kx = 0; kx < 3; ++kx) {
      for (size_t lower = 0; lower < 2; ++lower) {
        for (size_t ch = 0; ch < kPanel; ++ch) {
          constexpr size_t order[4] = {0, 2, 1, 3};
          for (size_t i = 0; i < 4; ++i) {
            const size_t ky = order[i] - lower;  // wraps: no row of the kernel
            *out++ = ky < 3 ? w[(3 * ky + kx) * stride + ch] : int8_t{0};
          }
        }
      }
    }
  }

  template <size_t STRIDE, bool TWO, class T, class Put>
  __attribute__((always_inline)) static void run(const DirectInput& in, const int8_t* w, const DirectOutput& out, T* to,
                                                 size_t step, const Put& put) {
    constexpr size_t kLines = TWO ? 2 : 1;
    const size_t below = out.count * step;
    ptrdiff_t row = in.row;
    for (size_t line = 0; line < out.lines; line += kLines, row += static_cast<ptrdiff_t>(kLines * in.down)) {
      const DirectRow rows[] = {{in, row}, {in, row + 1}, {in, row + 2}, {in, row + 3}};
      bool alike = true;
      for (size_t i = 1; i < 3 + TWO; ++i) alike = alike && rows[i].step == rows[0].step;
      if (alike) {
        one_line<STRIDE, TWO>(Reader<TWO, true>(in, rows), w, out.count, to, step, below, put);
      } else {
        one_line<STRIDE, TWO>(Reader<TWO, false>(in, rows), w, out.count, to, step, below, put);
      }
      to += kLines * below;
    }
  }

 private:
  using Sum = typename Step::Sum;
  using Column = typename Step::Column;

  // The columns of a line, by turns; ALIKE: all rows have the same step.
  template <bool TWO, bool ALIKE>
  class Reader {
   public:
    Reader(const DirectInput& in, const DirectRow* rows)
        : a_(rows[0].x), b_(rows[1].x), c_(rows[2].x), d_(rows[3].x),
          step_a_(rows[0].step), step_b_(rows[1].step), step_c_(rows[2].step), step_d_(rows[3].step),
          x_(in.column), w_(in.w), outside_(lay(in.outside, in.outside, in.outside, in.outside)) {}

    __attribute__((always_inline)) Column next() {
      if (static_cast<size_t>(x_++) >= w_) return outside_;  // wraps left of the image
      const Column column = lay(a_, b_, c_, d_);
      a_ += step_a_;
      b_ += ALIKE ? step_a_ : step_b_;
      c_ += ALIKE ? step_a_ : step_c_;
      if (TWO) d_ += ALIKE ? step_a_ : step_d_;
      return column;
    }

   private:
    static Column lay(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d) {
      return TWO ? Step::lay(a, b, c, d) : Step::lay(a, b, c);
    }

    const uint8_t *a_, *b_, *c_, *d_;
    const size_t step_a_, step_b_, step_c_, step_d_;
    ptrdiff_t x_;
    const size_t w_;
    const Column outside_;
  };

  // A line of windows: two neighbours share what is read of weights. Or two lines, a window of each at a time.
  template <size_t STRIDE, bool TWO, class Reader, class T, class Put>
  __attribute__((always_inline)) static void one_line(Reader reader, const int8_t* w, size_t count, T* to, size_t step,
                                                      size_t below, const Put& put) {
    Column a = reader.next(), b = STRIDE == 1 ? reader.next() : a;
    if (TWO) {
      for (; count; --count, to += step) {
        const Column c = reader.next();
        const Sum upper = Step::template sum<0>(a, b, c, w), lower = Step::template sum<1>(a, b, c, w);
        put(upper, lower, to, to + below);
        a = b;
        b = c;
      }
      return;
    }
    for (; count > 1; count -= 2, to += 2 * step) {
      if (STRIDE == 2) b = reader.next();
      const Column c = reader.next(), d = reader.next(), e = STRIDE == 2 ? reader.next() : d;
      Sum sums[2];
      if (STRIDE == 1) {
        Step::two(a, b, c, b, c, d, w, sums);
      } else {
        Step::two(a, b, c, c, d, e, w, sums);
      }
      put(sums[0], sums[1], to, to + step);
      a = STRIDE == 1 ? c : e;
      b = d;
    }
    if (!count) return;
    if (STRIDE == 2) b = reader.next();
    put(Step::template sum<0>(a, b, reader.next(), w), to);
  }
};

}  // namespace mulshift

#endif
