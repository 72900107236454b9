// Products in plain C++, straight from the packed weights.
#ifndef MULSHIFT_SRC_ISA_PORTABLE_DENSE_H
#define MULSHIFT_SRC_ISA_PORTABLE_DENSE_H

#include <cstring>

#include "../dense.h"

namespace mulshift {
namespace portable {

inline void load_row(const uint8_t* x, size_t n, const uint8_t*, int32_t, void* a) { std::memcpy(a, x, n); }

inline void multiply(const void* a, size_t a_stride, const void* b, size_t k4, size_t panels, size_t rows, int32_t* acc,
                     size_t acc_stride) {
  const int8_t* w = static_cast<const int8_t*>(b);
  for (size_t p = 0; p < panels; ++p, w += k4 * kPanel * 4) {
    for (size_t r = 0; r < rows; ++r) {
      const uint8_t* x = static_cast<const uint8_t*>(a) + r * a_stride;
      int32_t sum[kPanel] = {};
      for (size_t k = 0; k < k4; ++k) {
        const int8_t* at = w + k * kPanel * 4;
        for (size_t n = 0; n < kPanel; ++n) {
          for (size_t i = 0; i < 4; ++i) sum[n] += x[4 * k + i] * at[4 * n + i];
        }
      }
      std::memcpy(acc + r * acc_stride + p * kPanel, sum, sizeof(sum));
    }
  }
}

constexpr Dense kDense = {4, 1, false, nullptr, 1, load_row, multiply};

}  // namespace portable
}  // namespace mulshift

#endif
