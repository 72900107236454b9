// The shape of a tensor, in place: no tensor of ours has more than eight axes.
#ifndef MULSHIFT_SRC_SHAPE_H
#define MULSHIFT_SRC_SHAPE_H

#include <cstddef>
#include <cstdint>

namespace mulshift {

constexpr size_t kMaxRank = 8;

struct Shape {
  size_t rank = 0;
  int64_t dims[kMaxRank] = {};

  size_t size(size_t axis) const { return static_cast<size_t>(dims[axis]); }
  size_t count() const { return count(0, rank); }
  // Elements of one slice over the axes [first, last).
  size_t count(size_t first, size_t last) const {
    size_t n = 1;
    for (size_t i = first; i < last; ++i) n *= size(i);
    return n;
  }
};

}  // namespace mulshift

#endif
