// Depthwise convolution: every channel by itself, channels innermost.
//
//   y[p][ch] = epilogue(sum over ky, kx of x[row(p, ky)][column(p, kx)][ch] * w[ky][kx][ch])
//
// A 16-bit multiply-add takes two products, so taps go in pairs of kernel rows. An input row is laid beside the one below
// it, [x][16 channels][row, row below], once: every kernel position that meets the two reads it there, for this output row
// and for later ones. A last odd kernel row multiplies the row below by 0.
//
// Layouts    x: u8 [N][H][W][C]; w: s8 [kh * kw][C] as stored ("taps"), prepared as s16 [panels][pairs][16][2].
// Padding    counts as x_zero_point; the bias takes -x_zero_point * sum w.
// Overflow   as in dense.h; a pair is below 2^17.
#ifndef MULSHIFT_SRC_DEPTHWISE_H
#define MULSHIFT_SRC_DEPTHWISE_H

#include <cstddef>
#include <cstdint>

#include "conv.h"
#include "direct.h"

namespace mulshift {

constexpr size_t kPairs = 2 * kPanel;  // elements of one column of one panel

struct DepthwiseKernels {
  // out[x][16][2] = (a[x * a_step][ch], b[x * b_step][ch]) for `count` columns; reads 16 channels of each.
  void (*interleave)(const uint8_t* a, size_t a_step, const uint8_t* b, size_t b_step, size_t count, int16_t* out);

  // acc[p][16] = bias + sum over i < pairs of (columns + offsets[i] + p * step)[16][2] * w[i][16][2], p < count.
  // offsets and step in elements; acc rows are acc_stride apart.
  void (*multiply)(const int16_t* columns, const size_t* offsets, size_t pairs, size_t step, size_t count,
                   const int16_t* w, const int32_t* bias, int32_t* acc, size_t acc_stride);

  // The same and the first stage of the epilogue in one: for u8 outputs without further stages, 16 channels, not Way::any.
  // `stages` starts at the panel, y rows are y_stride apart.
  void (*multiply_to_bytes)(const int16_t* columns, const size_t* offsets, size_t pairs, size_t step, size_t count,
                            const int16_t* w, const Stages& stages, uint8_t* y, size_t y_stride);

  const DirectKernels *three = nullptr, *five = nullptr;  // windows of 3x3, 5x5; null where there is none
};

class Depthwise {
 public:
  // spec.groups is the number of channels, spec.channels 1, spec.packed the weights [kh * kw][C].
  const char* prepare(const ConvSpec& spec, const ColumnInputs& columns);
  const char* run(const Stages& stages, const Image& image, const uint8_t* x, void* y, const void* r, void* q,
                  const Parallel& parallel) const;

  const ConvSpec& spec() const { return spec_; }

 private:
  ConvSpec spec_;
  Columns columns_;
  Buffer weights_;
  DirectWindows direct_;
};

template <class V>
struct DepthwiseKernel {
  static void interleave(const uint8_t* a, size_t a_step, const uint8_t* b, size_t b_step, size_t count, int16_t* out) {
    for (size_t x = 0; x < count; ++x, a += a_step, b += b_step, out += kPairs) V::interleave(a, b, out);
  }

  static void multiply(const int16_t* columns, const size_t* offsets, size_t pairs, size_t step, size_t count,
                       const int16_t* w, const int32_t* bias, int32_t* acc, size_t acc_stride) {
    const auto two = [&](size_t p, V a, V b) {
      a.store(acc + p * acc_stride);
      b.store(acc + (p + 1) * acc_stride);
    };
    const auto one = [&](size_t p, V a) { a.store(acc + p * acc_stride); };
    each(columns, offsets, pairs, step, count, w, bias, two, one);
  }

  static void multiply_to_bytes(const int16_t* columns, const size_t* offsets, size_t pairs, size_t step, size_t count,
                                const int16_t* w, const Stages& s, uint8_t* y, size_t stride) {
    const V b = V::load(s.b), shift = V::load(s.shift);
    const int32_t* bias = s.bias;
    const typename V::Bytes clamp(s.first.zero_point, s.first.low, s.first.high);
    const auto run = [=](const auto& scaling) {
      const auto two = [=](size_t p, V u, V v) {
        clamp.store(scaling(u), scaling(v), y + p * stride, y + (p + 1) * stride);
      };
      const auto one = [=](size_t p, V u) { clamp.store(scaling(u), y + p * stride); };
      each(columns, offsets, pairs, step, count, w, bias, two, one);
    };
    s.ways->way == Way::low ? run(Scaling<V, Way::low>(b, shift, 0)) : run(Scaling<V, Way::high>(b, shift, s.ways->left));
  }

 private:
  // two(p, sums of p, sums of p + 1), one(p, sums of p).
  template <class Two, class One>
  __attribute__((always_inline)) static void each(const int16_t* columns, const size_t* offsets, size_t pairs, size_t step, size_t count,
                   const int16_t* w, const int32_t* bias, const Two& two, const One& one) {
    size_t p = 0;
    for (; p + 4 <= count; p += 4, columns += 4 * step) {
      V s0 = V::load(bias), s1 = s0, s2 = s0, s3 = s0;
      for (size_t i = 0; i < pairs; ++i) {
        const int16_t *x = columns + offsets[i], *wi = w + i * kPairs;
        s0 = V::multiply_pairs(s0, x, wi);
        s1 = V::multiply_pairs(s1, x + step, wi);
        s2 = V::multiply_pairs(s2, x + 2 * step, wi);
        s3 = V::multiply_pairs(s3, x + 3 * step, wi);
      }
      two(p, s0, s1);
      two(p + 2, s2, s3);
    }
    for (; p + 2 <= count; p += 2, columns += 2 * step) {
      V s0 = V::load(bias), s1 = s0;
      for (size_t i = 0; i < pairs; ++i) {
        const int16_t *x = columns + offsets[i], *wi = w + i * kPairs;
        s0 = V::multiply_pairs(s0, x, wi);
        s1 = V::multiply_pairs(s1, x + step, wi);
      }
      two(p, s0, s1);
    }
    if (p == count) return;
    V sum = V::load(bias);
    for (size_t i = 0; i < pairs; ++i) sum = V::multiply_pairs(sum, columns + offsets[i], w + i * kPairs);
    one(p, sum);
  }
};

}  // namespace mulshift

#endif
