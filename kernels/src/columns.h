// The constants of a product's columns, prepared once: bias with the zero point folded in, b, c, and what is proven.
#ifndef MULSHIFT_SRC_COLUMNS_H
#define MULSHIFT_SRC_COLUMNS_H

#include <cstddef>
#include <cstdint>

#include "buffer.h"
#include "epilogue.h"

namespace mulshift {

// What the columns of one node were made from. `b` and `c` have one entry or `count`.
struct ColumnInputs {
  size_t count;  // output channels of all groups
  size_t groups;
  const int32_t *bias, *b, *c;  // b, c null: the accumulator is the output
  bool one_ratio;
  int32_t x_zero_point;
  int32_t spare = 0;  // what rows may take off the shifts
};

// Sums over the weights of column n of a group: sum w and sum |w|.
struct ColumnSums {
  int64_t sum, magnitude;
};

class Columns {
 public:
  // sums(data, group, n) tells the weights' sums. The product multiplies x less a part of its zero point, as `held` says; the
  // bias takes the rest. Returns null, or what is wrong with the node.
  const char* prepare(const ColumnInputs& in, Held held, ColumnSums (*sums)(const void*, size_t, size_t),
                      const void* data);

  // The stages of one group: its columns start at 0.
  Stages of_group(const Stages& stages, size_t group) const;

  size_t panels() const { return panels_; }  // of one group
  size_t per_group() const { return per_group_; }

 private:
  size_t panels_ = 0, per_group_ = 0;
  Buffer bias_, b_, shift_, ways_;
};

}  // namespace mulshift

#endif
