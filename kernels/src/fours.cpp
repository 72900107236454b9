#include "fours.h"

#include <initializer_list>

namespace mulshift {

namespace {

constexpr size_t kStep = kPanel * 4;  // bytes
constexpr int kMost = 128;

// What weights above and below 0 add up to.
struct Sides {
  int above = 0, below = 0;

  void add(int w) { (w > 0 ? above : below) += w; }
  bool fits() const { return above <= kMost && below >= -kMost; }
};

// Whether all fours of two steps fit.
bool fits(const int8_t* w) {
  for (size_t i = 0; i < kStep; i += 2) {
    Sides sides;
    for (const size_t at : {i, i + 1, i + kStep, i + kStep + 1}) sides.add(w[at]);
    if (!sides.fits()) return false;
  }
  return true;
}

// The weight farthest from 0.
int farthest(const int8_t* packed, size_t n) {
  int most = 0;
  for (size_t i = 0; i < n; ++i) {
    const int far = packed[i] < 0 ? -packed[i] : packed[i];
    most = far > most ? far : most;
  }
  return most;
}

// In quarters of what two steps of two at once save: how many of all double steps may be others.
bool pays(size_t others, size_t all, bool pair_safe) { return pair_safe ? 4 * others < 3 * all : 4 * others < all; }

}  // namespace

bool is_pair_safe(const int8_t* packed, size_t pairs) {
  for (size_t i = 0; i < pairs; ++i) {
    Sides sides;
    sides.add(packed[2 * i]);
    sides.add(packed[2 * i + 1]);
    if (!sides.fits()) return false;
  }
  return true;
}

// Counts of runs that fit and of others, in turns; how many numbers. Writes none if `counts` is null.
size_t Fours::count(const int8_t* packed, size_t panels, size_t k4, uint32_t* first, uint16_t* counts,
                    size_t* others) const {
  size_t made = 0;
  for (size_t p = 0; p < panels; ++p, packed += k4 * kStep) {
    if (counts) first[p] = static_cast<uint32_t>(made);
    bool fitting = true;
    uint16_t length = 0;
    for (size_t i = 0; i < k4 / 2; ++i) {
      const bool now = fits(packed + 2 * i * kStep);
      *others += !now;
      if (now != fitting) {
        if (counts) counts[made] = length;
        ++made;
        length = 0;
        fitting = now;
      }
      ++length;
    }
    if (counts) counts[made] = length;
    ++made;
  }
  return made;
}

const Dense* Fours::choose(const DenseKernels& kernels, const int8_t* packed, size_t panels, size_t k4) {
  used_ = false;
  const int most = kernels.small.multiply ? farthest(packed, panels * k4 * kStep) : kMost;
  if (most <= 2) return &kernels.smallest;
  if (most <= 8) return &kernels.small;
  const bool safe = kernels.pair_safe.multiply && is_pair_safe(packed, panels * k4 * kStep / 2);
  const Dense* plain = safe ? &kernels.pair_safe : &kernels.any;
  const Dense* fours = safe ? &kernels.fours : &kernels.any_fours;
  if (!fours->multiply || k4 < 2 || k4 / 2 > UINT16_MAX) return plain;
  size_t others = 0;
  const size_t numbers = count(packed, panels, k4, nullptr, nullptr, &others);
  if (!pays(others, panels * (k4 / 2), safe) || numbers > UINT32_MAX) return plain;
  uint32_t* first = first_.array<uint32_t>(panels);
  uint16_t* counts = counts_.array<uint16_t>(numbers);
  if (!first || !counts) return plain;
  count(packed, panels, k4, first, counts, &others);
  used_ = true;
  return fours;
}

Runs Fours::runs(size_t panel) const {
  if (!used_) return {};
  return {static_cast<const uint32_t*>(first_.data()) + panel, static_cast<const uint16_t*>(counts_.data())};
}

}  // namespace mulshift
