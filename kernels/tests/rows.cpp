// Attention, softmax and products of two activations, each in two cuts for threads.
#include <cstdio>

#include "attention.h"
#include "cases.h"
#include "draw.h"
#include "isa.h"
#include "matmul.h"
#include "ratios.h"
#include "reciprocal.h"

namespace mulshift {
namespace cases {
namespace {

const uint8_t* u8(const Bytes& bytes) { return reinterpret_cast<const uint8_t*>(bytes.data()); }
const int8_t* s8(const Bytes& bytes) { return reinterpret_cast<const int8_t*>(bytes.data()); }

// b / 2^c so that differences of that spread are some octaves apart, now and then far too many.
void draw_exponent(int spread_bits, int32_t* b, int32_t* c) {
  const Ratios ratios = draw_ratios();
  const int near = one_in(5) ? draw(15, 25) : draw(-3, 5);
  dyadic(ratios, 12 + near - spread_bits, b, c);
}

// s8 elements as weights of a product are drawn: all of them alike, or most of them near 0 and a few anywhere.
Bytes second_operand(size_t count) {
  Bytes made = elements(Type::s8, count);
  const int parts = pick({1, 2, 4, 8}), often = pick({10, 100, 1000});
  for (char& x : made) {
    if (!one_in(often)) x = static_cast<char>(static_cast<int8_t>(x) / parts);
  }
  return made;
}

// Runs `made(parallel, y)` in two cuts and prints the hash of y.
template <class F>
void run_twice(size_t bytes, const F& made) {
  Bytes first(bytes), second(bytes);
  const char* wrong = made(forward(draw(1, 4)), first.data());
  const auto parallel = pick({backward, at_once, at_once});
  made(parallel(draw(2, 5)), second.data());
  std::printf(": %s%s %016llx\n", wrong ? wrong : "ok", first == second ? "" : " UNSTABLE",
              static_cast<unsigned long long>(hash(first)));
}

// A mask that broadcasts to the scores; some rows of it are empty, or those of a causal model.
Bytes draw_mask(const AttentionShape& s, Mask* mask) {
  const size_t sizes[4] = {one_in(2) ? 1 : s.batch, one_in(2) ? 1 : s.heads, one_in(3) ? 1 : s.rows,
                           one_in(8) ? 1 : s.keys};
  Bytes bytes(sizes[0] * sizes[1] * sizes[2] * sizes[3]);
  size_t* strides[4] = {&mask->batch, &mask->head, &mask->row, &mask->key};
  for (size_t i = 4, step = 1; i-- > 0; step *= sizes[i]) *strides[i] = sizes[i] == 1 ? 0 : step;
  const bool causal = one_in(2);
  const int often = pick({1, 2, 10});
  for (size_t i = 0; i < bytes.size(); ++i) {
    const size_t key = i % sizes[3], row = i / sizes[3] % sizes[2];
    bytes[i] = causal ? key <= row : draw(0, often) == 0 ? 0 : pick({1, 1, 3});
  }
  mask->data = u8(bytes);
  return bytes;
}

}  // namespace

void attention() {
  AttentionShape s;
  s.batch = size(1, 2);
  s.groups = size(1, 2);
  s.heads = s.groups * size(1, 3);
  s.rows = one_in(3) ? 1 : size(1, 40);
  s.keys = one_in(8) ? size(1000, 1100) : size(1, 70);
  s.depth = size(1, 70);
  s.width = one_in(2) ? 16 * size(1, 3) : size(1, 40);
  AttentionSpec spec = {};
  spec.q_zero_point = element(Type::u8);
  spec.k_zero_point = element(Type::s8);
  spec.v_zero_point = element(Type::s8);
  int32_t b, c;
  draw_exponent(15, &b, &c);
  spec.exponent = Exponent(b, c, 9);
  const int exponent = draw(-8, 4);
  dyadic(draw_ratios(), exponent, &spec.multiplier, &spec.shift);
  spec.shift = std::min(spec.shift, 38);
  spec.out = output(pick({Type::u8, Type::s8, Type::s16}));
  const Bytes q = elements(Type::u8, s.batch * s.rows * s.heads * s.depth);
  const Bytes k = second_operand(s.batch * s.keys * s.groups * s.depth);
  const Bytes v = second_operand(s.batch * s.keys * s.groups * s.width);
  Mask mask;
  Bytes flags;
  const bool masked = one_in(2);
  if (masked) flags = draw_mask(s, &mask);
  std::printf(" %zux%zux%zu heads of %zux%zu by %zux%zu, %s, way %s", s.batch, s.groups, s.heads / s.groups, s.rows,
              s.depth, s.keys, s.width, masked ? "masked" : "whole", name(spec.exponent.ratio.way));
  run_twice(s.batch * s.rows * s.heads * s.width * size_of(spec.out.type), [&](const Parallel& parallel, char* y) {
    return mulshift::attention(spec, s, u8(q), s8(k), s8(v), mask, y, parallel);
  });
}

void softmax() {
  const Type type = pick({Type::u8, Type::s8, Type::s16, Type::s32});
  const size_t n = one_in(4) ? size(200, 5000) : size(1, 70);
  int32_t b, c, multiplier, shift;
  draw_exponent(type == Type::s32 ? 28 : type == Type::s16 ? 15 : 7, &b, &c);
  const Exponent exponent(b, c, 24);
  dyadic(draw_ratios(), 8, &multiplier, &shift);
  const Output out = output(pick({Type::u8, Type::s8, Type::s16}));
  Bytes x = elements(type, n);
  if (one_in(8)) {
    for (size_t i = size_of(type); i < x.size(); ++i) x[i] = x[i - size_of(type)];
  }
  std::vector<int32_t> e(n + 15);
  const uint64_t total = isa()->softmax.powers(exponent, x.data(), type, n, e.data());
  const RowDyadic row = row_dyadic(total, multiplier, std::min(shift, 22));
  Bytes y(n * size_of(out.type));
  isa()->softmax.scale(e.data(), 0, find_ratio(1 << 23, row.b, row.c), out, n, y.data());
  std::printf(" %s of %zu, way %s: %llu %016llx\n", name(type), n, name(exponent.ratio.way),
              static_cast<unsigned long long>(total), static_cast<unsigned long long>(hash(y)));
}

void matmul() {
  MatmulShape s = {};
  s.m = one_in(3) ? size(1, 5) : size(1, 60);
  s.k = one_in(8) ? size(1000, 1300) : size(1, 80);
  s.n = size(1, 70);
  Shape batches[2], result;
  batches[0].rank = batches[1].rank = 2;
  for (size_t axis = 0; axis < 2; ++axis) {
    const int full = draw(1, 3);
    for (Shape& own : batches) own.dims[axis] = one_in(3) ? 1 : full;
  }
  make_loops(batches, 2, &result, &s.loops);
  s.batches = result.count();
  MatmulSpec spec = {};
  spec.x_zero_point = element(Type::u8);
  spec.w_zero_point = one_in(2) ? 0 : element(Type::s8);
  spec.ratios = one_in(2) ? 1 : s.n;
  std::vector<int32_t> b(spec.ratios), c(spec.ratios);
  const Ratios ratios = draw_ratios();
  for (size_t i = 0; i < b.size(); ++i) dyadic(ratios, -12, &b[i], &c[i]);
  spec.b = b.data();
  spec.c = c.data();
  spec.out = output(pick({Type::u8, Type::u8, Type::s8, Type::s16, Type::s32}));
  const Bytes x = elements(Type::u8, batches[0].count() * s.m * s.k), w = second_operand(batches[1].count() * s.k * s.n);
  std::printf(" %zu of %zux%zu by %zu", s.batches, s.m, s.k, s.n);
  run_twice(s.batches * s.m * s.n * size_of(spec.out.type), [&](const Parallel& parallel, char* y) {
    return mulshift::matmul(spec, s, u8(x), s8(w), y, parallel);
  });
}

}  // namespace cases
}  // namespace mulshift
