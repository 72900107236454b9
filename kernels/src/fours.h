// How to multiply by constant weights: which of their sums along k fit 16 bits.
//
// A step is four k of a packed panel; w0..w3 one column's weights at k = 0, 1 (or 2, 3) of two neighbouring steps:
//
//   |sum of x * w over the four| <= 255 * 128 < 2^15   if those above 0 add up to at most 128, those below to at least -128
#ifndef MULSHIFT_SRC_FOURS_H
#define MULSHIFT_SRC_FOURS_H

#include <cstddef>
#include <cstdint>

#include "buffer.h"
#include "dense.h"

namespace mulshift {

// Whether no two weights that vpmaddubsw adds can leave 16 bits: `pairs` of neighbours along k, in any order.
bool is_pair_safe(const int8_t* packed, size_t pairs);

class Fours {
 public:
  // The best way to multiply by packed weights, and the runs that it needs.
  const Dense* choose(const DenseKernels& kernels, const int8_t* packed, size_t panels, size_t k4);

  // From a panel on.
  Runs runs(size_t panel) const;

 private:
  size_t count(const int8_t* packed, size_t panels, size_t k4, uint32_t* first, uint16_t* counts, size_t* others) const;

  Buffer first_, counts_;
  bool used_ = false;
};

}  // namespace mulshift

#endif
