// Small numbers that cut work into parts and bound what they sum.
#ifndef MULSHIFT_SRC_PARTS_H
#define MULSHIFT_SRC_PARTS_H

#include <cstddef>
#include <cstdint>

namespace mulshift {

inline size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }

// Where the i-th of `parts` nearly equal parts of [0, total) starts.
inline size_t part(size_t total, size_t parts, size_t i) {
  return total / parts * i + (i < total % parts ? i : total % parts);
}

// max |x - zero_point| over low <= x <= high.
inline int64_t farthest(int32_t zero_point, int32_t low, int32_t high) {
  return zero_point - low > high - zero_point ? zero_point - low : high - zero_point;
}

}  // namespace mulshift

#endif
