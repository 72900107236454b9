// Products of random shapes and stages on the instruction set of MULSHIFT_ISA: one line a case with a hash of its
// outputs. Two instruction sets are equal where they print the same lines; tests/test_kernel_isas.py compares them.
//
//   cases SEED COUNT
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "conv.h"
#include "depthwise.h"
#include "isa.h"

namespace {

using namespace mulshift;

std::mt19937 engine;

int draw(int low, int high) { return static_cast<int>(engine() % static_cast<unsigned>(high - low + 1)) + low; }
size_t size(int low, int high) { return static_cast<size_t>(draw(low, high)); }

template <class T>
T pick(std::initializer_list<T> from) {
  return from.begin()[size(0, static_cast<int>(from.size()) - 1)];
}

Output output(Type type) {
  const int low = type == Type::u8 ? 0 : type == Type::s8 ? -128 : -32768;
  const int high = type == Type::u8 ? 255 : type == Type::s8 ? 127 : 32767;
  const int a = draw(low, high), b = draw(low, high);
  const bool whole = draw(0, 2) != 0;
  return {draw(low, high), whole ? low : std::min(a, b), whole ? high : std::max(a, b), type};
}

// b and c of a ratio near 2^exponent, with a mantissa of any width.
void dyadic(int exponent, int32_t* b, int32_t* c) {
  const int bits = draw(1, 31);
  *b = static_cast<int32_t>((engine() | (1u << 31)) >> (32 - bits));
  const int shift = bits - exponent;
  *c = shift < 2 ? 2 : shift > 62 ? 62 : shift;
}

struct Case {
  ConvSpec spec;
  bool depthwise = false;
  Image image = {};
  std::vector<int8_t> w;
  std::vector<int32_t> bias, b, c;
  std::vector<uint8_t> x, table;
  std::vector<char> r;
  Stages stages = {};
  AddStage add = {};
  TableStage look = {};
  AgainStage again = {};
};

int8_t weight(int kind) {
  switch (kind) {
    case 0:
      return static_cast<int8_t>(draw(-128, 127));
    case 1:
      return static_cast<int8_t>(draw(-64, 64));  // what vpmaddubsw takes exactly
    default:
      return static_cast<int8_t>(pick({-128, -127, 0, 127}));
  }
}

void draw_shape(Case& c) {
  ConvSpec& s = c.spec;
  Window& v = s.window;
  c.depthwise = draw(0, 2) == 0;
  const bool point = !c.depthwise && draw(0, 1);
  v.h = point ? 1 : size(1, 5);
  v.w = point ? 1 : draw(0, 2) ? v.h : size(1, 4);
  v.stride_h = size(1, 2);
  v.stride_w = draw(0, 1) ? v.stride_h : size(1, 3);
  v.dilation_h = draw(0, 3) ? 1 : 2;
  v.dilation_w = draw(0, 3) ? 1 : 2;
  v.pad_top = size(0, static_cast<int>(v.h) - 1);
  v.pad_left = size(0, static_cast<int>(v.w) - 1);
  v.pad_bottom = size(0, static_cast<int>(v.h) - 1);
  v.pad_right = size(0, static_cast<int>(v.w) - 1);
  if (!c.depthwise && draw(0, 3) == 0) v = {3, 3, 1, 1, 1, 1, 1, 1, 1, 1};
  c.image = {size(1, 2), size(1, 12) + (v.h - 1) * v.dilation_h, size(1, 12) + (v.w - 1) * v.dilation_w};
  if (c.depthwise) {
    s.outputs = s.groups = size(1, 50);
    s.channels = 1;
  } else {
    s.groups = draw(0, 4) ? 1 : size(2, 3);
    s.channels = draw(0, 1) ? 16 * size(1, 3) : size(1, 40);
    s.outputs = s.groups * size(1, draw(0, 3) ? 40 : 120);
  }
  s.x_zero_point = pick({0, 255, 128, draw(0, 255)});
}

void draw_weights(Case& c) {
  ConvSpec& s = c.spec;
  const int kind = draw(0, 2);
  if (c.depthwise) {
    c.w.resize(s.window.h * s.window.w * s.outputs);
    for (int8_t& w : c.w) w = weight(kind);
  } else {
    const size_t per_group = s.outputs / s.groups, panels = (per_group + 15) / 16;
    c.w.assign(s.groups * panels * s.k4() * 64, 0);
    for (size_t g = 0; g < s.groups; ++g) {
      for (size_t n = 0; n < per_group; ++n) {
        for (size_t k = 0; k < s.depth(); ++k) {
          c.w[(((g * panels + n / 16) * s.k4() + k / 4) * 16 + n % 16) * 4 + k % 4] = weight(kind);
        }
      }
    }
  }
  s.packed = c.w.data();
  c.bias.resize(s.outputs);
  for (int32_t& bias : c.bias) bias = draw(-40000, 40000);
}

void draw_stages(Case& c) {
  const bool one = draw(0, 3) == 0;
  c.b.resize(one ? 1 : c.spec.outputs);
  c.c.resize(c.b.size());
  const int exponent = draw(-22, -4);
  for (size_t i = 0; i < c.b.size(); ++i) dyadic(draw(0, 9) ? exponent : draw(-62, 20), &c.b[i], &c.c[i]);
  Type last = pick({Type::u8, Type::u8, Type::s8, Type::s16});
  c.stages.first = output(last);
  if (draw(0, 2) == 0) {
    c.add.r_type = pick({Type::u8, Type::s8, Type::s16});
    c.add.t_zero_point = c.stages.first.zero_point;
    c.add.r_zero_point = c.add.r_type == Type::u8 ? draw(0, 255) : draw(-128, 127);
    c.add.way = Way::any;
    c.add.t_multiplier = draw(0, 2000);
    c.add.r_multiplier = draw(0, 2000);
    c.add.shift = draw(2, 14);
    if (draw(0, 1)) {
      c.add.way = Way::low;
    } else if (draw(0, 1)) {
      c.add.way = Way::high;
      c.add.left = draw(0, 3);
      c.add.t_multiplier <<= 14;
      c.add.r_multiplier <<= 14;
    }
    if (c.add.way == Way::low) {  // |t|, |r| below 2^16 times at most 2^13
      c.add.t_multiplier /= 8;
      c.add.r_multiplier /= 8;
    }
    last = pick({Type::u8, Type::s16});
    c.add.out = output(last);
    c.stages.add = &c.add;
  }
  if ((last == Type::u8 || last == Type::s8) && draw(0, 4) == 0) {
    c.table.resize(512);
    for (uint8_t& entry : c.table) entry = static_cast<uint8_t>(engine());
    last = pick({Type::u8, Type::s8, Type::s16});
    c.look = {last, c.table.data()};
    c.stages.table = &c.look;
  }
  if (draw(0, 3) == 0) {
    int32_t b, shift;
    dyadic(draw(-12, 1), &b, &shift);
    c.again.x_zero_point = last == Type::u8 ? draw(0, 255) : draw(-128, 127);
    c.again.ratio = find_ratio(1 << 16, b, shift);
    c.again.out = output(pick({Type::u8, Type::s8, Type::s16}));
    c.stages.again = &c.again;
  }
}

uint64_t hash(const std::vector<char>& bytes) {
  uint64_t h = 1469598103934665603u;
  for (const char b : bytes) h = (h ^ static_cast<uint8_t>(b)) * 1099511628211u;
  return h;
}

void serial(const void*, size_t count, void (*task)(void*, size_t), void* data) {
  for (size_t i = 0; i < count; ++i) task(data, i);
}

void run(int number) {
  Case c;
  draw_shape(c);
  draw_weights(c);
  const bool accumulate = draw(0, 7) == 0;
  if (!accumulate) draw_stages(c);
  const Window& v = c.spec.window;
  const size_t h = positions(c.image.h, v.h, v.stride_h, v.pad_top, v.pad_bottom, v.dilation_h);
  const size_t w = positions(c.image.w, v.w, v.stride_w, v.pad_left, v.pad_right, v.dilation_w);
  const size_t count = c.image.count * h * w * c.spec.outputs;
  // Exactly as large as they are: a sanitizer sees a step beyond.
  c.x.resize(c.image.count * c.image.h * c.image.w * c.spec.groups * c.spec.channels);
  for (uint8_t& x : c.x) x = static_cast<uint8_t>(engine());
  c.r.resize(c.stages.add ? count * size_of(c.add.r_type) : 0);
  for (char& r : c.r) r = static_cast<char>(engine());
  std::vector<char> y(count * size_of(type_of_y(c.stages))), q(c.stages.again ? count * size_of(c.again.out.type) : 0);
  const ColumnInputs columns = {c.spec.outputs,
                                c.spec.groups,
                                c.bias.data(),
                                accumulate ? nullptr : c.b.data(),
                                accumulate ? nullptr : c.c.data(),
                                c.b.size() == 1,
                                c.spec.x_zero_point};
  const Parallel parallel = {serial, nullptr, draw(1, 4)};
  Conv conv;
  Depthwise depthwise;
  const char* wrong = c.depthwise ? depthwise.prepare(c.spec, columns) : conv.prepare(c.spec, columns);
  if (!wrong && c.depthwise) {
    wrong = depthwise.run(c.stages, c.image, c.x.data(), y.data(), c.r.data(), q.data(), parallel);
  } else if (!wrong) {
    wrong = conv.run(c.stages, c.image, c.x.data(), y.data(), c.r.data(), q.data(), parallel);
  }
  std::printf("%d %s %zux%zu kernel, %zu groups of %zu to %zu, %zux%zux%zu: %s %016llx %016llx\n", number,
              c.depthwise ? "depthwise" : "conv", v.h, v.w, c.spec.groups, c.spec.channels, c.spec.outputs,
              c.image.count, c.image.h, c.image.w, wrong ? wrong : "ok", static_cast<unsigned long long>(hash(y)),
              static_cast<unsigned long long>(hash(q)));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || !mulshift::isa()) {
    std::fprintf(stderr, argc != 3 ? "usage: cases SEED COUNT\n" : "MULSHIFT_ISA names nothing that runs here\n");
    return 2;
  }
  const int seed = std::atoi(argv[1]), count = std::atoi(argv[2]);
  for (int i = 0; i < count; ++i) {
    engine.seed(static_cast<unsigned>(seed * 1000003 + i));
    run(i);
  }
  return 0;
}
