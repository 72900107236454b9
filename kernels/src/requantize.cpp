#include "requantize.h"

#include "mulshift/kernels.h"

extern "C" void mulshift_requantize_half_up_s32_s32(const int32_t* acc, size_t rows, size_t channels, const int32_t* b,
                                                    const int32_t* c, int32_t zero_point, int32_t qmin, int32_t qmax,
                                                    int32_t* y) {
  for (size_t i = 0; i < rows; ++i) {
    for (size_t j = 0; j < channels; ++j) {
      const size_t at = i * channels + j;
      y[at] = requantize_half_up(acc[at], b[j], c[j], zero_point, qmin, qmax);
    }
  }
}
