// Products in plain C++, straight from the packed weights.
#ifndef MULSHIFT_SRC_ISA_PORTABLE_DENSE_H
#define MULSHIFT_SRC_ISA_PORTABLE_DENSE_H

#include <cstring>

#include "../dense.h"

namespace mulshift {
namespace portable {

inline void load_row(const uint8_t* x, size_t n, const uint8_t*, int32_t, void* a) { std::memcpy(a, x, n); }

inline void load_windows(const Windows& w, int32_t, void* a, size_t a_stride) {
  for (size_t i = 0; i < w.count; ++i) {
    uint8_t* out = static_cast<uint8_t*>(a) + i * a_stride;
    for (size_t r = 0; r < w.rows; ++r) std::memcpy(out + r * w.n, w.x + i * w.step + r * w.row_stride, w.n);
  }
}

inline void multiply(const Product& p, int32_t* acc, size_t acc_stride) {
  for (size_t n = 0; n < p.columns; n += kPanel) {
    const int8_t* w = static_cast<const int8_t*>(p.b) + n / kPanel * p.b_stride;
    for (size_t r = 0; r < p.rows; ++r) {
      const uint8_t* x = static_cast<const uint8_t*>(p.a) + r * p.a_stride;
      uint32_t sum[kPanel];  // modulo 2^32
      std::memcpy(sum, p.init + r * p.init_stride + n, sizeof(sum));
      for (size_t k = 0; k < p.k4; ++k) {
        const int8_t* at = w + k * kPanel * 4;
        for (size_t j = 0; j < kPanel; ++j) {
          for (size_t i = 0; i < 4; ++i) sum[j] += static_cast<uint32_t>(x[4 * k + i] * at[4 * j + i]);
        }
      }
      std::memcpy(acc + r * acc_stride + n, sum, sizeof(sum));
    }
  }
}

constexpr Dense kDense = {4, 1, Held::raw, nullptr, 1, load_row, load_windows, multiply, nullptr};

}  // namespace portable
}  // namespace mulshift

#endif
