#include "norm.h"

namespace mulshift {
namespace {

// floor(sqrt(x)), x < 2^62.
constexpr uint64_t root(uint64_t x) {
  uint64_t made = 0;
  for (uint64_t bit = uint64_t{1} << 30; bit; bit >>= 1) {
    if ((made + bit) * (made + bit) <= x) made += bit;
  }
  return made;
}

constexpr int32_t kFractionBits = 46, kSteps = 3;
constexpr uint32_t kFirstEntry = 8, kEntries = 24;

// floor(2^46 / sqrt((i + 1) * 2^27)) = floor(sqrt(2^65 / (i + 1))), i = 8 ... 31.
struct Table {
  uint64_t entries[kEntries];
  constexpr Table() : entries() {
    constexpr uint64_t eighth = uint64_t{1} << 62;
    for (uint32_t i = 0; i < kEntries; ++i) {
      const uint64_t d = i + kFirstEntry + 1;
      entries[i] = root(eighth / d * 8 + eighth % d * 8 / d);
    }
  }
};
constexpr Table table;

struct InverseRoot {
  int32_t r, e;  // r * 2^(-46 - e)
};

// v from 1 to 2^62 - 1. Every product has two factors below 2^32.
InverseRoot inverse_root(uint64_t v) {
  const int32_t c = (65 - __builtin_clzll(v)) / 2;  // 4^(c-1) <= v < 4^c
  const uint64_t m = v << (62 - 2 * c) >> 30;
  uint64_t r = table.entries[(m >> 27) - kFirstEntry];
  for (int32_t i = 0; i < kSteps; ++i) {
    const uint64_t t = m * ((r * r >> 30) + 1);
    r = r * (((uint64_t{3} << 62) - t) >> 32) >> 31;
  }
  return {static_cast<int32_t>(r), c - 16};
}

}  // namespace

NormRow norm_row(const NormSpec& spec, int64_t sum, int64_t squares) {
  const int64_t n = static_cast<int64_t>(spec.n), zx = spec.x_zero_point;
  const int64_t spread = spec.of_mean ? n * squares - sum * sum : n * (squares - 2 * zx * sum + n * zx * zx);
  const int64_t v = spread + spec.epsilon;
  const InverseRoot root = inverse_root(static_cast<uint64_t>(v < 1 ? 1 : v));
  const int32_t k = kFractionBits + root.e - spec.fraction, left = k < 33 ? 33 - k : 0;
  return {static_cast<int32_t>(spec.of_mean ? sum : n * zx), root.r, left, k + left - 32};
}

int64_t largest_normalized(size_t n, int32_t fraction) {
  return static_cast<int64_t>(root(static_cast<uint64_t>(n) << 2 * fraction)) + 1;
}

}  // namespace mulshift
