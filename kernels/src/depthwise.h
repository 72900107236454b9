// Depthwise convolution: every channel by itself, channels innermost.
//
//   y[p][ch] = epilogue(sum over taps t of x[tap(p, t)][ch] * w[t][ch])
//
// Layouts    x: u8 [N][H][W][C]; w: s8 [taps][C] as stored ("taps"), prepared as s16 [ceil(taps/2)][panels][16][2]: two
//            taps beside each other, so that one 16-bit multiply-add takes both; an odd last tap is paired with weight 0.
// Padding    a row of zero points stands in for positions outside; the bias takes -x_zero_point * sum w.
// Overflow   |sum| <= sum |w| * 255 < 2^31, proven when the node is made; one product pair is below 2^17.
#ifndef MULSHIFT_SRC_DEPTHWISE_H
#define MULSHIFT_SRC_DEPTHWISE_H

#include <cstddef>
#include <cstdint>

#include "conv.h"

namespace mulshift {

struct DepthwiseKernels {
  // acc[p][16 * panels] for `count` positions: taps[p * 2 * pairs + t] points at channel 0 of tap t of position p.
  // Reads no byte at or after `end` of a row that starts inside x; `channels` are valid in each row.
  void (*multiply)(const uint8_t* const* taps, size_t count, size_t pairs, size_t channels, const uint8_t* end,
                   const int16_t* w, int32_t* acc);
};

class Depthwise {
 public:
  // spec.groups is the number of channels, spec.channels 1, spec.packed the weights [taps][C].
  const char* prepare(const ConvSpec& spec, const ColumnInputs& columns);
  const char* run(const Stages& stages, const Image& image, const uint8_t* x, void* y, const void* r, void* q,
                  const Parallel& parallel) const;

  const ConvSpec& spec() const { return spec_; }

 private:
  ConvSpec spec_;
  Columns columns_;
  Buffer weights_, outside_;  // prepared weights; a row of zero points
};

template <class V>
struct DepthwiseKernel {
  static void multiply(const uint8_t* const* taps, size_t count, size_t pairs, size_t channels, const uint8_t* end,
                       const int16_t* w, int32_t* acc) {
    switch (pairs) {
      case 5:
        return positions_of<5>(taps, count, pairs, channels, end, w, acc);
      case 13:
        return positions_of<13>(taps, count, pairs, channels, end, w, acc);
      default:
        return positions_of<0>(taps, count, pairs, channels, end, w, acc);
    }
  }

 private:
  // PAIRS 0: as many as `pairs` says.
  template <size_t PAIRS>
  static void positions_of(const uint8_t* const* taps, size_t count, size_t pairs, size_t channels, const uint8_t* end,
                           const int16_t* w, int32_t* acc) {
    const size_t n = PAIRS ? PAIRS : pairs, panels = (channels + kPanel - 1) / kPanel;
    for (size_t p = 0; p < count; ++p, taps += 2 * n, acc += panels * kPanel) {
      bool near_end = false;  // a whole load of the last panel might leave x
      for (size_t t = 0; t < 2 * n; ++t) near_end |= taps[t] + panels * kPanel > end && taps[t] < end;
      const size_t whole = near_end ? channels / kPanel : panels;
      for (size_t i = 0; i < whole; ++i) {
        V sum = V::set1(0);
        for (size_t t = 0; t < n; ++t) {
          sum = V::multiply_pair(sum, taps[2 * t] + i * kPanel, taps[2 * t + 1] + i * kPanel,
                                 w + (t * panels + i) * 2 * kPanel);
        }
        sum.store(acc + i * kPanel);
      }
      if (whole < panels) last_panel(taps, n, channels, w, acc);
    }
  }

  static void last_panel(const uint8_t* const* taps, size_t n, size_t channels, const int16_t* w, int32_t* acc) {
    const size_t panels = (channels + kPanel - 1) / kPanel, first = (panels - 1) * kPanel;
    V sum = V::set1(0);
    for (size_t t = 0; t < n; ++t) {
      uint8_t a[kPanel] = {}, b[kPanel] = {};
      for (size_t i = first; i < channels; ++i) {
        a[i - first] = taps[2 * t][i];
        b[i - first] = taps[2 * t + 1][i];
      }
      sum = V::multiply_pair(sum, a, b, w + (t * panels + panels - 1) * 2 * kPanel);
    }
    sum.store(acc + first);
  }
};

}  // namespace mulshift

#endif
