// Depthwise windows straight from the image, sixteen channels at a time: 3x3 in three.h, 5x5 in five.h.
//
// Two lines of windows share what they read. The image's bytes of one channel are put beside each other in registers, or for
// some columns in the first-level cache.
//
// Panels    of sixteen channels that lie beside each other may share what is loaded: a line is then taken in Steps, each of
//           sixteen of all their channels, in an order that suits the instructions.
// Reads     the channels of its panels, of each column and row, nothing else.
#ifndef MULSHIFT_SRC_DIRECT_H
#define MULSHIFT_SRC_DIRECT_H

#include <cstddef>
#include <cstdint>

#include "buffer.h"
#include "epilogue.h"

namespace mulshift {

struct ConvSpec;
struct Image;

// Channels of an image, and where windows begin: negative in the padding.
struct DirectInput {
  const uint8_t* x;
  size_t h, w, step;       // step: from one column to the next
  const uint8_t* outside;  // as many bytes of padding
  ptrdiff_t row, column;   // of the first window; column <= 0
  size_t down;             // from one line of windows to the next
};

// Where outputs go: sums at acc, [lines][count][channels], or bytes at y, y_step apart. `bias` and `stages` start at the
// first channel. `held` is room for what one Step of a line hands on to the next: see held_bytes.
struct DirectOutput {
  int32_t* acc;
  uint8_t *y, *held;
  size_t y_step, lines, count;
  const int32_t* bias;
  const Stages* stages;
};

using DirectRun = void (*)(const DirectInput& in, const int8_t* w, const DirectOutput& out);

// One way to multiply, at stride 1 and 2 along columns, and for an even number of lines at stride 1, null where that is no
// faster.
struct DirectWay {
  DirectRun one[2][kEnds], two[kEnds];
};

constexpr size_t kDirectWays = 3, kDirectPanels = 2;
constexpr uint8_t kNoWay = kDirectWays;
constexpr size_t kDirectChannels = kDirectPanels * kPanel, kDirectHeld = 2 * kPanel;

// Of one line: kDirectHeld for every two positions, or of two lines for each.
constexpr size_t held_bytes(size_t count) { return count * kDirectHeld; }

struct DirectKernels {
  size_t panels;  // that share what is loaded
  size_t bytes;   // of prepared weights of a panel
  // Weights s8 [taps][stride] of those panels for one of `ways`, which is returned, or kNoWay. What that way adds to the
  // sums is taken from the bias.
  uint8_t (*prepare)(const int8_t* w, size_t stride, int8_t* out, int32_t* bias);
  DirectWay ways[kDirectWays];
  const DirectKernels* rest = nullptr;  // for one panel, if these are for more
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

  // How many channels run() takes at once from `channel` on: none where there is no kernel for them. Where others begin, a
  // multiple of kDirectChannels is a begin too.
  size_t channels(size_t channel) const {
    return channel < channels_ && way(channel) != kNoWay ? kernels(channel).panels * kPanel : 0;
  }

  // Those channels of a part of an image. False: no memory.
  bool run(const ConvSpec& spec, const DirectPart& part, size_t channel) const;

 private:
  uint8_t way(size_t channel) const { return static_cast<const uint8_t*>(ways_.data())[channel / kPanel]; }
  const DirectKernels& kernels(size_t channel) const { return channel < shared_ ? *kernels_ : *kernels_->rest; }

  const DirectKernels* kernels_ = nullptr;
  size_t channels_ = 0, shared_ = 0;  // of whole panels, of those that kernels_ takes; none: not prepared
  Buffer weights_, bias_, ways_;
};

// What a Step has whose sums are lanes in the order of the channels.
template <class V>
struct SumsInOrder {
  using Sum = V;

  static constexpr size_t kChannels = kPanel;  // from the sums of one position to the next
  static constexpr size_t kHeld = 0;           // bytes that store() hands on or takes

  static void store(const V& sum, const int32_t* bias, int32_t* acc) { (sum + V::load(bias)).store(acc); }

  template <End END, bool>
  struct Bytes {
    const V bias;
    const Scaling<V, END == kEndHigh ? Way::high : Way::low> scaling;
    const typename V::Bytes clamp;

    Bytes(const int32_t* bias_, const Stages& s)
        : bias(V::load(bias_)),
          scaling(V::load(s.b), V::load(s.shift), s.ways->left),
          clamp(s.first.zero_point, s.first.low, s.first.high) {}

    void store(const V& x, uint8_t* p, uint8_t*) const { clamp.store(scaling(x + bias), p); }
    void store(const V& x, const V& y, uint8_t* p, uint8_t* q, uint8_t*) const {
      clamp.store(scaling(x + bias), scaling(y + bias), p, q);
    }
  };
};

// The ways of Windows, which has run<stride along columns, whether two lines>(in, w, out, to, step, puts): calls
// put(sum, place) or put(sum, sum, place, place) of each Step for each position of the windows, where `to` is the first
// line's place and moves on by `step`. It copies a put for each line.
template <class Windows, class... Steps>
struct DirectRuns {
  static constexpr DirectWay way() {
    DirectWay way = way_of_lines();
    const DirectRun two[] = {sums<1, true>, bytes<1, true, kEndFull>, bytes<1, true, kEndLow>, bytes<1, true, kEndHigh>};
    for (size_t end = 0; end < kEnds; ++end) way.two[end] = two[end];
    return way;
  }
  static constexpr DirectWay way_of_lines() {
    return {{{sums<1, false>, bytes<1, false, kEndFull>, bytes<1, false, kEndLow>, bytes<1, false, kEndHigh>},
             {sums<2, false>, bytes<2, false, kEndFull>, bytes<2, false, kEndLow>, bytes<2, false, kEndHigh>}},
            {}};
  }

 private:
  template <class Step>
  struct PutSums {
    using Sum = typename Step::Sum;

    const int32_t* bias;

    void operator()(const Sum& a, int32_t* p) const { Step::store(a, bias, p); }
    void operator()(const Sum& a, const Sum& b, int32_t* p, int32_t* q) const {
      Step::store(a, bias, p);
      Step::store(b, bias, q);
    }
  };

  template <class Step, class Bytes>
  struct PutBytes {
    using Sum = typename Step::Sum;

    const Bytes& end;
    uint8_t* held;

    __attribute__((always_inline)) void operator()(const Sum& a, uint8_t* p) {
      end.store(a, p, held);
      held += Step::kHeld;
    }
    __attribute__((always_inline)) void operator()(const Sum& a, const Sum& b, uint8_t* p, uint8_t* q) {
      end.store(a, b, p, q, held);
      held += Step::kHeld;
    }
  };

  template <size_t STRIDE, bool TWO>
  static void sums(const DirectInput& in, const int8_t* w, const DirectOutput& out) {
    constexpr size_t channels[] = {Steps::kChannels...};
    Windows::template run<STRIDE, TWO>(in, w, out, out.acc, channels[0], PutSums<Steps>{out.bias}...);
  }

  template <size_t STRIDE, bool TWO, End END>
  static void bytes(const DirectInput& in, const int8_t* w, const DirectOutput& out) {
    put_bytes<STRIDE, TWO>(in, w, out, typename Steps::template Bytes<END, TWO>(out.bias, *out.stages)...);
  }
  template <size_t STRIDE, bool TWO, class... Bytes>
  __attribute__((always_inline)) static void put_bytes(const DirectInput& in, const int8_t* w, const DirectOutput& out,
                                                       const Bytes&... ends) {
    Windows::template run<STRIDE, TWO>(in, w, out, out.y, out.y_step, PutBytes<Steps, Bytes>{ends, out.held}...);
  }
};

// One row of an image, or padding.
struct DirectRow {
  const uint8_t* x;
  size_t step;

  // Negative above the image.
  DirectRow(const DirectInput& in, ptrdiff_t row)
      : DirectRow(in, static_cast<size_t>(row), static_cast<size_t>(row) * in.w * in.step) {}

  // `at`: where the row is, from the image's begin on; any number for padding.
  DirectRow(const DirectInput& in, size_t row, size_t at)
      : x(row < in.h ? in.x + at : in.outside), step(row < in.h ? in.step : 0) {}
};

}  // namespace mulshift

#endif
