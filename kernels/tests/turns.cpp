// RotaryEmbedding of one row and Hadamard of one group, beside their formulas in 64-bit scalars.
#include <cstdio>

#include "cases.h"
#include "draw.h"
#include "hadamard.h"
#include "isa.h"
#include "rotary.h"

namespace mulshift {
namespace cases {
namespace {

constexpr size_t kLanes = 16;

int64_t at(const Bytes& x, Type type, size_t i) {
  const char* p = x.data() + i * size_of(type);
  if (type == Type::u8) return static_cast<uint8_t>(*p);
  if (type == Type::s8) return static_cast<int8_t>(*p);
  int16_t word;
  std::memcpy(&word, p, sizeof(word));
  return word;
}

struct Dyadic {
  int32_t b, c;
};

// So that accumulators of that size spread over 8 bits, or over far too many.
Dyadic draw_dyadic(int64_t bound) {
  Dyadic made;
  const int bits = 64 - __builtin_clzll(static_cast<unsigned long long>(bound)), spread = one_in(3) ? draw(8, 40) : 8;
  dyadic(draw_ratios(), spread - bits, &made.b, &made.c);
  return made;
}

// Zero points are elements of their types.
Output draw_output() {
  return output(pick({Type::u8, Type::s8, Type::s16, Type::s32}));
}

void put_rounded(const Output& out, const Dyadic& d, int64_t acc, char* y) {
  const int64_t rounded = (acc * d.b + (int64_t{1} << (d.c - 1))) >> d.c;
  put(out.type, y, static_cast<int32_t>(std::clamp<int64_t>(rounded + out.zero_point, out.low, out.high)));
}

void print(const Bytes& got, const Bytes& wanted) {
  std::printf(": %016llx%s\n", static_cast<unsigned long long>(hash(got)), got == wanted ? "" : " INEXACT");
}

}  // namespace

void rotary() {
  RotarySpec spec = {};
  spec.x_type = pick({Type::u8, Type::s8, Type::s16});
  spec.x_zero_point = element(spec.x_type);
  spec.out = draw_output();
  const bool wide = spec.x_type == Type::s16;
  const size_t half = one_in(3) ? pick<size_t>({1, 15, 16, 17, 32, 64}) : size(1, 90);
  const int64_t most = wide ? kMaxAngle : 32768;
  const int64_t bound = 2 * most * farthest(lowest(spec.x_type), highest(spec.x_type), spec.x_zero_point);
  const Dyadic d = draw_dyadic(bound);
  spec.ratio = find_ratio(bound, d.b, d.c);
  const Bytes x = elements(spec.x_type, 2 * half);
  std::vector<int16_t> angles[2];
  for (std::vector<int16_t>& own : angles) {
    for (size_t i = 0; i < half; ++i) {
      const int32_t v = element(Type::s16);
      own.push_back(static_cast<int16_t>(wide ? std::clamp(v, -kMaxAngle, kMaxAngle) : v));
    }
  }
  const bool beyond = one_in(4);
  std::vector<int16_t> odd = angles[0];
  if (beyond) odd[size(0, static_cast<int>(half) - 1)] = static_cast<int16_t>(pick({kMaxAngle + 1, -kMaxAngle - 1}));
  bool fits = true;
  for (const int16_t v : odd) fits = fits && v <= kMaxAngle && v >= -kMaxAngle;
  Bytes got(2 * half * size_of(spec.out.type)), wanted = got;
  for (size_t i = 0; i < half; ++i) {
    const int64_t x1 = at(x, spec.x_type, i) - spec.x_zero_point, x2 = at(x, spec.x_type, half + i) - spec.x_zero_point;
    const int64_t cos = angles[0][i], sin = angles[1][i];
    const size_t step = size_of(spec.out.type);
    put_rounded(spec.out, d, x1 * cos - x2 * sin, wanted.data() + i * step);
    put_rounded(spec.out, d, x2 * cos + x1 * sin, wanted.data() + (half + i) * step);
  }
  isa()->rotary.row(spec, half, angles[0].data(), angles[1].data(), x.data(), got.data());
  const bool told = isa()->rotary.within(odd.data(), half);
  std::printf(" %s to %s of %zu, way %s%s", name(spec.x_type), name(spec.out.type), half, name(spec.ratio.way),
              told == fits ? "" : " INEXACT");
  print(got, wanted);
}

void hadamard() {
  HadamardSpec spec = {};
  spec.x_type = pick({Type::u8, Type::s8, Type::s16});
  const int32_t zx = element(spec.x_type);
  spec.out = draw_output();
  spec.columns = one_in(3) ? size(1, 15) : size(16, 50);
  spec.slices = spec.columns < kLanes ? 1 : size_t{1} << size(0, 5);
  spec.stride = (spec.columns + kLanes - 1) / kLanes * kLanes;
  const size_t n = spec.columns, g = spec.slices * n;
  const int64_t bound = static_cast<int64_t>(g) * farthest(lowest(spec.x_type), highest(spec.x_type), zx);
  const Dyadic d = draw_dyadic(bound);
  spec.ratio = find_ratio(bound, d.b, d.c);
  const Bytes x = elements(spec.x_type, g);
  std::vector<int> base(n * n);
  std::vector<int16_t> pairs((n + 1) / 2 * 2 * spec.stride);
  std::vector<int32_t> start(spec.stride);
  for (size_t i = 0; i < n * n; ++i) {
    base[i] = pick({-1, 1});
    pairs[(i / n / 2 * spec.stride + i % n) * 2 + i / n % 2] = static_cast<int16_t>(base[i]);
    start[i % n] -= zx * base[i];
  }
  spec.base = pairs.data();
  spec.start = start.data();
  Bytes got(g * size_of(spec.out.type)), wanted = got;
  for (size_t j = 0; j < g; ++j) {
    int64_t acc = 0;
    for (size_t i = 0; i < g; ++i) {
      const int sign = __builtin_popcountll(i / n & j / n) % 2 ? -1 : 1;
      acc += (at(x, spec.x_type, i) - zx) * sign * base[i % n * n + j % n];
    }
    put_rounded(spec.out, d, acc, wanted.data() + j * size_of(spec.out.type));
  }
  std::vector<int16_t> words(g + kLanes);
  std::vector<int32_t> acc(spec.slices * spec.stride);
  isa()->hadamard.group(spec, x.data(), words.data(), acc.data(), got.data());
  std::printf(" %s to %s of %zux%zu, way %s", name(spec.x_type), name(spec.out.type), spec.slices, n,
              name(spec.ratio.way));
  print(got, wanted);
}

}  // namespace cases
}  // namespace mulshift
