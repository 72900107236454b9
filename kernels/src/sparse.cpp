#include "sparse.h"

namespace mulshift {

namespace {

constexpr size_t kColumns = 16;

// One panel, read weight by weight.
struct Panel {
  const uint8_t* at;
  const Packing& packing;
  size_t k4;

  int position(size_t step, size_t i) const {
    if (packing.zeros == Zeros::of_panels) return at[step] >> 2 * (i % 4) & 3;
    return at[step / 4 * packing.chunk_bytes() + i] >> 2 * (step % 4) & 3;
  }
  int8_t kept(size_t step, size_t i) const {
    const size_t row = step / packing.steps_of_row();
    const uint8_t* rows = at + packing.head_bytes(k4) + row * kStepBytes;
    if (packing.zeros == Zeros::of_columns) {
      rows = at + step / 4 * packing.chunk_bytes() + kStepBytes + step % 4 / packing.steps_of_row() * kStepBytes;
    }
    if (packing.bits == 8) return static_cast<int8_t>(rows[i]);
    return static_cast<int8_t>((rows[i] >> 4 * (step % 2) & 15) - 8);
  }
};

const char* check_panel(const Panel& panel) {
  const size_t steps = steps_of(panel.k4);
  for (size_t step = 0; step < steps; ++step) {
    for (size_t i = 0; i < kStepBytes; ++i) {
      if (2 * step + i % 4 / 2 >= panel.k4) {
        if (panel.kept(step, i)) return "w is not zero where it is padding";
      } else if (i % 2 && panel.position(step, i) <= panel.position(step, i - 1)) {
        return "w has positions that do not ascend";
      }
    }
  }
  return nullptr;
}

// The places of a step by its byte of positions: of elements of a byte, and of both bytes of larger ones.
struct Places {
  uint32_t of_one[256];
  uint64_t of_two[256];
};

constexpr Places make_places() {
  Places made = {};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    for (uint32_t i = 0; i < 4; ++i) {
      const uint64_t place = (byte >> 2 * i & 3) + i / 2 * 4;
      made.of_one[byte] |= static_cast<uint32_t>(place) << 8 * i;
      made.of_two[byte] |= (2 * place | (2 * place + 1) << 8) << 16 * i;
    }
  }
  return made;
}

constexpr Places kPlaces = make_places();

}  // namespace

const char* check_zeros(const uint8_t* packed, const Packing& packing, size_t k4, size_t panels) {
  const size_t stride = packing.panel_bytes(k4);
  for (size_t p = 0; p < panels; ++p) {
    if (const char* wrong = check_panel({packed + p * stride, packing, k4})) return wrong;
  }
  return nullptr;
}

void unpack_zeros(const uint8_t* packed, const Packing& packing, size_t k4, size_t panels, int8_t* unpacked) {
  std::memset(unpacked, 0, panels * k4 * kStepBytes);
  for (size_t p = 0; p < panels; ++p, packed += packing.panel_bytes(k4), unpacked += k4 * kStepBytes) {
    const Panel panel = {packed, packing, k4};
    for (size_t step = 0; step < steps_of(k4); ++step) {
      for (size_t i = 0; i < kStepBytes; ++i) {
        const size_t four = 2 * step + i % 4 / 2;
        const int position = panel.position(step, i);
        if (four < k4) unpacked[(four * kColumns + i / 4) * 4 + static_cast<size_t>(position)] |= panel.kept(step, i);
      }
    }
  }
}

void find_places(const uint8_t* positions, size_t k4, size_t element, uint8_t* places) {
  for (size_t step = 0; step < steps_of(k4); ++step) {
    if (element == 1) {  // the second of two steps in sixteen bytes is 8 further
      const uint32_t four = kPlaces.of_one[positions[step]] + (step % 2 ? 0x08080808u : 0);
      std::memcpy(places + 4 * step, &four, sizeof(four));
    } else {
      std::memcpy(places + 8 * step, &kPlaces.of_two[positions[step]], 8);
    }
  }
}

}  // namespace mulshift
