// 3x3 convolution with stride 1 by Winograd's minimal filtering F(4x4, 3x3) in integers: 36 products for 16 outputs instead
// of 144 (Lavin and Gray, arXiv:1509.09308, section 4.3, whose G has fractions; here its rows are multiplied by 24, 6, 6, 24,
// 24 and 6, and the outputs divided).
//
//   F Y F = A' [ (B' d B) . (G g G') ] A        d: 6x6 input, g: 3x3 weights, Y: 4x4 outputs, F = diag(24, 12, 6, 6)
//
//   B' d = (4 d0 - 5 d2 + d4, 4 (d1 + d2) - d3 - d4, 4 (d2 - d1) + d3 - d4, 2 (d3 - d1) - d2 + d4, 2 (d1 - d3) - d2 + d4,
//           4 d1 - 5 d3 + d5)
//   G g  = (6 g0, g0 + g1 + g2, g0 - g1 + g2, g0 + 2 g1 + 4 g2, g0 - 2 g1 + 4 g2, 6 g2)
//   A' m = (m0 + 4 (m1 + m2) + m3 + m4, 2 (m1 - m2) + m3 - m4, m1 + m2 + m3 + m4, m1 - m2 + 2 (m3 - m4) + m5)
//
// Exact      all is integer and modulo 2^32. An output is Y times 9 * 2^e, e = 2 to 6: times the inverse of 9 modulo 2^32
//            it is 2^e Y, and >> e drops zeros, if |Y| < 2^25: proven for the actual weights, or the convolution is done
//            directly.
// Ranges     d in [0, 255] less x_zero_point: |B' d B| <= 100 * 255; |G g G'| <= 49 * 128: both fit s16, and vpmaddwd adds two
//            products below 2^31.
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
struct Window;

constexpr size_t kSide = 6, kOutputs = 4;        // of a tile's input and output
constexpr size_t kProducts = kSide * kSide;      // of one tile, channel and column

struct WinogradProducts {
  const int16_t *input, *weights;
  int32_t* sums;
  size_t input_step, weights_step, sums_step;  // elements from one position to the next
  size_t input_stride, channels, tiles;
};

struct WinogradKernels {
  // G g G' of one panel: nine taps of packed weights, each s8 [channels / 4][16][4] and `tap_stride` bytes after the
  // one before, become out[36 positions, `step` elements apart] s16 [channels / 2][16][2]. Done in every call
  // where there are many: reading them, 8 times as large as the packed ones, from memory would take longer.
  void (*weights)(const int8_t* packed, size_t tap_stride, size_t channels, int16_t* out, size_t step);

  // One tile: x[6 rows, `row` bytes apart][6][channels], channels a multiple of 16; out[36 positions, `step`
  // apart][channels], s16. Position 7 takes -36 * x_zero_point: elsewhere the zero point cancels.
  void (*input)(const uint8_t* x, size_t row, size_t channels, int32_t x_zero_point, int16_t* out, size_t step);

  // For each of the 36 positions: sums[tiles][16] = (`is_first` ? 0 : sums) + input[tiles][channels] * weights, s32;
  // tiles of an input are input_stride elements apart. channels is a multiple of 4.
  void (*multiply)(const WinogradProducts& products, bool is_first);

  // 4x4 outputs: sums[36 positions, `step` apart][columns] s32, acc[y] points at four times [columns]; acc = bias + Y.
  // columns is a multiple of 16.
  void (*output)(const int32_t* sums, size_t step, size_t columns, const int32_t* bias, int32_t* const* acc);
};

class Winograd {
 public:
  // Whether a convolution of that kind may be done so; `prepare` tells whether its weights allow it.
  static bool fits(const ConvSpec& spec);

  // False if it is not proven that all outputs are small enough: then it is done directly.
  bool prepare(const ConvSpec& spec);

  // Whether that takes fewer products than the direct form: not for outputs of up to 2 x 2, nor for long and narrow ones.
  bool pays(const Image& image, const Window& window) const;

  // As Conv::run, with the columns of the direct form, bias as it was given.
  const char* run(const ConvSpec& spec, const Columns& columns, const Stages& stages, const Image& image,
                  const uint8_t* x, void* y, const void* r, void* q, const Parallel& parallel) const;

 private:
  bool is_ready_ = false;
  Buffer kept_;  // transformed weights, where they are few: [panels][36][step]
};

}  // namespace mulshift

#endif
