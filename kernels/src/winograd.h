// 3x3 convolution with stride 1 by Winograd's minimal filtering in integers (Lavin and Gray, arXiv:1509.09308, section 4):
// F(2x2, 3x3) makes 4 outputs by 16 products instead of 36, F(4x4, 3x3) 16 outputs by 36 instead of 144.
//
//   Y = A' [ (B' d B) . (G g G') ] A     d: input, g: 3x3 weights, Y: outputs, . elementwise; A, B, G times what makes them
//                                        integers
//
//   2x2   B' d = (d0 - d2, d1 + d2, d2 - d1, d1 - d3)    G g = (2 g0, g0 + g1 + g2, g0 - g1 + g2, 2 g2)
//         A' m = (m0 + m1 + m2, m1 - m2 - m3)            both twice the outputs
//   4x4   B' d = (4 d0 - 5 d2 + d4, p + q, p - q, d4 - d2 + 2 (d3 - d1), d4 - d2 - 2 (d3 - d1), 4 d1 - 5 d3 + d5)
//                where p = 4 d2 - d4, q = 4 d1 - d3
//         G g  = (6 g0, g0 + g1 + g2, g0 - g1 + g2, g0 + 2 g1 + 4 g2, g0 - 2 g1 + 4 g2, 6 g2)
//         A' m = (m0 + 4 s + u, 2 d + v, s + u, d + 2 v + m5)        24, 12, 6 and 6 times the outputs
//                where s = m1 + m2, d = m1 - m2, u = m3 + m4, v = m3 - m4
//
// Exact      the results are multiples of the outputs: divided by a shift, and by 9 as a product with 1 / 9 modulo 2^32.
// Ranges     d in [0, 255] less x_zero_point: |B' d B| <= 1020 and 25500, |G g G'| <= 9 * 128 and 49 * 128: all fit s16.
//            Sums are modulo 2^32, see dense.h; that the results fit is proven for the actual weights, or the convolution is
//            done directly.
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

// One size of tiles: `outputs` on a side, inputs and products `side` = outputs + 2.
struct WinogradForm {
  size_t outputs;
  int64_t most;  // what the results are the outputs' multiples of, at most

  size_t side() const { return outputs + 2; }
  size_t products() const { return side() * side(); }

  // G g G' of one panel: nine taps of packed weights, each s8 [channels / 4][16][4] and `tap_stride` bytes after the
  // one before, become out[products, `step` elements apart] s16 [channels / 2][16][2]. Done in every call
  // where there are many: reading them, several times as large as the packed ones, from memory would take longer.
  void (*weights)(const int8_t* packed, size_t tap_stride, size_t channels, int16_t* out, size_t step);

  // One tile: x[side rows, `row` bytes apart][side][channels], channels a multiple of 16; out[products, `step`
  // apart][channels], s16. Position (1, 1) takes a multiple of x_zero_point: elsewhere the zero point cancels.
  void (*input)(const uint8_t* x, size_t row, size_t channels, int32_t x_zero_point, int16_t* out, size_t step);

  // Outputs of one tile and panel: sums[products, `step` apart][16] s32; acc[y * row + x * 16] = bias + Y.
  void (*output)(const int32_t* sums, size_t step, const int32_t* bias, int32_t* acc, size_t row);
};

// The products of one panel for `rows` tiles: sums[i][row][16] = a[i][row] * b[i], i < products.
struct WinogradProducts {
  const int16_t* a;  // [products, a_step apart][rows][channels]
  const int16_t* b;  // [products, b_step apart], as `weights` makes them
  int32_t* sums;     // [products, sums_step apart][rows][16]
  size_t a_step, b_step, sums_step, products, rows, channels;
};

// `four` has fewer products, and weights that are 2.25 times as large.
struct WinogradKernels {
  WinogradForm two, four;
  void (*multiply)(const WinogradProducts& p);
};

class Winograd {
 public:
  // Whether a convolution of that kind may be done so; `prepare` tells whether its weights allow it.
  static bool fits(const ConvSpec& spec);

  // False if it is not proven that no result overflows: then it is done directly.
  bool prepare(const ConvSpec& spec);

  // As Conv::run, with the columns of the direct form, bias as it was given.
  const char* run(const ConvSpec& spec, const Columns& columns, const Stages& stages, const Image& image,
                  const uint8_t* x, void* y, const void* r, void* q, const Parallel& parallel) const;

  bool ready() const { return form_ != nullptr; }

 private:
  const WinogradForm* form_ = nullptr;
  Buffer kept_;  // transformed weights, where they are few: [panels][products][step]
};

}  // namespace mulshift

#endif
