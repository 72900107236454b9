// Depthwise 5x5 windows, sixteen channels, straight from the image.
//
// Of some dozens of columns of the image the rows that a line of windows reads are put beside each other, in the first-level
// cache; two lines of windows below each other share them.
//
// Ranges    sums are below 2^20: any s8 weights, unless a Step asks for less.
#ifndef MULSHIFT_SRC_FIVE_H
#define MULSHIFT_SRC_FIVE_H

#include "direct.h"

namespace mulshift {

constexpr size_t kFive = 5;

// Step: kColumn, bytes of a laid column; lay<TWO>(rows, x, count, out), columns of six rows from x on, of five where not TWO;
// sums<COUNT, STRIDE, LOWER>(columns, w, out), of one or two windows; and what SumsInOrder has.
template <class Step>
struct Five : DirectRuns<Five<Step>, Step> {
  template <size_t STRIDE, bool TWO, class T, class Put>
  __attribute__((always_inline)) static void run(const DirectInput& in, const int8_t* w, const DirectOutput& out, T* to,
                                                 size_t step, Put put) {
    constexpr size_t kLines = TWO ? 2 : 1, kMost = (kHeld - kFive) / STRIDE / 2 * 2, kMove = STRIDE * Step::kColumn;
    const size_t below = out.count * step, skip = (kLines - 1) * below;
    alignas(64) uint8_t columns[kHeld * Step::kColumn];
    ptrdiff_t row = in.row;
    for (size_t line = 0; line < out.lines; line += kLines, row += static_cast<ptrdiff_t>(kLines * in.down), to += skip) {
      const DirectRow rows[] = {{in, row}, {in, row + 1}, {in, row + 2}, {in, row + 3}, {in, row + 4}, {in, row + 5}};
      ptrdiff_t column = in.column;
      for (size_t left = out.count; left;) {
        const size_t now = left < kMost ? left : kMost;
        const bool padding = line == 0 || out.count > kMost;  // else that of the line above
        lay<TWO>(in, rows, column, (now - 1) * STRIDE + kFive, padding, columns);
        const uint8_t* from = columns;
        for (size_t i = now / 2; i; --i, from += 2 * kMove, to += 2 * step) {
          two<STRIDE, false>(from, w, to, step, put);
          if (TWO) two<STRIDE, true>(from, w, to + below, step, put);
        }
        if (now % 2) {
          one<STRIDE, false>(from, w, to, put);
          if (TWO) one<STRIDE, true>(from, w, to + below, put);
          to += step;
        }
        column += static_cast<ptrdiff_t>(now * STRIDE);
        left -= now;
      }
    }
  }

 private:
  using Sum = typename Step::Sum;

  static constexpr size_t kHeld = 68;  // columns

  template <size_t STRIDE, bool LOWER, class T, class Put>
  __attribute__((always_inline)) static void two(const uint8_t* columns, const int8_t* w, T* to, size_t step, Put& put) {
    Sum sums[2];
    Step::template sums<2, STRIDE, LOWER>(columns, w, sums);
    put(sums[0], sums[1], to, to + step);
  }
  template <size_t STRIDE, bool LOWER, class T, class Put>
  __attribute__((always_inline)) static void one(const uint8_t* columns, const int8_t* w, T* to, Put& put) {
    Sum sum[1];
    Step::template sums<1, STRIDE, LOWER>(columns, w, sum);
    put(sum[0], to);
  }

  // `count` columns from `first` on, which may be negative; those outside the image where `padding`.
  template <bool TWO>
  __attribute__((noinline)) static void lay(const DirectInput& in, const DirectRow* rows, ptrdiff_t first, size_t count,
                                            bool padding, uint8_t* out) {
    const size_t before = first < 0 ? static_cast<size_t>(-first) : 0, left = before < count ? before : count;
    const size_t x = static_cast<size_t>(first) + before, inside = x < in.w ? in.w - x : 0;
    const size_t middle = inside < count - left ? inside : count - left, right = count - left - middle;
    if (middle) Step::template lay<TWO>(rows, x, middle, out + left * Step::kColumn);
    if (!padding || left + right == 0) return;
    const DirectRow none(in, -1), outside[] = {none, none, none, none, none, none};
    Step::template lay<TWO>(outside, 0, left, out);
    Step::template lay<TWO>(outside, 0, right, out + (left + middle) * Step::kColumn);
  }
};

}  // namespace mulshift

#endif
