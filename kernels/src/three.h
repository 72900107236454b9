// Depthwise 3x3 windows, sixteen channels, straight from the image: nothing is laid out in memory first.
//
// A column of the image, four rows of it, becomes sixteen groups of bytes: x of rows (0, 2, 1, 3) of one channel. One
// step multiplies a group by four weights and adds. A window takes three steps, one a kernel column. Two windows below
// each other share their columns: the upper one multiplies row 3 by 0, the lower one row 0. Outer rows are neighbours,
// because two weights that meet in 16 bits should be small, and the middle one of a kernel is not.
//
// Ranges    sums are below 2^20: any s8 weights.
// Reads     sixteen bytes of each column and row, nothing else.
#ifndef MULSHIFT_SRC_THREE_H
#define MULSHIFT_SRC_THREE_H

#include <cstddef>
#include <cstdint>

#include "buffer.h"
#include "epilogue.h"

namespace mulshift {

struct ConvSpec;
struct Image;

// Sixteen channels of an image, and where windows begin: negative in the padding.
struct ThreeInput {
  const uint8_t* x;
  size_t h, w, step;       // step: from one column to the next
  const uint8_t* outside;  // sixteen bytes of padding
  ptrdiff_t row, column;   // of the first window
  size_t down;             // from one line of windows to the next
};

// Where outputs go: sums at acc, [lines][count][16], or bytes at y, y_step apart. `stages` starts at the sixteen
// channels.
struct ThreeOutput {
  int32_t* acc;
  uint8_t* y;
  size_t y_step, lines, count;
  const int32_t* bias;
  const Stages* stages;
};

using ThreeRun = void (*)(const ThreeInput& in, const int8_t* w, const ThreeOutput& out);

// One way to multiply, at stride 1 and 2 along columns, and for an even number of lines at stride 1.
struct ThreeWay {
  ThreeRun one[2][kEnds], two[kEnds];
};

constexpr size_t kThreeBytes = 2 * 3 * 2 * 64;  // of prepared weights of sixteen channels

struct ThreeKernels {
  // Weights s8 [9][stride], sixteen channels of them, for one of `ways`, which is returned. What that way adds to the
  // sums is taken from the bias.
  uint8_t (*prepare)(const int8_t* w, size_t stride, int8_t* out, int32_t* bias);
  ThreeWay ways[3];
};

// What a call gives the panels of one part of an image: some of its output rows.
struct ThreePart {
  const Image& image;
  const uint8_t* x;  // the image
  const Epilogue& epilogue;
  size_t out_w, first, last;  // output rows
  size_t row;                 // of the outputs [rows][outputs]: where the image's begin
};

// The windows of one node.
class ThreeWindows {
 public:
  // Whether they are such windows of a panel at least, and the machine has the kernels.
  static bool fits(const ConvSpec& spec);

  // `bias`: of all channels, as the sums of raw activations want it. False: no memory.
  bool prepare(const ConvSpec& spec, const int32_t* bias);

  // Whether the sixteen channels from `channel` on are all there.
  bool has(size_t channel) const { return channels_ && channel + kPanel <= channels_; }

  // Those channels of a part of an image. False: no memory.
  bool run(const ConvSpec& spec, const ThreePart& part, size_t channel) const;

 private:
  size_t channels_ = 0;  // none: not prepared
  Buffer weights_, bias_, ways_;
};

// Step: Column lay(a, b, c, d), a column's rows 0 to 3, or the first three, and anything; Sum sum<I>(a, b, c, w), the
// products of three columns by weights of [kernel column][64] from I * 64 on, 128 apart; store(sum, bias, acc);
// Bytes<END>, made from bias and Stages, which has store(sum, y) and store(sum, sum, y, y).

// What a Step has whose sums are lanes in the order of the channels.
template <class V>
struct ThreeInOrder {
  using Sum = V;

  static void store(const V& sum, const int32_t* bias, int32_t* acc) { (sum + V::load(bias)).store(acc); }

  template <End END>
  struct Bytes {
    const V bias;
    const Scaling<V, END == kEndHigh ? Way::high : Way::low> scaling;
    const typename V::Bytes clamp;

    Bytes(const int32_t* bias_, const Stages& s)
        : bias(V::load(bias_)),
          scaling(V::load(s.b), V::load(s.shift), s.ways->left),
          clamp(s.first.zero_point, s.first.low, s.first.high) {}

    void store(const V& x, uint8_t* p) const { clamp.store(scaling(x + bias), p); }
    void store(const V& x, const V& y, uint8_t* p, uint8_t* q) const {
      clamp.store(scaling(x + bias), scaling(y + bias), p, q);
    }
  };
};

template <class Step>
struct Three {
  static constexpr ThreeWay way() {
    return {{{sums<1, false>, bytes<1, false, kEndFull>, bytes<1, false, kEndLow>, bytes<1, false, kEndHigh>},
             {sums<2, false>, bytes<2, false, kEndFull>, bytes<2, false, kEndLow>, bytes<2, false, kEndHigh>}},
            {sums<1, true>, bytes<1, true, kEndFull>, bytes<1, true, kEndLow>, bytes<1, true, kEndHigh>}};
  }

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

 private:
  using Column = typename Step::Column;
  using Sum = typename Step::Sum;

  // The columns of one line.
  template <bool TWO>
  class Reader {
   public:
    Reader(const ThreeInput& in, ptrdiff_t line, const Column& outside) : x_(in.column), w_(in.w), outside_(outside) {
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

  template <size_t STRIDE, bool TWO>
  static void sums(const ThreeInput& in, const int8_t* w, const ThreeOutput& out) {
    const int32_t* bias = out.bias;
    const size_t below = out.count * kPanel;
    run<STRIDE, TWO>(in, w, out, out.acc, kPanel, [=](const Sum& upper, const Sum& lower, int32_t* acc) {
      Step::store(upper, bias, acc);
      if (TWO) Step::store(lower, bias, acc + below);
    });
  }

  template <size_t STRIDE, bool TWO, End END>
  static void bytes(const ThreeInput& in, const int8_t* w, const ThreeOutput& out) {
    const typename Step::template Bytes<END> end(out.bias, *out.stages);
    const size_t below = out.count * out.y_step;
    run<STRIDE, TWO>(in, w, out, out.y, out.y_step, [=](const Sum& upper, const Sum& lower, uint8_t* y) {
      TWO ? end.store(upper, lower, y, y + below) : end.store(upper, y);
    });
  }

  template <size_t STRIDE, bool TWO, class T, class Put>
  __attribute__((always_inline)) static void run(const ThreeInput& in, const int8_t* w, const ThreeOutput& out, T* to,
                                                 size_t step, const Put& put) {
    constexpr size_t kLines = TWO ? 2 : 1;
    const Column outside = Reader<TWO>::lay(in.outside, in.outside, in.outside, in.outside);
    const size_t skip = (kLines - 1) * out.count * step;
    ptrdiff_t row = in.row;
    for (size_t line = 0; line < out.lines; line += kLines, row += static_cast<ptrdiff_t>(kLines * in.down), to += skip) {
      Reader<TWO> reader(in, row, outside);
      Column a = reader.next(), b = STRIDE == 1 ? reader.next() : a;
      for (size_t count = out.count; count; --count, to += step) {
        if (STRIDE == 2) b = reader.next();
        const Column c = reader.next();
        const Sum upper = Step::template sum<0>(a, b, c, w), lower = TWO ? Step::template sum<1>(a, b, c, w) : upper;
        put(upper, lower, to);
        a = STRIDE == 1 ? b : c;
        b = c;
      }
    }
  }
};

}  // namespace mulshift

#endif
