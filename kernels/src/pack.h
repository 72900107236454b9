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
  // x: s8 [n][k], rows `stride` bytes apart -> the same.
  void (*columns)(const int8_t* x, size_t stride, size_t k, size_t n, int8_t* packed);
};

template <class V>
struct Pack {
  static void rows(const int8_t* x, size_t stride, size_t k, size_t n, int8_t* packed) {
    for (size_t column = 0; column < n; column += kPanel) {
      const size_t count = n - column < kPanel ? n - column : kPanel;
      for (size_t first = 0; first < k; first += 4, packed += kBytes) {
        const int8_t* from = x + first * stride + column;
        if (count == kPanel && k - first >= 4) {
          V::interleave(from, from + stride, from + 2 * stride, from + 3 * stride, packed);
          continue;
        }
        int8_t held[4][kPanel] = {};
        for (size_t i = 0; i < 4 && first + i < k; ++i) std::memcpy(held[i], from + i * stride, count);
        V::interleave(held[0], held[1], held[2], held[3], packed);
      }
    }
  }

  static void columns(const int8_t* x, size_t stride, size_t k, size_t n, int8_t* packed) {
    const size_t k4 = (k + 3) / 4;
    for (size_t column = 0; column < n; column += kPanel, packed += k4 * kBytes) {
      for (size_t i = 0; i < kPanel; i += 4) {
        const int8_t* from = x + (column + i) * stride;
        for (size_t j = 0; j < k4; j += 4) {
          four(from + 4 * j, stride, k - 4 * j, column + i, n, packed + j * kBytes + 4 * i);
        }
      }
    }
  }

 private:
  static constexpr size_t kBytes = kPanel * 4;  // of a k4

  // Four columns from `column` on and sixteen k; `left` are left of them.
  static void four(const int8_t* from, size_t stride, size_t left, size_t column, size_t n, int8_t* to) {
    if (left >= 16 && column + 4 <= n) {
      return V::transpose(from, from + stride, from + 2 * stride, from + 3 * stride, to, static_cast<int>(kBytes));
    }
    int8_t held[4][16] = {}, turned[4][16];
    const size_t count = left < 16 ? left : 16;
    for (size_t i = 0; i < 4 && column + i < n; ++i) std::memcpy(held[i], from + i * stride, count);
    V::transpose(held[0], held[1], held[2], held[3], turned[0], 16);
    for (size_t i = 0; 4 * i < count; ++i) std::memcpy(to + i * kBytes, turned[i], 16);
  }
};

}  // namespace mulshift

#endif
