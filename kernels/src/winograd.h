// 3x3 convolution with stride 1 by Winograd's minimal filtering F(2x2, 3x3) in integers: 16 products for 4 outputs instead
// of 36 (Lavin and Gray, arXiv:1509.09308, section 4.1).
//
//   Y = A' [ (B' d B) . (2G g (2G)') ] A / 4         d: 4x4 input, g: 3x3 weights, Y: 2x2 outputs, . elementwise
//
//   B' d = (d0 - d2, d1 + d2, d2 - d1, d1 - d3)      2G g = (2 g0, g0 + g1 + g2, g0 - g1 + g2, 2 g2)
//   A' m = (m0 + m1 + m2, m1 - m2 - m3)
//
// Exact      2G has integers only; the outputs are 4 times the convolution's sums, so >> 2 drops zeros.
// Ranges     d in [0, 255] less x_zero_point: |B' d B| <= 1020; |2G g (2G)'| <= 9 * 128: both fit s16. Products add up in
//            s32: the sum over k and over the nine positions that meet in one output is proven below 2^31 for the actual
//            weights, or the convolution is done directly.
// Pays       where 16-bit products are what the machine has anyway (AVX2); with 8-bit dot products it would not.
#ifndef MULSHIFT_SRC_WINOGRAD_H
#define MULSHIFT_SRC_WINOGRAD_H

#include <cstddef>
#include <cstdint>

#include "buffer.h"
#include "columns.h"
#include "dense.h"

namespace mulshift {

struct ConvSpec;
struct Image;
struct Parallel;

struct WinogradKernels {
  // 2G g (2G)' of one panel: nine taps of packed weights, each s8 [channels / 4][16][4] and `tap_stride` bytes after the
  // one before, become out[16 positions, `step` elements apart] s16 [channels / 2][16][2]. Done in every call
  // where there are many: reading them, 3.6 times as large as the packed ones, from memory would take longer.
  void (*weights)(const int8_t* packed, size_t tap_stride, size_t channels, int16_t* out, size_t step);

  // One 4x4 input: pixels[4 * y + x] points at channel 0. out[16 positions, `step` apart][channels], s16; channels is a
  // multiple of 16. Position 5 takes -4 * x_zero_point: elsewhere the zero point cancels.
  void (*input)(const uint8_t* const* pixels, size_t channels, int32_t x_zero_point, int16_t* out, size_t step);

  // Four outputs: sums[16 positions, `step` apart][columns] s32, acc[2 * y + x] points at [columns]; acc = bias + Y.
  // columns is a multiple of 16.
  void (*output)(const int32_t* sums, size_t step, size_t columns, const int32_t* bias, int32_t* const* acc);
};

class Winograd {
 public:
  // Whether a convolution of that kind may be done so; `prepare` tells whether its weights allow it.
  static bool fits(const ConvSpec& spec);

  // False if it is not proven that no sum overflows, or if there is no memory: then it is done directly.
  bool prepare(const ConvSpec& spec);

  // As Conv::run, with the columns of the direct form, bias as it was given.
  const char* run(const ConvSpec& spec, const Columns& columns, const Stages& stages, const Image& image,
                  const uint8_t* x, void* y, const void* r, void* q, const Parallel& parallel) const;

  bool ready() const { return outside_.data() != nullptr; }

 private:
  Buffer outside_;  // a row of zero points
  Buffer kept_;     // transformed weights, where they are few: [panels][16][step]
};

}  // namespace mulshift

#endif
