// y = table[x] by the bits of x.
//
// Layouts    x: n elements of 8 or (wide) 16 bits; table: 2^8 or 2^16 entries; y: n entries, bytes or 16-bit words.
//            Of 8-bit x and bytes, y may be x.
#ifndef MULSHIFT_SRC_TABLE_H
#define MULSHIFT_SRC_TABLE_H

#include <cstddef>
#include <cstdint>

namespace mulshift {

struct TableKernels {
  void (*bytes)(const uint8_t* x, size_t n, const uint8_t* table, uint8_t* y);
  void (*words)(const uint8_t* x, size_t n, const int16_t* table, int16_t* y);
  void (*wide_bytes)(const uint16_t* x, size_t n, const uint8_t* table, uint8_t* y);
  void (*wide_words)(const uint16_t* x, size_t n, const int16_t* table, int16_t* y);
};

template <class V>
struct Table {
  static void bytes(const uint8_t* x, size_t n, const uint8_t* table, uint8_t* y) { look_up(x, n, table, y); }
  static void words(const uint8_t* x, size_t n, const int16_t* table, int16_t* y) { look_up(x, n, table, y); }
  static void wide_bytes(const uint16_t* x, size_t n, const uint8_t* table, uint8_t* y) { look_up(x, n, table, y); }
  static void wide_words(const uint16_t* x, size_t n, const int16_t* table, int16_t* y) { look_up(x, n, table, y); }

 private:
  template <class X, class Y>
  static void look_up(const X* x, size_t n, const Y* table, Y* y) {
    for (size_t i = 0; i < n; ++i) y[i] = table[x[i]];
  }
};

}  // namespace mulshift

#endif
