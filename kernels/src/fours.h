// How to multiply by constant weights: which of their sums along k fit 16 bits.
//
// A step is four k of a packed panel; w0, w1 one column's weights at k = 0, 1 (or 2, 3) of one step, w2, w3 of another:
//
//   |sum of x * w over the four| <= 255 * 128 < 2^15   if those above 0 add up to at most 128, those below to at least -128
//
// Any two steps of a panel can be a couple. Neighbours stay together where they fit, so that memory is read almost in order.
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
  // The best way to multiply by packed weights, and the couples that it needs.
  const Dense* choose(const DenseKernels& kernels, const int8_t* packed, size_t panels, size_t k4);

  // From a panel on.
  Couples couples(size_t panel) const;

 private:
  Buffer steps_, counts_;
  size_t k4_ = 0;
  bool used_ = false;
};

}  // namespace mulshift

#endif
