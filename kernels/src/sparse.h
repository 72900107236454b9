// Weights of which at most two of four along k are not zero, packed at compile time: two kept weights and two positions.
//
// A four is a step of k4n16 (dense.h), a step here is two of them: eight k. It keeps four weights of each of sixteen
// columns, two of its first four, then two of its second; positions are 0 to 3 within a four, the second above the first.
// The last step has one four where k4 is odd; what its second keeps is 0.
//
// Layouts    Zeros::of_columns: u8 [panel][chunks][64 + kept weights of four steps]: byte i of the 64 holds the positions of
//            kept weight i, of the first step lowest. Zeros::of_panels: u8 [panel][rows of positions + rows of kept weights][64]: a byte of
//            positions a step, for all columns of the panel, of the first kept weight lowest; then the kept weights.
//            Kept weights are s8, 64 a step, or of 4 bits as in low_bits.h, 64 bytes for two steps. Unpacked as there.
#ifndef MULSHIFT_SRC_SPARSE_H
#define MULSHIFT_SRC_SPARSE_H

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "low_bits.h"

namespace mulshift {

inline size_t steps_of(size_t k4) { return (k4 + 1) / 2; }

// The activations of the k4 fours, one or more, that are left of a row: eight, 0 beyond one four.
inline uint64_t eight_of(const void* a, size_t k4) {
  uint64_t x = 0;
  std::memcpy(&x, a, k4 >= 2 ? 8 : 4);
  return x;
}

// Null, or what is wrong with positions or with what the last step keeps.
const char* check_zeros(const uint8_t* packed, const Packing& packing, size_t k4, size_t panels);

// packed -> s8 [panel][k4][64], as the dense kernels take it.
void unpack_zeros(const uint8_t* packed, const Packing& packing, size_t k4, size_t panels, int8_t* unpacked);

// Zeros::of_panels: bytes of `places`, and the places of a panel's positions: where in sixteen bytes of a row of elements of 1
// or 2 bytes each byte of the kept ones lies. Past the last step there is anything.
inline size_t places_bytes(size_t k4, size_t element) { return (steps_of(k4) * 4 * element + 7) / 8 * 8; }
void find_places(const uint8_t* positions, size_t k4, size_t element, uint8_t* places);

struct SparseKernels {
  // Of rows of 4 * k4 elements of 1 or 2 bytes, the kept ones: rows of 4 * steps_of(k4), anything beyond k4. May write 4 bytes
  // past a row.
  void (*gather)(const void* a, size_t a_stride, size_t rows, size_t k4, size_t element, const uint8_t* places, void* out,
                 size_t out_stride);
};

template <class V>
void gather(const void* a, size_t a_stride, size_t rows, size_t k4, size_t element, const uint8_t* places, void* out,
            size_t out_stride) {
  const size_t bytes = 4 * k4 * element, whole = bytes / 16, rest = bytes % 16;
  const uint8_t *from = static_cast<const uint8_t*>(a), *end = from + (rows - 1) * a_stride + bytes;
  uint8_t* to = static_cast<uint8_t*>(out);
  for (size_t r = 0; r < rows; ++r, from += a_stride, to += out_stride) {
    const size_t count = from + 16 * (whole + 1) <= end ? whole + (rest != 0) : whole;
    for (size_t i = 0; i < count; ++i) V::choose(from + 16 * i, places + 8 * i, to + 8 * i);
    if (!rest || count > whole) continue;
    uint8_t last[16] = {};
    std::memcpy(last, from + 16 * whole, rest);
    V::choose(last, places + 8 * whole, to + 8 * whole);
  }
}

}  // namespace mulshift

#endif
