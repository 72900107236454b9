// Weights of 4, 2 or 1 bits, packed at compile time: k4n16 (dense.h) with several steps of k to a byte.
//
// A step is 64 weights: four k of sixteen columns. Byte j of a row holds weight j of 8 / BITS steps, the first one lowest:
//
//   w = field - 2^(BITS - 1), of 1 bit: w = 2 * field - 1        rows of a panel = ceil(k4 / steps to a byte)
//
// In blocks of k a row of 16 multipliers comes before the rows of a block, of 4 bits: w = m * (field - 8), which fits s8.
//
// Layouts    packed: u8 [panel][rows][64], or [panel][blocks][16 + 64 * rows of a block]; unpacked: s8 [panel][k4][64].
#ifndef MULSHIFT_SRC_LOW_BITS_H
#define MULSHIFT_SRC_LOW_BITS_H

#include <cstddef>
#include <cstdint>

namespace mulshift {

constexpr size_t kStepBytes = 64;

constexpr size_t kMultiplierBytes = 16;

// Whether two of four weights are kept, and whose positions of them there are; see sparse.h.
enum class Zeros : uint8_t { none, of_columns, of_panels };

// How the weights of a matrix are packed.
struct Packing {
  int bits = 8;
  size_t block = 0;  // steps of a block, even; 0: there are none
  Zeros zeros = Zeros::none;

  bool is_plain() const { return bits == 8 && zeros == Zeros::none; }
  size_t steps_of_row() const { return 8 / static_cast<size_t>(bits); }
  size_t block_bytes() const { return kMultiplierBytes + block / steps_of_row() * kStepBytes; }
  // Of Zeros::of_columns: bytes of four steps; of Zeros::of_panels: bytes of positions before the kept weights.
  size_t chunk_bytes() const { return kStepBytes + 4 / steps_of_row() * kStepBytes; }
  size_t head_bytes(size_t k4) const { return ((k4 + 1) / 2 + kStepBytes - 1) / kStepBytes * kStepBytes; }
  size_t panel_bytes(size_t k4) const {
    const size_t steps = (k4 + 1) / 2;
    if (zeros == Zeros::of_columns) return (steps + 3) / 4 * chunk_bytes();
    if (zeros == Zeros::of_panels) return head_bytes(k4) + (steps + steps_of_row() - 1) / steps_of_row() * kStepBytes;
    const size_t whole = block ? block : steps_of_row(), count = (k4 + whole - 1) / whole;
    return count * (block ? block_bytes() : kStepBytes);
  }
};

// packed -> unpacked, exactly k4 steps a panel.
using Unpack = void (*)(const uint8_t* packed, const Packing& packing, size_t k4, size_t panels, int8_t* unpacked);

struct LowBitsKernels {
  Unpack four, two, one, four_in_blocks;

  void unpack(const void* packed, const Packing& packing, size_t k4, size_t panels, int8_t* unpacked) const {
    const Unpack one_of = packing.block ? four_in_blocks : packing.bits == 4 ? four : packing.bits == 2 ? two : one;
    one_of(static_cast<const uint8_t*>(packed), packing, k4, panels, unpacked);
  }
};

template <class V, int BITS>
void unpack_row(const uint8_t* packed, size_t steps, int8_t* unpacked) {
  constexpr int kMask = (1 << BITS) - 1, kScale = BITS == 1 ? 2 : 1, kHalf = 1 << (BITS - 1);
  for (size_t i = 0; i < steps; ++i, unpacked += kStepBytes) {
    const int shift = static_cast<int>(i) * BITS;
    for (size_t j = 0; j < kStepBytes; j += 16) V::fields(packed + j, shift, kMask, kScale, kHalf, unpacked + j);
  }
}

template <class V, int BITS>
void unpack(const uint8_t* packed, const Packing&, size_t k4, size_t panels, int8_t* unpacked) {
  constexpr size_t kSteps = 8 / BITS;
  for (size_t p = 0; p < panels; ++p) {
    for (size_t left = k4; left; packed += kStepBytes) {
      const size_t steps = left < kSteps ? left : kSteps;
      unpack_row<V, BITS>(packed, steps, unpacked);
      unpacked += steps * kStepBytes;
      left -= steps;
    }
  }
}

template <class V>
void unpack_blocks(const uint8_t* packed, const Packing& packing, size_t k4, size_t panels, int8_t* unpacked) {
  for (size_t p = 0; p < panels; ++p) {
    for (size_t first = 0; first < k4; first += packing.block, packed += packing.block_bytes()) {
      const uint8_t* row = packed + kMultiplierBytes;
      const size_t all = k4 - first < packing.block ? k4 - first : packing.block;
      for (size_t left = all; left; row += kStepBytes) {
        const size_t steps = left < 2 ? left : 2;
        unpack_row<V, 4>(row, steps, unpacked);
        for (size_t j = 0; j < steps * kStepBytes; j += 16) {
          V::multiply_fours(unpacked + j, packed + j % kStepBytes / 4, unpacked + j);
        }
        unpacked += steps * kStepBytes;
        left -= steps;
      }
    }
  }
}

}  // namespace mulshift

#endif
