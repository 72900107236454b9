#include "ratios.h"

namespace mulshift {
namespace {

// Bits by which x * b has to go up so that c is at least 33.
int32_t wanted(int32_t c) { return c < 33 ? 33 - c : 0; }

}  // namespace

Ratio find_ratio_of_all(int64_t bound, int32_t* b, int32_t* c, size_t n) {
  Ratio all;
  all.way = Way::low;
  for (size_t i = 0; i < n; ++i) {
    const Ratio one = find_ratio(bound, b[i], c[i]);
    if (one.way > all.way) all.way = one.way;
    if (wanted(c[i]) - room_of(b[i]) > all.left) all.left = wanted(c[i]) - room_of(b[i]);
  }
  if (all.way == Way::low) all.left = 0;
  if (all.way != Way::high) return all;
  for (size_t i = 0; i < n; ++i) {
    if (c[i] + all.left > 63) all.way = Way::any;
  }
  if (all.left > room_of(bound)) all.way = Way::any;
  if (all.way == Way::any) return all;
  for (size_t i = 0; i < n; ++i) {
    const int32_t rest = wanted(c[i]) - all.left, up = rest > 0 ? rest : 0;
    b[i] <<= up;
    c[i] += up + all.left - 32;
  }
  return all;
}

SumRatio find_sum_ratio(int64_t bound1, int32_t b1, int64_t bound2, int32_t b2, int32_t c) {
  const SumRatio any{Way::any, 0, b1, b2, c};
  const int32_t size1 = b1 < 0 ? -b1 : b1, size2 = b2 < 0 ? -b2 : b2;
  const int64_t sum = bound1 * size1 + bound2 * size2;
  if (c <= 31 && sum + (int64_t{1} << (c - 1)) <= INT32_MAX) return {Way::low, 0, b1, b2, c};
  const int32_t all = wanted(c), room = room_of(size1 > size2 ? size1 : size2);
  const int32_t up = all < room ? all : room, left = all - up;
  if (left > room_of(bound1 > bound2 ? bound1 : bound2) || c + all > 63) return any;
  if (sum >= int64_t{1} << (62 - all)) return any;
  const auto raised = [up](int64_t b) { return static_cast<int32_t>(b * (int64_t{1} << up)); };
  return {Way::high, left, raised(b1), raised(b2), c + all - 32};
}

PairRatio find_pair_ratio(int64_t bound1, int32_t b1, int64_t bound2, int32_t b2, int32_t c) {
  constexpr int64_t kWord = 1 << 15;
  if (bound1 > kWord || bound2 > kWord || c < 17 || c > 47) return {};
  const auto high = [](int32_t b) { return static_cast<int32_t>((int64_t{b} + kWord) >> 16); };
  const auto size = [](int32_t b) { return int64_t{b < 0 ? -b : b}; };
  const auto low = [](int32_t b, int32_t upper) { return static_cast<int32_t>(b - int64_t{upper} * (1 << 16)); };
  const int32_t high1 = high(b1), high2 = high(b2), low1 = low(b1, high1), low2 = low(b2, high2);
  const int64_t highs = bound1 * size(high1) + bound2 * size(high2), lows = bound1 * size(low1) + bound2 * size(low2);
  if (size(high1) >= kWord || size(high2) >= kWord || lows > INT32_MAX) return {};
  if (highs + kWord + (int64_t{1} << (c - 17)) > INT32_MAX) return {};
  return {true, high1, high2, low1, low2, c - 16};
}

}  // namespace mulshift
