#include "columns.h"

namespace mulshift {

namespace {

constexpr int64_t kLimit = int64_t{1} << 31;

// One column, as the choice of a panel's way sees it.
struct Column {
  int64_t bound;
  int32_t b, c;
};

// The fastest way that is exact for all columns of a panel, and their b and shift in it: shifts of Way::high above `spare`
// where there is room for it.
PanelWay choose(const Column* columns, size_t count, int32_t spare, int32_t* b, int32_t* shift) {
  PanelWay found = {Way::low, 0};
  int32_t room = 31, least_left = 0;
  const auto wanted = [&](size_t i, int32_t more) {
    const int32_t c = columns[i].c - more;
    return c < 33 ? 33 - c : 0;
  };
  for (size_t i = 0; i < count; ++i) {
    const Ratio ratio = find_ratio(columns[i].bound, columns[i].b, columns[i].c);
    if (ratio.way > found.way) found.way = ratio.way;
  }
  if (found.way == Way::high) {
    for (size_t i = 0; i < count; ++i) {
      const int32_t room_of_b = room_of(columns[i].b);
      if (wanted(i, 0) - room_of_b > least_left) least_left = wanted(i, 0) - room_of_b;
      if (wanted(i, spare) - room_of_b > found.left) found.left = wanted(i, spare) - room_of_b;
      if (room_of(columns[i].bound) < room) room = room_of(columns[i].bound);
    }
    if (found.left > room) found.left = room;
    if (least_left > room) found = {Way::any, 0};
  }
  for (size_t i = 0; i < count; ++i) {
    b[i] = columns[i].b;
    shift[i] = columns[i].c;
    if (found.way != Way::high) continue;
    const int32_t rest = wanted(i, spare) - found.left, up = rest > 0 ? rest : 0, room_of_b = room_of(columns[i].b);
    const int32_t s = up < room_of_b ? up : room_of_b;
    b[i] = columns[i].b << s;
    shift[i] = columns[i].c + s + found.left - 32;
    if (shift[i] > 31) found.way = Way::any;
  }
  found.least = 63;
  for (size_t i = 0; i < count; ++i) {
    if (shift[i] < found.least) found.least = shift[i];
  }
  if (found.way != Way::any) return found;
  for (size_t i = 0; i < count; ++i) {
    b[i] = columns[i].b;
    shift[i] = columns[i].c;
  }
  return {Way::any, 0};
}

}  // namespace

const char* Columns::prepare(const ColumnInputs& in, Held held, ColumnSums (*sums)(const void*, size_t, size_t),
                             const void* data) {
  per_group_ = in.count / in.groups;
  panels_ = (per_group_ + kPanel - 1) / kPanel;
  const size_t padded = in.groups * panels_ * kPanel;
  int32_t* bias = bias_.array<int32_t>(padded);
  int32_t* b = b_.array<int32_t>(padded);
  int32_t* shift = shift_.array<int32_t>(padded);
  PanelWay* ways = ways_.array<PanelWay>(in.groups * panels_);
  if (!bias || !b || !shift || !ways) return "out of memory";
  for (size_t i = 0; i < padded; ++i) shift[i] = 2;
  const int64_t folded = left_of(held, in.x_zero_point);
  const int32_t most_x = in.x_zero_point > 255 - in.x_zero_point ? in.x_zero_point : 255 - in.x_zero_point;
  for (size_t panel = 0; panel < in.groups * panels_; ++panel) {
    const size_t group = panel / panels_, first = panel % panels_ * kPanel;
    const size_t count = per_group_ - first < kPanel ? per_group_ - first : kPanel;
    Column columns[kPanel];
    for (size_t i = 0; i < count; ++i) {
      const size_t from = group * per_group_ + first + i;
      const ColumnSums w = sums(data, group, first + i);
      const int64_t magnitude = in.bias[from] < 0 ? -int64_t{in.bias[from]} : in.bias[from];
      const int64_t bound = magnitude + w.magnitude * most_x;
      const int64_t moved = in.bias[from] - w.sum * folded + rest_of(held, w.sum, w.magnitude);
      if (bound >= kLimit) return "its int32 accumulator may overflow";
      bias[panel * kPanel + i] = static_cast<int32_t>(moved);  // modulo 2^32, see dense.h
      columns[i] = {bound, in.b ? in.b[in.one_ratio ? 0 : from] : 0, in.c ? in.c[in.one_ratio ? 0 : from] : 2};
    }
    ways[panel] = choose(columns, count, in.spare, b + panel * kPanel, shift + panel * kPanel);
    // Padding: any b and shift that the way allows.
    for (size_t i = count; i < kPanel; ++i) shift[panel * kPanel + i] = shift[panel * kPanel];
  }
  return nullptr;
}

Stages Columns::of_group(const Stages& stages, size_t group) const {
  Stages s = stages;
  const size_t first = group * panels_ * kPanel;
  s.bias = static_cast<const int32_t*>(bias_.data()) + first;
  s.b = static_cast<const int32_t*>(b_.data()) + first;
  s.shift = static_cast<const int32_t*>(shift_.data()) + first;
  s.ways = static_cast<const PanelWay*>(ways_.data()) + group * panels_;
  return s;
}

}  // namespace mulshift
