// Weights of 4, 2 or 1 bits, packed at compile time: k4n16 (dense.h) with several steps of k to a byte.
//
// A step is 64 weights: four k of sixteen columns. Byte j of a row holds weight j of 8 / BITS steps, the first one lowest:
//
//   w = field - 2^(BITS - 1), of 1 bit: w = 2 * field - 1        rows of a panel = ceil(k4 / steps to a byte)
//
// Layouts    packed: u8 [panel][rows][64]; unpacked: s8 [panel][k4][64].
#ifndef MULSHIFT_SRC_LOW_BITS_H
#define MULSHIFT_SRC_LOW_BITS_H

#include <cstddef>
#include <cstdint>

namespace mulshift {

constexpr size_t kStepBytes = 64;

// Bytes of one panel of a matrix of k4 steps.
constexpr size_t packed_panel_bytes(int bits, size_t k4) {
  const size_t steps = 8 / static_cast<size_t>(bits);
  return (k4 + steps - 1) / steps * kStepBytes;
}

// packed -> unpacked, exactly k4 steps a panel.
using Unpack = void (*)(const uint8_t* packed, size_t k4, size_t panels, int8_t* unpacked);

struct LowBitsKernels {
  Unpack four, two, one;

  Unpack of(int bits) const { return bits == 4 ? four : bits == 2 ? two : bits == 1 ? one : nullptr; }
};

template <class V, int BITS>
void unpack(const uint8_t* packed, size_t k4, size_t panels, int8_t* unpacked) {
  constexpr size_t kSteps = 8 / BITS;
  constexpr int kMask = (1 << BITS) - 1, kScale = BITS == 1 ? 2 : 1, kHalf = 1 << (BITS - 1);
  for (size_t p = 0; p < panels; ++p) {
    for (size_t first = 0; first < k4; first += kSteps, packed += kStepBytes) {
      for (size_t i = 0; i < kSteps && first + i < k4; ++i, unpacked += kStepBytes) {
        const int shift = static_cast<int>(i) * BITS;
        for (size_t j = 0; j < kStepBytes; j += 16) V::fields(packed + j, shift, kMask, kScale, kHalf, unpacked + j);
      }
    }
  }
}

}  // namespace mulshift

#endif
