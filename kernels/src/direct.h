// Depthwise windows straight from the image, sixteen channels: 3x3 in three.h, 5x5 in five.h.
//
// Two lines of windows share what they read. The image's bytes of one channel are put beside each other in registers, or for
// some columns in the first-level cache.
//
// Reads     sixteen bytes of each column and row, nothing else.
#ifndef MULSHIFT_SRC_DIRECT_H
#define MULSHIFT_SRC_DIRECT_H

#include <cstddef>
#include <cstdint>

#include "buffer.h"
#include "epilogue.h"

namespace mulshift {

struct ConvSpec;
struct Image;

// Sixteen channels of an image, and where windows begin: negative in the padding.
struct DirectInput {
  const uint8_t* x;
  size_t h, w, step;       // step: from one column to the next
  const uint8_t* outside;  // sixteen bytes of padding
  ptrdiff_t row, column;   // of the first window; column <= 0
  size_t down;             // from one line of windows to the next
};

// Where outputs go: sums at acc, [lines][count][16], or bytes at y, y_step apart. `stages` starts at the sixteen
// channels.
struct DirectOutput {
  int32_t* acc;
  uint8_t* y;
  size_t y_step, lines, count;
  const int32_t* bias;
  const Stages* stages;
};

using DirectRun = void (*)(const DirectInput& in, const int8_t* w, const DirectOutput& out);

// One way to multiply, at stride 1 and 2 along columns, and for an even number of lines at stride 1.
struct DirectWay {
  DirectRun one[2][kEnds], two[kEnds];
};

constexpr size_t kDirectWays = 3;
constexpr uint8_t kNoWay = kDirectWays;

struct DirectKernels {
  size_t bytes;  // of prepared weights of sixteen channels
  // Weights s8 [taps][stride], sixteen channels of them, for one of `ways`, which is returned, or kNoWay. What that way
  // adds to the sums is taken from the bias.
  uint8_t (*prepare)(const int8_t* w, size_t stride, int8_t* out, int32_t* bias);
  DirectWay ways[kDirectWays];
};

// What a call gives the panels of one part of an image: some of its output rows.
struct DirectPart {
  const Image& image;
  const uint8_t* x;  // the image
  const Epilogue& epilogue;
  size_t out_w, first, last;  // output rows
  size_t row;                 // of the outputs [rows][outputs]: where the image's begin
};

// The windows of one node.
class DirectWindows {
 public:
  // Prepares the panels that the machine has kernels for. `bias`: of all channels, as the sums of raw activations want
  // it. False: no memory.
  bool prepare(const ConvSpec& spec, const int32_t* bias);

  // Whether the sixteen channels from `channel` on are such a panel.
  bool has(size_t channel) const { return channel + kPanel <= channels_ && way(channel) != kNoWay; }

  // Those channels of a part of an image. False: no memory.
  bool run(const ConvSpec& spec, const DirectPart& part, size_t channel) const;

 private:
  uint8_t way(size_t channel) const { return static_cast<const uint8_t*>(ways_.data())[channel / kPanel]; }

  const DirectKernels* kernels_ = nullptr;
  size_t channels_ = 0;  // of whole panels; none: not prepared
  Buffer weights_, bias_, ways_;
};

// What a Step has whose sums are lanes in the order of the channels.
template <class V>
struct SumsInOrder {
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

// The ways of Windows, which has run<stride along columns, whether two lines>(in, w, out, to, step, put): calls
// put(sum, place) or put(sum, sum, place, place) for each position of the windows, where `to` is the first line's place
// and moves on by `step`.
template <class Windows, class Step>
struct DirectRuns {
  static constexpr DirectWay way() {
    return {{{sums<1, false>, bytes<1, false, kEndFull>, bytes<1, false, kEndLow>, bytes<1, false, kEndHigh>},
             {sums<2, false>, bytes<2, false, kEndFull>, bytes<2, false, kEndLow>, bytes<2, false, kEndHigh>}},
            {sums<1, true>, bytes<1, true, kEndFull>, bytes<1, true, kEndLow>, bytes<1, true, kEndHigh>}};
  }

 private:
  using Sum = typename Step::Sum;

  struct PutSums {
    const int32_t* bias;

    void operator()(const Sum& a, int32_t* p) const { Step::store(a, bias, p); }
    void operator()(const Sum& a, const Sum& b, int32_t* p, int32_t* q) const {
      Step::store(a, bias, p);
      Step::store(b, bias, q);
    }
  };

  template <End END>
  struct PutBytes {
    typename Step::template Bytes<END> end;

    void operator()(const Sum& a, uint8_t* p) const { end.store(a, p); }
    void operator()(const Sum& a, const Sum& b, uint8_t* p, uint8_t* q) const { end.store(a, b, p, q); }
  };

  template <size_t STRIDE, bool TWO>
  static void sums(const DirectInput& in, const int8_t* w, const DirectOutput& out) {
    Windows::template run<STRIDE, TWO>(in, w, out, out.acc, kPanel, PutSums{out.bias});
  }

  template <size_t STRIDE, bool TWO, End END>
  static void bytes(const DirectInput& in, const int8_t* w, const DirectOutput& out) {
    Windows::template run<STRIDE, TWO>(in, w, out, out.y, out.y_step, PutBytes<END>{{out.bias, *out.stages}});
  }
};

// One row of an image, or padding.
struct DirectRow {
  const uint8_t* x;
  size_t step;

  // Negative above the image.
  DirectRow(const DirectInput& in, ptrdiff_t row) : x(in.outside), step(0) {
    if (row < 0 || static_cast<size_t>(row) >= in.h) return;
    x = in.x + static_cast<size_t>(row) * in.w * in.step;
    step = in.step;
  }
};

}  // namespace mulshift

#endif
