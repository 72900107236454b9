// LayerNorm and RmsNorm of one row, beside the formulas of ir/operators/norm.py in 64-bit scalars.
#include "norm.h"

#include <cstdio>
#include <cstdlib>

#include "cases.h"
#include "draw.h"
#include "isa.h"
#include "row_quantize.h"

namespace mulshift {
namespace cases {
namespace {

constexpr size_t kLanes = 16;

struct Row {
  NormSpec spec;
  Bytes x, w, bias;  // bias as the node has it
};

int32_t at(const Bytes& x, Type type, size_t i) {
  const char* p = x.data() + i * size_of(type);
  if (type == Type::u8) return static_cast<uint8_t>(*p);
  if (type == Type::s8) return static_cast<int8_t>(*p);
  int16_t word;
  std::memcpy(&word, p, sizeof(word));
  return word;
}

// Any elements, the same one throughout, or two: a small variance.
Bytes draw_row(Type type, size_t n) {
  if (one_in(2)) return elements(type, n);
  const int32_t first = element(type), second = one_in(2) ? first : std::min(first + 1, highest(type));
  Bytes made(n * size_of(type));
  for (size_t i = 0; i < n; ++i) put(type, made.data() + i * size_of(type), one_in(9) ? second : first);
  return made;
}

// w and bias up to what 32 bits hold.
void draw_constants(Row* row) {
  const NormSpec& spec = row->spec;
  const int64_t room = INT32_MAX - (int64_t{1} << (spec.shift - 1)), z = largest_normalized(spec.n, spec.fraction);
  const size_t padded = (spec.n + kLanes - 1) / kLanes * kLanes;
  std::vector<int32_t> w(padded), bias(padded);
  const bool most = one_in(3);
  for (size_t i = 0; i < spec.n; ++i) {
    const int32_t half = static_cast<int32_t>(room / 2), free = static_cast<int32_t>((room - half) / z);
    bias[i] = most ? half : draw(-half, half);
    w[i] = most ? free : draw(-free, free);
  }
  row->w = words(w);
  row->bias = words(bias);
}

Row draw_norm() {
  Row row;
  NormSpec& spec = row.spec;
  spec.of_mean = one_in(2);
  spec.x_type = pick({Type::u8, Type::s8, Type::s16});
  spec.x_zero_point = element(spec.x_type);
  spec.n = one_in(3) ? pick<size_t>({1, 15, 16, 17, 31, 32, 33, 63, 64, 65}) : size(1, 300);
  if (one_in(10)) spec.n = size(4000, static_cast<int>(kMaxNormTerms));
  const int epsilon = draw(0, INT32_MAX);
  spec.epsilon = one_in(3) ? 0 : int64_t{epsilon} << 29 >> draw(0, 59);
  spec.fraction = draw(0, kMaxNormFraction);
  spec.shift = draw(2, 30);
  spec.out = output(pick({Type::u8, Type::s8, Type::s16, Type::s32}));
  row.x = draw_row(spec.x_type, spec.n);
  draw_constants(&row);
  return row;
}

// c and the entry of the table are searched for, one after the other.
struct Root {
  int64_t r;
  int c;
};

Root inverse_root(int64_t v) {
  int c = 0;
  while (c < 31 && v >> 2 * c) ++c;
  const uint64_t m = static_cast<uint64_t>(v) << (62 - 2 * c) >> 30, end = (m >> 27) + 1;
  uint64_t r = 0;  // the greatest whose r^2 * end is at most 2^65
  for (uint64_t bit = uint64_t{1} << 30; bit; bit >>= 1) {
    if ((r + bit) * (r + bit) <= (uint64_t{1} << 62) / end * 8 + (uint64_t{1} << 62) % end * 8 / end) r += bit;
  }
  for (int i = 0; i < 3; ++i) {
    const uint64_t t = m * ((r * r >> 30) + 1);
    r = r * (((uint64_t{3} << 62) - t) >> 32) >> 31;
  }
  return {static_cast<int64_t>(r), c};
}

struct Made {
  int64_t r;
  Bytes y;
};

Made exact(const Row& row) {
  const NormSpec& spec = row.spec;
  const int64_t n = static_cast<int64_t>(spec.n);
  int64_t sum = 0, squares = 0;
  for (size_t i = 0; i < spec.n; ++i) {
    const int64_t x = int64_t{at(row.x, spec.x_type, i)} - spec.x_zero_point;
    sum += x;
    squares += x * x;
  }
  if (!spec.of_mean) sum = 0;
  const Root root = inverse_root(std::max(n * squares - sum * sum + spec.epsilon, int64_t{1}));
  const int k = 30 + root.c - spec.fraction;
  Bytes y(spec.n * size_of(spec.out.type));
  for (size_t i = 0; i < spec.n; ++i) {
    const int64_t u = n * (int64_t{at(row.x, spec.x_type, i)} - spec.x_zero_point) - sum;
    int32_t w, bias;
    std::memcpy(&w, row.w.data() + 4 * i, sizeof(w));
    std::memcpy(&bias, row.bias.data() + 4 * i, sizeof(bias));
    const int64_t acc = ((u * root.r + (int64_t{1} << (k - 1))) >> k) * w + bias;
    const int64_t moved = ((acc + (int64_t{1} << (spec.shift - 1))) >> spec.shift) + spec.out.zero_point;
    put(spec.out.type, y.data() + i * size_of(spec.out.type),
        static_cast<int32_t>(std::clamp<int64_t>(moved, spec.out.low, spec.out.high)));
  }
  return {root.r, y};
}

Made run(const Row& row) {
  NormSpec spec = row.spec;
  std::vector<int32_t> w(row.w.size() / 4), bias(w.size());
  std::memcpy(w.data(), row.w.data(), row.w.size());
  std::memcpy(bias.data(), row.bias.data(), row.bias.size());
  for (size_t i = 0; i < spec.n; ++i) bias[i] += 1 << (spec.shift - 1);
  spec.w = w.data();
  spec.bias = bias.data();
  int64_t sum, squares;
  isa()->norm.sums(row.x.data(), spec.x_type, spec.n, &sum, &squares);
  const NormRow made = norm_row(spec, sum, squares);
  Bytes y(spec.n * size_of(spec.out.type));
  isa()->norm.scale(spec, made, row.x.data(), y.data());
  return {made.r, y};
}

}  // namespace

void norm() {
  const Row row = draw_norm();
  const Made got = run(row), wanted = exact(row);
  std::printf(" %s of %zu %s to %s: %016llx%s\n", row.spec.of_mean ? "layer" : "rms", row.spec.n,
              name(row.spec.x_type), name(row.spec.out.type), static_cast<unsigned long long>(hash(got.y)),
              got.r == wanted.r && got.y == wanted.y ? "" : " INEXACT");
}

// Rows of every length in binary.
void row_quantize() {
  const Type type = pick({Type::u8, Type::s8, Type::s16});
  const size_t n = one_in(3) ? pick<size_t>({1, 15, 16, 17, 31, 32, 33}) : size(1, 300);
  const int32_t zero_point = one_in(2) ? 0 : element(type);
  const int bits = draw(0, 15);
  const Bytes x = draw_row(type, n);
  Bytes smaller(x.size()), q(n), wanted(n);
  for (size_t i = 0; i < n; ++i) put(type, smaller.data() + i * size_of(type), at(x, type, i) >> bits);
  int32_t k = 0, exact_k = 0, most = 0;
  isa()->rows.quantize(smaller.data(), type, n, zero_point, reinterpret_cast<uint8_t*>(q.data()), &k);
  for (size_t i = 0; i < n; ++i) most = std::max(most, std::abs(at(smaller, type, i) - zero_point));
  while (most >> (exact_k + 7)) ++exact_k;
  for (size_t i = 0; i < n; ++i) {
    const int32_t y = (at(smaller, type, i) - zero_point + (1 << exact_k >> 1)) >> exact_k;
    put(Type::u8, wanted.data() + i, std::clamp(y + 128, 0, 255));
  }
  std::printf(" %zu of %s, k %d: %016llx%s\n", n, name(type), k, static_cast<unsigned long long>(hash(q)),
              k == exact_k && q == wanted ? "" : " INEXACT");
}

}  // namespace cases
}  // namespace mulshift
