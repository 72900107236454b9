#include "fours.h"

#include <algorithm>

namespace mulshift {

namespace {

constexpr size_t kStep = kPanel * 4;  // bytes
constexpr uint8_t kMost = 128;
constexpr size_t kTries = 16;  // partners that a step is tried with

// What the pairs of a step add up to above 0 and below: 255 stands for 256 too.
struct Sides {
  uint8_t sums[kStep];
  uint8_t most;

  void set(const int8_t* w) {
    for (size_t i = 0; i < kStep / 2; ++i) {
      const int a = w[2 * i], b = w[2 * i + 1];
      const int above = (a > 0 ? a : 0) + (b > 0 ? b : 0), below = (a < 0 ? -a : 0) + (b < 0 ? -b : 0);
      sums[i] = static_cast<uint8_t>(above);
      sums[i + kStep / 2] = static_cast<uint8_t>(below > 255 ? 255 : below);
    }
    most = 0;
    for (size_t i = 0; i < kStep; ++i) most = sums[i] > most ? sums[i] : most;
  }

  bool fits() const { return most <= kMost; }
  bool fits(const Sides& other) const {
    uint8_t beyond = 0;
    for (size_t i = 0; i < kStep; ++i) {
      const uint8_t room = static_cast<uint8_t>(kMost - sums[i]);
      beyond = static_cast<uint8_t>(beyond | (other.sums[i] > room));
    }
    return !beyond;
  }
};

// The steps of one panel, coupled as far as they can be.
class Matching {
 public:
  bool reserve(size_t k4) {
    sides_ = sides_buffer_.array<Sides>(k4);
    rest_ = rest_buffer_.array<uint16_t>(k4);
    partner_ = partner_buffer_.array<uint16_t>(k4);
    k4_ = k4;
    return sides_ && rest_ && partner_;
  }

  // How many couples there are.
  size_t find(const int8_t* packed) {
    for (size_t i = 0; i < k4_; ++i, packed += kStep) {
      sides_[i].set(packed);
      partner_[i] = kNone;
    }
    found_ = 0;
    neighbours();
    size_t rest = 0;
    for (size_t i = 0; i < k4_; ++i) {
      if (partner_[i] == kNone && sides_[i].fits()) rest_[rest++] = static_cast<uint16_t>(i);
    }
    std::sort(rest_, rest_ + rest, [&](uint16_t a, uint16_t b) {
      return sides_[a].most != sides_[b].most ? sides_[a].most > sides_[b].most : a < b;
    });
    largest_with_smallest(rest);
    size_t left = 0;
    for (size_t i = 0; i < rest; ++i) {
      if (partner_[rest_[i]] == kNone) rest_[left++] = rest_[i];
    }
    for (size_t i = 0; i + 1 < left; i += 2) exchange(rest_[i], rest_[i + 1]);
    return found_;
  }

  // Couples, then the others.
  void write(uint16_t* steps) const {
    for (size_t i = 0; i < k4_; ++i) {
      if (partner_[i] == kNone || partner_[i] < i) continue;
      *steps++ = static_cast<uint16_t>(i);
      *steps++ = partner_[i];
    }
    for (size_t i = 0; i < k4_; ++i) {
      if (partner_[i] == kNone) *steps++ = static_cast<uint16_t>(i);
    }
  }

 private:
  static constexpr uint16_t kNone = UINT16_MAX;

  bool fit(size_t a, size_t b) const { return sides_[a].fits(sides_[b]); }

  void join(size_t a, size_t b) {
    partner_[a] = static_cast<uint16_t>(b);
    partner_[b] = static_cast<uint16_t>(a);
  }

  void neighbours() {
    for (size_t i = 0; i + 1 < k4_; i += 2) {
      if (!sides_[i].fits() || !sides_[i + 1].fits() || !fit(i, i + 1)) continue;
      join(i, i + 1);
      ++found_;
    }
  }

  void largest_with_smallest(size_t rest) {
    for (size_t i = 0; i < rest; ++i) {
      if (partner_[rest_[i]] != kNone) continue;
      size_t tries = 0;
      for (size_t j = rest - 1; j > i && tries < kTries; --j) {
        if (partner_[rest_[j]] != kNone) continue;
        ++tries;
        if (!fit(rest_[i], rest_[j])) continue;
        join(rest_[i], rest_[j]);
        ++found_;
        break;
      }
    }
  }

  // Two couples of a couple and two others.
  void exchange(size_t a, size_t b) {
    for (size_t i = 0, tries = 0; i < k4_ && tries < 4 * kTries; ++i) {
      const size_t j = partner_[i];
      if (j == kNone) continue;
      ++tries;
      if (!fit(a, i) || !fit(b, j)) continue;
      join(a, i);
      join(b, j);
      ++found_;
      return;
    }
  }

  Buffer sides_buffer_, rest_buffer_, partner_buffer_;
  Sides* sides_ = nullptr;
  uint16_t *rest_ = nullptr, *partner_ = nullptr;
  size_t k4_ = 0, found_ = 0;
};

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
    const int a = packed[2 * i], b = packed[2 * i + 1];
    if ((a > 0 ? a : 0) + (b > 0 ? b : 0) > kMost || (a < 0 ? a : 0) + (b < 0 ? b : 0) < -kMost) return false;
  }
  return true;
}

const Dense* Fours::choose(const DenseKernels& kernels, const int8_t* packed, size_t panels, size_t k4) {
  used_ = false;
  k4_ = k4;
  const int most = kernels.small.multiply ? farthest(packed, panels * k4 * kStep) : kMost;
  if (most <= 2) return &kernels.smallest;
  if (most <= 8) return &kernels.small;
  const bool safe = kernels.pair_safe.multiply && is_pair_safe(packed, panels * k4 * kStep / 2);
  const Dense* plain = safe ? &kernels.pair_safe : &kernels.any;
  const Dense* fours = safe ? &kernels.fours : &kernels.any_fours;
  if (!fours->multiply || k4 < 2 || k4 >= UINT16_MAX) return plain;
  Matching matching;
  uint16_t* steps = steps_.array<uint16_t>(panels * k4);
  uint16_t* counts = counts_.array<uint16_t>(panels);
  if (!steps || !counts || !matching.reserve(k4)) return plain;
  size_t couples = 0;
  for (size_t p = 0; p < panels; ++p) {
    const size_t found = matching.find(packed + p * k4 * kStep);
    matching.write(steps + p * k4);
    counts[p] = static_cast<uint16_t>(found);
    couples += found;
    const size_t seen = (p + 1) * (k4 / 2);
    if (!pays(seen - couples, panels * (k4 / 2), safe)) return plain;
  }
  used_ = true;
  return fours;
}

Couples Fours::couples(size_t panel) const {
  if (!used_) return {};
  const Couples all = {static_cast<const uint16_t*>(steps_.data()), static_cast<const uint16_t*>(counts_.data())};
  return all.from_panel(panel, k4_);
}

}  // namespace mulshift
