// A matrix of a call as the second operand of products: packed, expanded, multiplied in parts that fit the cache.
//
//   acc[m][n] = init[n] + sum over k < 4 * k4 of a[m][k] * w[k][n]
//
// Layouts and ranges as in dense.h. Memory is the thread's and is kept: nothing is allocated once it has grown.
#ifndef MULSHIFT_SRC_PANELS_H
#define MULSHIFT_SRC_PANELS_H

#include "buffer.h"
#include "dense.h"

namespace mulshift {

constexpr size_t kPreparedRows = 16;  // fewer do not win back what preparing takes: the time of about eight
constexpr size_t kRowSlack = 64;  // elements that load_row may write past a row

// How to multiply that many rows by it.
inline const Dense& dense_of_call(const DenseKernels& kernels, size_t rows) {
  if (rows <= kFewRows && kernels.few.multiply) return kernels.few;
  return rows >= kPreparedRows && kernels.of_call.multiply ? kernels.of_call : kernels.any;
}

inline size_t whole_panels(size_t n) { return (n + kPanel - 1) / kPanel * kPanel; }

class Panels {
 public:
  // x: s8 [k][n], rows `stride` bytes apart. False if there is no memory.
  bool pack(const Dense& dense, const int8_t* x, size_t stride, size_t k, size_t n);
  // x: s8 [n][k], rows `stride` bytes apart.
  bool pack_transposed(const Dense& dense, const int8_t* x, size_t stride, size_t k, size_t n);

  size_t k4() const { return k4_; }

  // The bias of each column of the first n, over the first k4: -folded * sum of w, for products whose a holds x less a part of
  // its zero point and `folded` is the rest. Null if there is no memory.
  const int32_t* bias(const Dense& dense, int32_t folded, size_t k4, size_t n);

  // acc: [rows][whole_panels(n)].
  void multiply(const Dense& dense, const void* a, size_t a_stride, size_t rows, size_t k4, size_t n, const int32_t* init,
                int32_t* acc) const;

 private:
  bool reserve(size_t k, size_t n);
  bool expand(const Dense& dense);
  bool prepare(const Dense& dense);
  size_t steps(size_t part) const { return k4_ - part * part_ < part_ ? k4_ - part * part_ : part_; }

  size_t k4_ = 0, panels_ = 0;
  size_t part_ = 1;                    // steps along k that are worked on at a time
  size_t stride_ = 0, part_bytes_ = 0;  // from one panel, one part of it to the next
  const void* data_ = nullptr;
  Buffer packed_, expanded_, ones_, bias_;
};

}  // namespace mulshift

#endif
