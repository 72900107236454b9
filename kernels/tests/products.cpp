// Convolutions and matrix products with all stages of their epilogue, twice each: in another order of tasks, for another
// number of threads, and over what the first run left in its buffers.
#include <cstdio>

#include "cases.h"
#include "conv.h"
#include "depthwise.h"
#include "draw.h"
#include "elementwise.h"
#include "low_bits.h"
#include "ratios.h"
#include "sparse.h"

namespace mulshift {
namespace cases {
namespace {

constexpr int64_t kLimit = int64_t{1} << 31;

struct Case {
  ConvSpec spec;
  bool depthwise = false, accumulate = false, matrix = false;
  Image image = {};
  Bytes w, x, r, entries;
  Bytes few;     // w as it is packed, for a second product that must give the same
  Packing packing;
  std::vector<int> multipliers;  // of blocks: [group][column][block]
  std::vector<std::pair<int, int>> kept;  // positions of the weights that may not be zero: [group][column][four]
  std::vector<ColumnSums> sums;  // a column
  std::vector<int32_t> bias, b, c, k;
  int32_t spare = 0;
  Stages stages = {};
  AddStage add = {};
  TableStage look = {};
  RescaleStage rescale = {};
  std::vector<int32_t> scales;  // b, c and the four numbers of each, a column
  AgainStage again = {};
};

void draw_window(Window* v, int most) {
  v->h = size(1, most);
  v->w = one_in(3) ? size(1, most) : v->h;
  v->stride_h = size(1, 2);
  v->stride_w = one_in(2) ? size(1, 3) : v->stride_h;
  v->dilation_h = one_in(4) ? 2 : 1;
  v->dilation_w = one_in(4) ? 2 : 1;
}

void draw_pads(Window* v, bool beyond) {
  const int more = beyond ? 3 : -1;  // more than the kernel's size: windows that see nothing but padding
  v->pad_top = size(0, static_cast<int>(v->h) + more);
  v->pad_left = size(0, static_cast<int>(v->w) + more);
  v->pad_bottom = size(0, static_cast<int>(v->h) + more);
  v->pad_right = size(0, static_cast<int>(v->w) + more);
}

void draw_image(Case* c, int most) {
  const Window& v = c->spec.window;
  c->image = {size(1, 2), size(1, most) + (v.h - 1) * v.dilation_h, size(1, most) + (v.w - 1) * v.dilation_w};
}

int8_t weight(int kind) {
  switch (kind) {
    case 0:
      return static_cast<int8_t>(draw(-128, 127));
    case 1:
      return static_cast<int8_t>(draw(-64, 64));  // what vpmaddubsw takes exactly
    case 2:
      return static_cast<int8_t>(draw(-1, 1));
    case 3:
      return static_cast<int8_t>(one_in(100) ? draw(-64, 64) : draw(-31, 32));  // and most fours
    case 5:
      return static_cast<int8_t>(one_in(8) ? pick({-8, 7}) : draw(-8, 7));  // 4 bits
    case 6:
      return static_cast<int8_t>(one_in(8) ? -2 : draw(-2, 1));  // 2 bits
    case 7:
      return static_cast<int8_t>(pick({-1, 1}));
    case 8:
      return static_cast<int8_t>(draw(-8, 7));  // times the multiplier of a block
    case 4:
      return static_cast<int8_t>(one_in(1000) ? draw(-128, 127) : pick({-32, 0, 32}));
    case 10:
      return static_cast<int8_t>(one_in(12) ? pick({-128, -64, 64, 127}) : 0);  // as much as few sums in 16 bits take
    case 11:
      return static_cast<int8_t>(pick({-128, -127, -1, 0, 1, 2, 127}));  // columns that are split in all ways, or in none
    default:
      return static_cast<int8_t>(pick({-128, -127, 0, 127}));
  }
}

// The byte of weight k of column n of a group.
size_t place(const Case& c, size_t group, size_t n, size_t k) {
  const ConvSpec& s = c.spec;
  if (c.depthwise) return k * s.outputs + n;
  const size_t panels = (s.outputs / s.groups + 15) / 16;
  return (((group * panels + n / 16) * s.k4() + k / 4) * 16 + n % 16) * 4 + k % 4;
}

// How weights of a kind may be packed.
Packing packing_of(const ConvSpec& s, int kind) {
  if (kind == 5) return {4, 0};
  if (kind == 6) return {2, 0};
  if (kind == 7 && s.depth() % 4 == 0) return {1, 0};
  return kind == 8 ? Packing{4, 2 * size(1, 8)} : Packing{};
}

// Those of which two of four are kept.
void pack_kept(Case* c) {
  const ConvSpec& s = c->spec;
  const Packing& packing = c->packing;
  const size_t k4 = s.k4(), panel = packing.panel_bytes(k4), panels = c->w.size() / (k4 * kStepBytes);
  const size_t of_group = panels / s.groups, per_group = s.outputs / s.groups, rows = packing.steps_of_row();
  const bool is_shared = packing.zeros == Zeros::of_panels;
  c->few.assign(panels * panel, 0);
  const auto add = [&](size_t at, int bits) { c->few[at] = static_cast<char>(c->few[at] | bits); };
  for (size_t i = 0; i < panels * steps_of(k4) * kStepBytes; ++i) {
    const size_t at = i / kStepBytes / steps_of(k4), step = i / kStepBytes % steps_of(k4), j = i % kStepBytes;
    const size_t group = at / of_group, n = at % of_group * 16 + j / 4, four = 2 * step + j % 4 / 2;
    const size_t known = n < per_group ? n : is_shared ? per_group - 1 : 0;
    const std::pair<int, int> two = four < k4 ? c->kept[(group * per_group + known) * k4 + four] : std::pair<int, int>{0, 1};
    const int position = j % 2 ? two.second : two.first;
    int w = 0;
    if (four < k4) w = static_cast<int8_t>(c->w[(at * k4 + four) * kStepBytes + j / 4 * 4 + static_cast<size_t>(position)]);
    const size_t head = at * panel, chunk = head + step / 4 * packing.chunk_bytes();
    if (is_shared && j < 4) add(head + step, position << 2 * j);
    if (!is_shared) add(chunk + j, position << 2 * (step % 4));
    const size_t row = is_shared ? head + packing.head_bytes(k4) + step / rows * kStepBytes
                                 : chunk + kStepBytes + step % 4 / rows * kStepBytes;
    add(row + j, packing.bits == 8 ? w & 255 : (w + 8) << 4 * (step % 2));
  }
}

// The same weights as they are packed.
void pack(Case* c) {
  const ConvSpec& s = c->spec;
  const Packing& packing = c->packing;
  const int bits = packing.bits;
  if (packing.zeros != Zeros::none) return pack_kept(c);
  if (bits == 8) return;
  const size_t panel = packing.panel_bytes(s.k4()), steps = packing.steps_of_row(), panels = c->w.size() / (s.k4() * kStepBytes);
  c->few.assign(panels * panel, 0);
  const size_t block = packing.block ? packing.block : s.k4(), blocks = (s.k4() + block - 1) / block;
  const size_t of_group = panels / s.groups, per_group = s.outputs / s.groups;
  for (size_t i = 0; i < c->w.size(); ++i) {
    const size_t at = i / kStepBytes / s.k4(), step = i / kStepBytes % s.k4(), place = step / block;
    const size_t n = at % of_group * 16 + i % kStepBytes / 4;
    const bool is_padding = n >= per_group;
    size_t row = at * panel + step / steps * kStepBytes;
    int w = is_padding && bits == 1 ? -1 : static_cast<int8_t>(c->w[i]);
    if (packing.block) {
      const size_t head = at * panel + place * packing.block_bytes();
      const int m = is_padding ? 1 : c->multipliers[((at / of_group) * per_group + n) * blocks + place];
      c->few[head + n % 16] = static_cast<char>(m);
      row = head + kMultiplierBytes + step % block / 2 * kStepBytes;
      w /= m;
    }
    const int field = bits == 1 ? (w + 1) / 2 : w + (1 << (bits - 1));
    char& byte = c->few[row + i % kStepBytes];
    byte = static_cast<char>(byte | field << step % steps * static_cast<size_t>(bits));
  }
}

void draw_weights(Case* c) {
  ConvSpec& s = c->spec;
  s.x_zero_point = pick({0, 255, 128, draw(0, 255)});
  const size_t per_group = s.outputs / s.groups, panels = (per_group + 15) / 16;
  const size_t groups = c->depthwise ? 1 : s.groups, columns = c->depthwise ? s.outputs : per_group;
  c->w.assign(c->depthwise ? s.depth() * s.outputs : s.groups * panels * s.k4() * 64, 0);
  const bool low = c->image.h * c->image.w <= 5 && one_in(2);
  const int kind = low ? draw(5, 8) : c->depthwise && one_in(4) ? pick({10, 11}) : draw(0, 9), largest = kind < 5 && one_in(kind < 3 ? 3 : 9) ? pick({-128, 127}) : 0;
  if (!c->depthwise) c->packing = packing_of(s, kind);
  const bool is_sparse = !c->depthwise && kind < 6 && one_in(3);
  if (is_sparse) c->packing = {c->packing.bits, 0, pick({Zeros::of_columns, Zeros::of_panels})};
  const auto is_kept = [&](size_t n, size_t k) {
    if (!is_sparse) return true;
    if (k % 4 == 0) {
      const int first = draw(0, 2);
      const bool again = c->packing.zeros == Zeros::of_panels && n % 16;
      c->kept.push_back(again ? c->kept[c->kept.size() - s.k4()] : std::pair<int, int>{first, draw(first + 1, 3)});
    }
    const int place = static_cast<int>(k % 4);
    return (place == c->kept.back().first || place == c->kept.back().second) && !one_in(10);
  };
  for (size_t g = 0; g < groups; ++g) {
    for (size_t n = 0; n < columns; ++n) {
      ColumnSums sums = {0, 0};
      int multiplier = 1;
      for (size_t k = 0; k < s.depth(); ++k) {
        if (c->packing.block && k % (4 * c->packing.block) == 0) c->multipliers.push_back(multiplier = draw(1, 15));
        const int drawn = largest && n == 0 ? largest : weight(kind) * multiplier, w = is_kept(n, k) ? drawn : 0;
        c->w[place(*c, g, n, k)] = static_cast<char>(w);
        sums.sum += w;
        sums.magnitude += std::abs(w);
      }
      c->sums.push_back(sums);
    }
  }
  s.packed = c->w.data();
  pack(c);
}

// Small, as in networks, or as large as the accumulator allows; rarely one more, which is refused.
void draw_bias(Case* c) {
  const int64_t most_x = std::max(c->spec.x_zero_point, 255 - c->spec.x_zero_point);
  const bool large = one_in(4), beyond = large && one_in(8);
  for (const ColumnSums& w : c->sums) {
    const int64_t most = kLimit - 1 - w.magnitude * most_x;
    const int64_t bias = large && one_in(2) ? most - draw(0, 1) : draw(-40000, 40000);
    c->bias.push_back(static_cast<int32_t>((one_in(2) ? 1 : -1) * bias));
  }
  if (beyond) c->bias[0] = static_cast<int32_t>(kLimit - 1 - c->sums[0].magnitude * most_x) + (c->sums[0].magnitude != 0);
}

void draw_first(Case* c, Type type) {
  const Ratios ratios = draw_ratios();
  const int exponent = draw(-22, -4);
  c->b.resize(one_in(4) ? 1 : c->spec.outputs);
  c->c.resize(c->b.size());
  for (size_t i = 0; i < c->b.size(); ++i) dyadic(ratios, exponent, &c->b[i], &c->c[i]);
  c->stages.first = output(type);
}

// Each row takes its own k off the shifts.
void draw_rows(Case* c) {
  int most = 60;
  for (const int32_t shift : c->c) most = shift - 2 < most ? shift - 2 : most;
  for (size_t i = 0; i < c->image.count * c->image.h * c->image.w; ++i) c->k.push_back(draw(0, most));
  c->stages.by_rows = true;
  c->spare = draw(0, 12);
}

void draw_add(Case* c) {
  AddStage& s = c->add;
  Output& t = c->stages.first;
  const bool centred = one_in(2);  // no zero points
  s.r_type = pick({Type::u8, Type::s8, Type::s16, Type::s16});
  if (centred) t.zero_point = 0;
  s.t_zero_point = t.zero_point;
  s.r_zero_point = centred ? 0 : element(s.r_type);
  int32_t t_multiplier, r_multiplier, shift, ignored;
  const Ratios ratios = draw_ratios();
  const int exponent = draw(-10, 1);
  dyadic(ratios, exponent, &t_multiplier, &shift);
  dyadic(ratios, exponent, &r_multiplier, &ignored);
  if (one_in(3)) t_multiplier *= -1;
  if (one_in(3)) r_multiplier *= -1;
  s.t_multiplier = t_multiplier;
  s.r_multiplier = r_multiplier;
  s.shift = shift;
  s.out = output(pick({Type::u8, Type::u8, Type::s8, Type::s16, Type::s16}));
  if (centred && s.out.type == Type::s16) s.out.zero_point = 0;
  s.way = Way::any;
  c->stages.add = &s;
  if (one_in(4)) return;
  find_ways(farthest(t.low, t.high, t.zero_point), farthest(lowest(s.r_type), highest(s.r_type), s.r_zero_point), &s);
}

void draw_table(Case* c) {
  c->look.type = pick({Type::u8, Type::s8, Type::s16});
  c->entries = elements(c->look.type, 256);
  c->look.entries = c->entries.data();
  c->stages.table = &c->look;
}

// Of words of a table, a number a column.
void draw_rescale(Case* c) {
  RescaleStage& s = c->rescale;
  const size_t padded = (c->spec.outputs + 15) / 16 * 16;
  c->scales.assign(6 * padded, 0);
  s.out = output(pick({Type::u8, Type::u8, Type::s8, Type::s16}));
  s.x_zero_point = one_in(4) ? element(Type::s16) : 0;
  const Ratios ratios = draw_ratios();
  const int exponent = draw(-10, 1);
  bool scales = !s.x_zero_point && !one_in(4);
  for (size_t i = 0; i < padded; ++i) {
    int32_t b, shift;
    dyadic(ratios, exponent, &b, &shift);
    c->scales[i] = b;
    c->scales[padded + i] = shift;
    scales = put_scale(b, shift, &c->scales[2 * padded + i], padded) && scales;
  }
  s.b = &c->scales[0];
  s.c = &c->scales[padded];
  for (size_t i = 0; scales && i < 4; ++i) s.scale[i] = &c->scales[(2 + i) * padded];
  c->stages.rescale = &s;
}

void draw_again(Case* c) {
  const Type last = type_of_y(c->stages);
  c->again.x_zero_point = last == Type::s32 ? 0 : element(last);
  int32_t b, shift;
  const Ratios ratios = draw_ratios();
  dyadic(ratios, draw(-12, 1), &b, &shift);
  c->again.ratio = {Way::any, 0, b, shift};
  const int64_t bound = farthest(lowest(last), highest(last), c->again.x_zero_point);
  if (!one_in(4)) c->again.ratio = find_ratio(bound, b, shift);
  c->again.out = output(pick({Type::u8, Type::s8, Type::s16, Type::s32}));
  c->stages.again = &c->again;
}

void draw_stages(Case* c) {
  c->accumulate = one_in(8);
  if (c->accumulate) return;
  const bool adds = one_in(3), looks = one_in(4);
  draw_first(c, adds ? pick({Type::u8, Type::s8, Type::s16})
                     : looks ? pick({Type::u8, Type::s8})
                             : pick({Type::u8, Type::u8, Type::u8, Type::s8, Type::s16, Type::s32}));
  if (c->matrix && one_in(3)) draw_rows(c);
  if (adds) draw_add(c);
  const Type now = type_of_y(c->stages);
  if (looks && (now == Type::u8 || now == Type::s8)) draw_table(c);
  if (c->matrix && c->stages.table && c->look.type == Type::s16 && one_in(2)) return draw_rescale(c);
  if (one_in(3)) draw_again(c);
}

// How the first stage of the first panel is computed.
const char* first_way(const Case& c, const ColumnInputs& inputs) {
  Columns columns;
  const auto sums = [](const void* data, size_t group, size_t n) {
    const Case& from = *static_cast<const Case*>(data);
    return from.sums[group * (from.sums.size() / (from.depthwise ? 1 : from.spec.groups)) + n];
  };
  ColumnInputs own = inputs;
  if (c.depthwise) own.groups = 1;
  if (c.accumulate || columns.prepare(own, Held::centred, sums, &c)) return "none";
  return name(columns.of_group(c.stages, 0).ways[0].way);
}

// Whether a panel's steps are each there once, and no four weights of a couple leave 16 bits.
bool are_couples(const Couples& couples, const int8_t* w, size_t k4) {
  std::vector<int> seen(k4);
  for (size_t i = 0; i < k4; ++i) ++seen.at(couples.steps[i]);
  for (const int times : seen) {
    if (times != 1) return false;
  }
  for (size_t i = 0; i < couples.counts[0]; ++i) {
    for (size_t pair = 0; pair < kStepBytes; pair += 2) {
      int above = 0, below = 0;
      for (const size_t step : {couples.steps[2 * i], couples.steps[2 * i + 1]}) {
        for (size_t j = 0; j < 2; ++j) (w[step * kStepBytes + pair + j] > 0 ? above : below) += w[step * kStepBytes + pair + j];
      }
      if (above > 128 || below < -128) return false;
    }
  }
  return true;
}

// What Fours makes of the weights, for an instruction set that has all ways.
const char* best_way(const Case& c) {
  DenseKernels all = {};
  const auto multiply = [](const Product&, int32_t*, size_t) {};
  for (Dense* dense : {&all.any, &all.pair_safe, &all.fours, &all.any_fours, &all.small, &all.smallest}) {
    dense->multiply = multiply;
  }
  Fours fours;
  const ConvSpec& s = c.spec;
  const Dense* best = fours.choose(all, s.bytes(), s.groups * ((s.outputs / s.groups + 15) / 16), s.k4());
  if (best == &all.small || best == &all.smallest) return best == &all.small ? "small" : "smallest";
  if (best == &all.pair_safe || best == &all.any) return best == &all.any ? "singles" : "pairs";
  const size_t panels = s.groups * ((s.outputs / s.groups + 15) / 16);
  for (size_t i = 0; i < panels; ++i) {
    if (!are_couples(fours.couples(i), s.bytes() + i * s.k4() * kStepBytes, s.k4())) return "WRONG COUPLES";
  }
  const bool mixed = fours.couples(0).counts[0] < s.k4() / 2;
  if (best == &all.fours) return mixed ? "some fours of pairs" : "fours of pairs";
  return mixed ? "some fours" : "fours";
}

void print(const Case& c, const ColumnInputs& inputs) {
  const ConvSpec& s = c.spec;
  const Window& v = s.window;
  std::printf(" %zux%zu kernel, %zu groups of %zu to %zu, %zux%zux%zu, first %s", v.h, v.w, s.groups, s.channels, s.outputs,
              c.image.count, c.image.h, c.image.w, first_way(c, inputs));
  if (!c.depthwise) std::printf(", %s", best_way(c));
  if (c.packing.block) std::printf(", blocks of %zu", c.packing.block);
  if (c.packing.bits < 8) std::printf(", %d bits", c.packing.bits);
  if (c.packing.zeros != Zeros::none) std::printf(", zeros of %s", c.packing.zeros == Zeros::of_panels ? "panels" : "columns");
  if (c.stages.by_rows) std::printf(", by rows");
  if (c.stages.add) std::printf(", add %s", name(c.add.way));
  if (c.stages.table) std::printf(", table");
  if (c.stages.rescale) std::printf(", rescale");
  if (c.stages.again) std::printf(", again %s", name(c.again.ratio.way));
}

struct Made {
  Bytes y, q;
  const char* wrong;
};

const char* run_product(const Conv& conv, const Case& c, const uint8_t* x, Made* made, const Parallel& parallel) {
  return conv.run(c.stages, c.image, x, made->y.data(), c.r.data(), made->q.data(), parallel, c.k.data());
}
const char* run_product(const Depthwise& product, const Case& c, const uint8_t* x, Made* made, const Parallel& parallel) {
  return product.run(c.stages, c.image, x, made->y.data(), c.r.data(), made->q.data(), parallel);
}

template <class Product>
Made made_by(const Product& product, const Case& c, size_t count, const Parallel& parallel) {
  Made made = {Bytes(count * size_of(type_of_y(c.stages))), {}, nullptr};
  made.q.resize(c.stages.again ? count * size_of(c.again.out.type) : 0);
  const uint8_t* x = reinterpret_cast<const uint8_t*>(c.x.data());
  made.wrong = run_product(product, c, x, &made, parallel);
  return made;
}

template <class Product>
void run_twice(const Case& c, const ColumnInputs& inputs, size_t count) {
  Product product;
  if (const char* wrong = product.prepare(c.spec, inputs)) {
    std::printf(": %s\n", wrong);
    return;
  }
  const Made first = made_by(product, c, count, forward(draw(1, 4)));
  Product packed;
  if (!c.packing.is_plain()) {
    ConvSpec few = c.spec;
    few.packed = c.few.data();
    few.packing = c.packing;
    if (const char* wrong = packed.prepare(few, inputs)) {
      std::printf(": packed UNSTABLE %s\n", wrong);
      return;
    }
  }
  const auto parallel = pick({backward, at_once, at_once});
  const Made second = made_by(c.packing.is_plain() ? product : packed, c, count, parallel(draw(2, 5)));
  const bool same = first.y == second.y && first.q == second.q;
  std::printf(": %s%s %016llx %016llx\n", first.wrong ? first.wrong : "ok", same ? "" : " UNSTABLE",
              static_cast<unsigned long long>(hash(first.y)), static_cast<unsigned long long>(hash(first.q)));
}

void run(Case* c) {
  draw_weights(c);
  draw_bias(c);
  draw_stages(c);
  const ConvSpec& s = c->spec;
  const Window& v = s.window;
  const size_t h = positions(c->image.h, v.h, v.stride_h, v.pad_top, v.pad_bottom, v.dilation_h);
  const size_t w = positions(c->image.w, v.w, v.stride_w, v.pad_left, v.pad_right, v.dilation_w);
  const size_t count = c->image.count * h * w * s.outputs;
  c->x = elements(Type::u8, c->image.count * c->image.h * c->image.w * s.groups * s.channels);
  if (c->depthwise && one_in(6)) {
    for (auto& x : c->x) x = static_cast<char>(pick({0, 255}));
  }
  if (c->stages.add) c->r = elements(c->add.r_type, count);
  const int32_t *b = c->accumulate ? nullptr : c->b.data(), *shift = c->accumulate ? nullptr : c->c.data();
  const ColumnInputs inputs = {s.outputs, s.groups, c->bias.data(), b, shift, c->b.size() == 1, s.x_zero_point,
                               c->spare};
  print(*c, inputs);
  c->depthwise ? run_twice<Depthwise>(*c, inputs, count) : run_twice<Conv>(*c, inputs, count);
}

}  // namespace

void convolution() {
  Case c;
  draw_window(&c.spec.window, 5);
  draw_pads(&c.spec.window, one_in(8));
  draw_image(&c, 10);
  c.spec.groups = one_in(4) ? size(2, 3) : 1;
  c.spec.channels = one_in(3) ? 16 * size(1, 3) : size(1, 40);
  c.spec.outputs = c.spec.groups * size(1, one_in(4) ? 120 : 40);
  run(&c);
}

void pointwise() {
  Case c;
  if (one_in(4)) c.spec.window.stride_h = c.spec.window.stride_w = 2;
  draw_image(&c, 12);
  c.spec.channels = one_in(2) ? 4 * size(1, 40) : size(1, 80);
  c.spec.outputs = size(1, one_in(4) ? 200 : 50);
  run(&c);
}

void depthwise() {
  Case c;
  c.depthwise = true;
  draw_window(&c.spec.window, 7);
  draw_pads(&c.spec.window, one_in(8));
  draw_image(&c, 12);
  c.spec.outputs = c.spec.groups = one_in(2) ? 16 * size(1, 6) : size(1, 100);
  c.spec.channels = 1;
  run(&c);
}

// Windows of three.h and five.h: whole panels, and some channels more.
void direct(size_t kernel) {
  Case c;
  c.depthwise = true;
  Window& v = c.spec.window;
  v.h = v.w = kernel;
  v.stride_h = size(1, one_in(6) ? 4 : 2);
  v.stride_w = one_in(6) ? size(1, 2) : v.stride_h < 3 ? v.stride_h : 1;
  draw_pads(&v, one_in(8));
  draw_image(&c, one_in(8) ? 40 : 14);
  if (one_in(12)) c.image.w += 50 * size(1, 3);
  c.spec.outputs = c.spec.groups = 16 * size(1, 4) + (one_in(3) ? size(1, 15) : 0);
  c.spec.channels = 1;
  run(&c);
}
void three() { direct(3); }
void five() { direct(5); }

void winograd() {
  Case c;
  c.spec.window.h = c.spec.window.w = 3;
  draw_pads(&c.spec.window, one_in(6));
  draw_image(&c, one_in(3) ? 25 : 9);
  const bool large = one_in(8);  // weights that are transformed in the call
  c.spec.channels = 16 * (large ? size(4, 8) : size(1, 4));
  c.spec.outputs = large ? size(129, 200) : one_in(2) ? 16 * size(1, 4) : size(1, 70);
  run(&c);
}

void few_rows() {
  Case c;
  c.matrix = true;
  c.image = {1, 1, size(1, 5)};
  c.spec.channels = size(1, one_in(4) ? 1500 : 200);
  c.spec.outputs = size(1, one_in(4) ? 300 : 70);
  run(&c);
}

// k in several parts, columns in several blocks.
void deep() {
  Case c;
  const bool point = one_in(2);
  c.spec.window.h = c.spec.window.w = point ? 1 : 3;
  if (!point) c.spec.window.stride_h = c.spec.window.stride_w = 2;
  c.matrix = point;
  c.image = {1, size(3, 7), size(3, 7)};
  c.spec.channels = point ? size(500, 2500) : size(60, 300);
  c.spec.outputs = size(1, 260);
  run(&c);
}

}  // namespace cases
}  // namespace mulshift
