// y = table[x] by the bits of x.
//
// Layouts    x: n bytes; table: 256 entries; y: n entries. Bytes go in, bytes or 16-bit words come out;
//            y may be x.
#ifndef MULSHIFT_SRC_TABLE_H
#define MULSHIFT_SRC_TABLE_H

#include <cstddef>
#include <cstdint>

namespace mulshift {

struct TableKernels {
  void (*bytes)(const uint8_t* x, size_t n, const uint8_t* table, uint8_t* y);
  void (*words)(const uint8_t* x, size_t n, const int16_t* table, int16_t* y);
};

template <class V>
struct Table {
  static void bytes(const uint8_t* x, size_t n, const uint8_t* table, uint8_t* y) {
    for (size_t i = 0; i < n; ++i) y[i] = table[x[i]];
  }
  static void words(const uint8_t* x, size_t n, const int16_t* table, int16_t* y) {
    for (size_t i = 0; i < n; ++i) y[i] = table[x[i]];
  }
};

}  // namespace mulshift

#endif
