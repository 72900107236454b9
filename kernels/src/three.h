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
// products of three columns by weights of [kernel column][64] from I * 64 on, 128 apart; store(sum, bias, acc);
// Bytes<END>, made from bias and Stages, which has store(sum, y) and store(sum, sum, y, y).

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
    const Column outside = Reader<TWO>::lay(in.outside, in.outside, in.outside, in.outside);
    const size_t below = out.count * step, skip = (kLines - 1) * below;
    ptrdiff_t row = in.row;
    for (size_t line = 0; line < out.lines; line += kLines, row += static_cast<ptrdiff_t>(kLines * in.down), to += skip) {
      Reader<TWO> reader(in, row, outside);
      Column a = reader.next(), b = STRIDE == 1 ? reader.next() : a;
      for (size_t count = out.count; count; --count, to += step) {
        if (STRIDE == 2) b = reader.next();
        const Column c = reader.next();
        const Sum upper = Step::template sum<0>(a, b, c, w);
        if (TWO) {
          put(upper, Step::template sum<1>(a, b, c, w), to, to + below);
        } else {
          put(upper, to);
        }
        a = STRIDE == 1 ? b : c;
        b = c;
      }
    }
  }

 private:
  using Column = typename Step::Column;
  using Sum = typename Step::Sum;

  // The columns of one line.
  template <bool TWO>
  class Reader {
   public:
    Reader(const DirectInput& in, ptrdiff_t line, const Column& outside) : x_(in.column), w_(in.w), outside_(outside) {
      for (size_t i = 0; i < 4; ++i) {
        const size_t y = static_cast<size_t>(line) + i;  // wraps above the image
        row_[i] = y < in.h ? in.x + y * in.w * in.step : in.outside;
        step_[i] = y < in.h ? in.step : 0;
      }
    }
    static Column lay(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d) {
      return TWO ? Step::lay(a, b, c, d) : Step::lay(a, b, c);
    }
    Column next() {
      const size_t x = static_cast<size_t>(x_++);  // wraps left of the image
      if (x >= w_) return outside_;
      return lay(at(0, x), at(1, x), at(2, x), at(3, x));
    }

   private:
    const uint8_t* at(size_t i, size_t x) const { return row_[i] + x * step_[i]; }

    const uint8_t* row_[4];
    size_t step_[4];
    ptrdiff_t x_;
    const size_t w_;
    const Column outside_;
  };
};

}  // namespace mulshift

#endif
