// The second operand of a product of two activations, packed at run time as weights are ("k4n16", dense.h).
#ifndef MULSHIFT_SRC_PACK_H
#define MULSHIFT_SRC_PACK_H

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "dense.h"

namespace mulshift {

struct PackKernels {
  // x: s8 [k][n], rows `stride` bytes apart -> packed [n / 16][k / 4][16][4], rounded up, zero where it is padding.
  void (*rows)(const int8_t* x, size_t stride, size_t k, size_t n, int8_t* packed);
};

template <class V>
struct Pack {
  static void rows(const int8_t* x, size_t stride, size_t k, size_t n, int8_t* packed) {
    alignas(16) static constexpr int8_t nothing[kPanel] = {};
    for (size_t column = 0; column < n; column += kPanel) {
      const size_t count = n - column < kPanel ? n - column : kPanel;
      for (size_t first = 0; first < k; first += 4, packed += 4 * kPanel) {
        const int8_t* from[4];
        int8_t held[4][kPanel] = {};
        for (size_t i = 0; i < 4; ++i) {
          from[i] = first + i < k ? x + (first + i) * stride + column : nothing;
          if (count == kPanel || first + i >= k) continue;
          std::memcpy(held[i], from[i], count);
          from[i] = held[i];
        }
        V::interleave(from[0], from[1], from[2], from[3], packed);
      }
    }
  }
};

// x: s8 [n][k], rows `stride` bytes apart -> the same.
inline void pack_transposed(const int8_t* x, size_t stride, size_t k, size_t n, int8_t* packed) {
  const size_t k4 = (k + 3) / 4, whole = k / 4;
  for (size_t column = 0; column < n; column += kPanel, packed += k4 * kPanel * 4) {
    for (size_t i = 0; i < kPanel; ++i) {
      int8_t* to = packed + 4 * i;
      if (column + i >= n) {
        for (size_t j = 0; j < k4; ++j) std::memset(to + j * kPanel * 4, 0, 4);
        continue;
      }
      const int8_t* from = x + (column + i) * stride;
      for (size_t j = 0; j < whole; ++j) std::memcpy(to + j * kPanel * 4, from + 4 * j, 4);
      if (whole == k4) continue;
      int8_t last[4] = {};
      std::memcpy(last, from + 4 * whole, k - 4 * whole);
      std::memcpy(to + whole * kPanel * 4, last, 4);
    }
  }
}

}  // namespace mulshift

#endif
