// Max pooling of one window, channels innermost.
//
//   y[c] = max over r < rows, i < columns of x[r * row_step + i * column_step + c]     c < channels
//
// Layouts    x: the first element of the window that is inside the image; steps in elements. rows, columns at least 1.
#ifndef MULSHIFT_SRC_POOL_H
#define MULSHIFT_SRC_POOL_H

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace mulshift {

struct PoolKernels {
  void (*max_u8)(const uint8_t* x, size_t rows, size_t columns, size_t row_step, size_t column_step, size_t channels,
                 uint8_t* y);
  void (*max_s8)(const int8_t* x, size_t rows, size_t columns, size_t row_step, size_t column_step, size_t channels,
                 int8_t* y);
};

template <class V, class T>
class MaxPool {
 public:
  static void run(const T* x, size_t rows, size_t columns, size_t row_step, size_t column_step, size_t channels, T* y) {
    const Window window{rows, columns, row_step, column_step};
    size_t c = 0;
    for (; c + kWide <= channels; c += kWide) block<Wide>(window, x + c, y + c);
    if (c == channels) return;
    if (channels >= kWide) return block<Wide>(window, x + channels - kWide, y + channels - kWide);
    for (; c + kNarrow <= channels; c += kNarrow) block<Narrow>(window, x + c, y + c);
    for (; c < channels; ++c) block<T>(window, x + c, y + c);
  }

 private:
  static constexpr size_t kWide = 32, kNarrow = 8;
  // Vectors of the compiler: it has the instructions of the file that this is compiled in.
  typedef T Wide __attribute__((vector_size(kWide)));
  typedef T Narrow __attribute__((vector_size(kNarrow)));

  struct Window {
    size_t rows, columns, row_step, column_step;
  };

  // y[0..] = max, as many elements as B has.
  template <class B>
  static void block(const Window& w, const T* x, T* y) {
    B most, other;
    std::memcpy(&most, x, sizeof(B));
    for (size_t r = 0; r < w.rows; ++r) {
      const T* p = x + r * w.row_step;
      for (size_t i = 0; i < w.columns; ++i, p += w.column_step) {
        std::memcpy(&other, p, sizeof(B));
        most = other > most ? other : most;
      }
    }
    std::memcpy(y, &most, sizeof(B));
  }
};

}  // namespace mulshift

#endif
