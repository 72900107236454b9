#include "columns.h"

namespace mulshift {

namespace {

constexpr int64_t kLimit = int64_t{1} << 31;

// Whether acc * b + 2^(c-1) fits int32 for all |acc| <= bound.
bool is_narrow(int64_t bound, int32_t b, int32_t c) {
  if (c > 31) return false;
  const int64_t half = int64_t{1} << (c - 1);
  return half < kLimit && (b == 0 || bound <= (kLimit - 1 - half) / b);
}

}  // namespace

const char* Columns::prepare(const ColumnInputs& in, bool folded, ColumnSums (*sums)(const void*, size_t, size_t),
                             const void* data) {
  per_group_ = in.count / in.groups;
  panels_ = (per_group_ + kPanel - 1) / kPanel;
  const size_t padded = in.groups * panels_ * kPanel;
  int32_t* bias = bias_.array<int32_t>(padded);
  int32_t* b = b_.array<int32_t>(padded);
  int32_t* c = c_.array<int32_t>(padded);
  uint8_t* narrow = narrow_.array<uint8_t>(in.groups * panels_);
  if (!bias || !b || !c || !narrow) return "out of memory";
  for (size_t i = 0; i < padded; ++i) c[i] = 2;
  for (size_t i = 0; i < in.groups * panels_; ++i) narrow[i] = 1;
  const int32_t most_x = in.x_zero_point > 255 - in.x_zero_point ? in.x_zero_point : 255 - in.x_zero_point;
  for (size_t group = 0; group < in.groups; ++group) {
    for (size_t n = 0; n < per_group_; ++n) {
      const size_t from = group * per_group_ + n, to = group * panels_ * kPanel + n;
      const ColumnSums w = sums(data, group, n);
      const int64_t magnitude = in.bias[from] < 0 ? -int64_t{in.bias[from]} : in.bias[from];
      const int64_t bound = magnitude + w.magnitude * most_x;
      const int64_t moved = in.bias[from] - (folded ? w.sum * in.x_zero_point : 0);
      const int64_t partial = (moved < 0 ? -moved : moved) + w.magnitude * 255;
      if (bound >= kLimit || partial >= kLimit) {
        return "its int32 accumulator may overflow";
      }
      bias[to] = static_cast<int32_t>(moved);
      if (!in.b) continue;
      b[to] = in.b[in.one_ratio ? 0 : from];
      c[to] = in.c[in.one_ratio ? 0 : from];
      if (!is_narrow(bound, b[to], c[to])) narrow[group * panels_ + n / kPanel] = 0;
    }
  }
  return nullptr;
}

Stages Columns::of_group(const Stages& stages, size_t group) const {
  Stages s = stages;
  const size_t first = group * panels_ * kPanel;
  s.bias = static_cast<const int32_t*>(bias_.data()) + first;
  s.b = static_cast<const int32_t*>(b_.data()) + first;
  s.c = static_cast<const int32_t*>(c_.data()) + first;
  s.narrow = static_cast<const uint8_t*>(narrow_.data()) + group * panels_;
  return s;
}

}  // namespace mulshift
