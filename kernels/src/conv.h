// Convolution and matrix product with constant packed weights: blocking, padding and threads around isa().dense.
//
//   y[m][n] = epilogue(sum over k of (x(m, k) - x_zero_point) * w[k][n])
//
// m counts output positions (image, row, column), k kernel positions and channels: (ky * kw + kx) * C + channel.
// Layouts    x: u8 [N][H][W][groups * C], or [N][groups * C][H][W] where `planar`; w: "k4n16", see dense.h, one block of
//            panels a group, or as low_bits.h or sparse.h pack it; outputs and residual [m][outputs]. Padding counts as x_zero_point, so it adds nothing.
#ifndef MULSHIFT_SRC_CONV_H
#define MULSHIFT_SRC_CONV_H

#include <cstddef>
#include <cstdint>

#include "columns.h"
#include "dense.h"
#include "epilogue.h"
#include "fours.h"
#include "low_bits.h"
#include "tensor.h"
#include "winograd.h"

namespace mulshift {

struct Window {
  size_t h = 1, w = 1, stride_h = 1, stride_w = 1, pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0,
         dilation_h = 1, dilation_w = 1;
};

// Output positions along one axis; 0 if the window does not fit.
inline size_t positions(size_t size, size_t kernel, size_t stride, size_t before, size_t after, size_t dilation) {
  const size_t padded = size + before + after, span = (kernel - 1) * dilation + 1;
  return padded < span ? 0 : (padded - span) / stride + 1;
}

struct ConvSpec {
  Window window;
  size_t groups = 1, channels = 0, outputs = 0;  // channels: of one group; outputs: of all groups
  int32_t x_zero_point = 0;
  bool planar = false;
  const void* packed = nullptr;  // stays the caller's, must outlive the node
  Packing packing;                 // s8 as in dense.h, or as in low_bits.h or sparse.h

  size_t depth() const { return window.h * window.w * channels; }
  size_t k4() const { return (depth() + 3) / 4; }
  const int8_t* bytes() const { return static_cast<const int8_t*>(packed); }  // of 8 bits
};

struct Image {
  size_t count, h, w;  // of the input
};

class Conv {
 public:
  // Checks and prepares; null, or what is wrong.
  const char* prepare(const ConvSpec& spec, const ColumnInputs& columns);

  // Runs on an input of that size; null, or what is wrong. y, r, q, k as in Epilogue; only matrices have k.
  const char* run(const Stages& stages, const Image& image, const uint8_t* x, void* y, const void* r, void* q,
                  const Parallel& parallel, const int32_t* k = nullptr) const;

  const ConvSpec& spec() const { return spec_; }

 private:
  const char* prepare_bytes(const ConvSpec& spec, const ColumnInputs& columns);

  ConvSpec spec_;
  const Dense* dense_ = nullptr;
  Fours fours_;
  Columns columns_;
  Columns few_columns_;  // for few rows by packed weights
  Winograd winograd_;
};

}  // namespace mulshift

#endif
