// Products with constant weights, the part that depends on the instruction set.
//
//   acc[m][n] = init[m][n] + sum over k of a[m][k] * w[k][n]     m < rows, n < columns, k < 4 * k4
//
// where init is the bias, or the sums over an earlier part of k.
//
// Layouts    packed w ("k4n16"): s8 [panel][k4][16 columns][4 k], zero where n or k is padding.
//            a: one row after the other, a_stride bytes apart, 4 * k4 elements of `Dense::element` bytes each.
//            acc: s32 [rows][acc_stride].
// Ranges     a holds x, or x less a constant (Held), so |a| <= 255.
// Overflow   |acc| <= |bias| + sum |w| * max |x - x_zero_point| < 2^31, proven when the node is made. Partial sums, and a
//            bias with the zero point folded in, are modulo 2^32: what an instruction set refuses does not depend on it.
#ifndef MULSHIFT_SRC_DENSE_H
#define MULSHIFT_SRC_DENSE_H

#include <cstddef>
#include <cstdint>

namespace mulshift {

struct Epilogue;
struct Stages;

constexpr size_t kPanel = 16;   // columns of a panel
constexpr size_t kFewRows = 4;  // of a product whose weights are not expanded
constexpr size_t kPartSteps = 256;  // of a prepared panel

// What an element of a is: x itself (u8), x - x_zero_point (s16), or x - 128 (s8). By sign: x itself, of which a product
// takes x - 128 for a weight w >= 0 and 127 - x for others, each times |w|; the bias takes the rest.
enum class Held : uint8_t { raw, centred, less_128, by_sign };

// What is left of the zero point for the bias to take.
inline int32_t left_of(Held held, int32_t x_zero_point) {
  return held == Held::less_128 ? x_zero_point - 128 : held == Held::centred ? 0 : x_zero_point;
}

// What the bias of a column takes besides, of the sums of its w and |w|: |w| t = w x - 128 w or w x - 127 w.
inline int64_t rest_of(Held held, int64_t sum, int64_t magnitude) {
  return held == Held::by_sign ? (255 * sum + magnitude) / 2 : 0;
}

// In which order the steps of a panel (a step: four k) are taken: couples, which are taken at once, then the others.
struct Couples {
  const uint16_t* steps = nullptr;   // k4 of each panel; null where a product takes them as they come
  const uint16_t* counts = nullptr;  // of each panel: its couples

  Couples from_panel(size_t panel, size_t k4) const {
    return steps ? Couples{steps + panel * k4, counts + panel} : Couples{};
  }
};

struct Product {
  const void* a;
  size_t a_stride;
  const void* b;
  size_t b_stride;  // bytes from one panel to the next
  size_t k4, columns, rows;
  const int32_t* init;
  size_t init_stride;  // 0: the same bias for every row
  Couples couples = {};  // of all of k
  size_t block = 0;  // steps of a block of packed weights, see low_bits.h
  size_t prepared_k4 = 0;  // steps of a prepared panel: k4 or more
};

struct Windows {
  const uint8_t *x, *end;
  size_t rows, n, row_stride, count, step;
};

// One way to multiply.
struct Dense {
  size_t rows;     // of a register tile: blocks of a multiple of it are best
  size_t element;  // bytes of an element of a
  Held held;

  // The panels as `multiply` reads them, into `b`; null if it reads them as they are packed.
  void (*expand)(const int8_t* packed, size_t k4, size_t panels, void* b);
  size_t expanded_bytes;  // of one packed byte

  // n bytes of x become n elements of a. Reads no byte at or after `end`, may write 32 elements past the n.
  void (*load_row)(const uint8_t* x, size_t n, const uint8_t* end, int32_t x_zero_point, void* a);

  // `count` windows of rows x n bytes, row_stride apart in x; windows are `step` bytes apart in x, a_stride in a.
  // The same bytes as load_row row by row.
  void (*load_windows)(const Windows& windows, int32_t x_zero_point, void* a, size_t a_stride);

  // acc = init + a * w for any number of rows. A last panel of which at most 8 columns count may be worked on by half.
  void (*multiply)(const Product& product, int32_t* acc, size_t acc_stride);

  // The same and the first stage of the epilogue in one, without memory between them; null where there is none.
  // For u8 outputs without further stages, no panel of Way::any; stores whole panels. `stages` starts at the first column.
  void (*multiply_to_bytes)(const Product& product, const Stages& stages, uint8_t* y, size_t y_stride);

  size_t step = 1;  // k4 that it takes at a time

  // Of second operands that come from the call: one packed panel, of at most kPartSteps, as `multiply` reads it. It may also
  // read as many elements of a behind those of its k4 as `beyond` says, which must be 0 or belong to k that were prepared.
  void (*prepare)(const int8_t* packed, size_t k4, void* prepared) = nullptr;
  size_t (*prepared_bytes)(size_t k4) = nullptr;
  size_t beyond = 0;
};

struct WinogradKernels;

struct DenseKernels {
  Dense any;  // every s8 weight
  // Weights whose neighbours along k never add up to more than 128 on one side: 255 * (w0 + w1) fits 16 bits.
  // multiply is null where the instruction set gains nothing by it.
  Dense pair_safe;
  // Weights of which most steps have another one with which they fit 16 bits: `couples` of the product says which. `fours`
  // for weights that are pair_safe too, `any_fours` for all others. multiply is null likewise.
  Dense fours, any_fours;
  // Weights of which each is at most 8, or 2, from 0: sums stay in 16 bits for longer. multiply is null likewise.
  Dense small, smallest;
  // At most kFewRows rows: weights are used too seldom to be expanded first. Takes the same a as `any`; null likewise.
  Dense few;
  // The same straight from weights packed to 4 or 2 bits (low_bits.h), all of k at once. Take the same a as `small`, or as
  // `any` where there is no `small`; null likewise.
  Dense packed_four, packed_two, packed_blocks;

  // 3x3 convolutions in fewer products, over `any`, whose elements are then s16; null where that gains nothing.
  const WinogradKernels* winograd;

  // Rows of accumulators become outputs; see epilogue.h.
  void (*finish)(const Epilogue& epilogue, const int32_t* acc, size_t acc_stride, size_t rows, size_t first_row,
                 size_t first_column, size_t columns);

  // Weights packed as Zeros::of_columns (sparse.h), of 8 and of 4 bits, and as Zeros::of_panels, of 8 bits: `expand` takes
  // them as they are packed. At most kFewRows rows straight from zeros of columns, all of k at once. Null likewise.
  Dense sparse = {}, sparse_four = {}, shared = {}, few_sparse = {}, few_sparse_four = {};

  // Second operands that come from the call, each panel prepared there (panels.h); null where `any` is as good.
  Dense of_call = {};
};

}  // namespace mulshift

#endif
