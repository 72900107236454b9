// Products with constant weights, the part that depends on the instruction set.
//
//   acc[m][n] = sum over k of a[m][k] * w[k][n]     m < rows, n < 16 * panels, k < 4 * k4
//
// Layouts    packed w ("k4n16"): s8 [panel][k4][16 columns][4 k], zero where n or k is padding.
//            a: one row after the other, a_stride bytes apart, 4 * k4 elements of `Dense::element` bytes each.
//            acc: s32 [rows][acc_stride].
// Ranges     a holds x (u8) where `centred` is false and x - x_zero_point (s16, |a| <= 255) where it is true.
// Overflow   |acc| and every partial sum are at most sum |w| * 255 < 2^31; the caller proves it from the weights.
#ifndef MULSHIFT_SRC_DENSE_H
#define MULSHIFT_SRC_DENSE_H

#include <cstddef>
#include <cstdint>

namespace mulshift {

struct Epilogue;

constexpr size_t kPanel = 16;    // columns of a panel
constexpr size_t kMaxRows = 12;  // of a tile, on any instruction set

// One way to multiply.
struct Dense {
  size_t rows;     // of a tile: `multiply` takes at most that many
  size_t element;  // bytes of an element of a
  bool centred;

  // The panels as `multiply` reads them, into `b`; null if it reads them as they are packed.
  void (*expand)(const int8_t* packed, size_t k4, size_t panels, void* b);
  size_t expanded_bytes;  // of one packed byte

  // n bytes of x become n elements of a. Reads no byte at or after `end`, may write 32 elements past the n.
  void (*load_row)(const uint8_t* x, size_t n, const uint8_t* end, int32_t x_zero_point, void* a);

  void (*multiply)(const void* a, size_t a_stride, const void* b, size_t k4, size_t panels, size_t rows, int32_t* acc,
                   size_t acc_stride);
};

struct DenseKernels {
  Dense any;  // every s8 weight
  // Weights whose neighbours along k never add up to more than 128 on one side: 255 * (w0 + w1) fits 16 bits.
  // multiply is null where the instruction set gains nothing by it.
  Dense pair_safe;

  // Rows of accumulators become outputs; see epilogue.h.
  void (*finish)(const Epilogue& epilogue, const int32_t* acc, size_t acc_stride, size_t rows, size_t first_row,
                 size_t first_column, size_t columns);
};

}  // namespace mulshift

#endif
