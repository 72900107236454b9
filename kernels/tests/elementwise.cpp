// Elementwise kernels through Rows, beside the exact ones in 64-bit scalars.
#include "elementwise.h"

#include <cstdio>

#include "cases.h"
#include "draw.h"
#include "isa.h"
#include "ratios.h"

namespace mulshift {
namespace cases {
namespace {

struct Operand {
  Type type;
  Shape shape;
  Bytes data;
};

Shape draw_shape() {
  Shape s;
  s.rank = size(1, 4);
  for (size_t i = 0; i < s.rank; ++i) s.dims[i] = draw(1, 5);
  s.dims[s.rank - 1] = one_in(3) ? pick({1, 15, 16, 17, 31, 32, 33, 64}) : draw(1, 70);
  if (one_in(20)) s.dims[s.rank - 1] = draw(16000, 40000);  // cut for several threads
  return s;
}

// A shape that broadcasts to `full`: last axes of it, some of them 1.
Shape part_of(const Shape& full) {
  Shape s;
  if (one_in(3)) return full;
  s.rank = size(0, static_cast<int>(full.rank));
  for (size_t i = 0; i < s.rank; ++i) s.dims[i] = one_in(3) ? 1 : full.dims[full.rank - s.rank + i];
  return s;
}

Operand operand(Type type, const Shape& shape) { return {type, shape, elements(type, shape.count())}; }

Operand numbers(const Shape& shape, int low, int high) {
  std::vector<int32_t> made(shape.count());
  for (int32_t& x : made) x = draw(low, high);
  return {Type::s32, shape, words(made)};
}

// b and c as they are, and as their way takes them.
struct Numbers {
  Operand b, c, way_b, way_c;
  Ratio ratio;
};

Numbers draw_numbers(const Shape& full, int64_t bound, const Output& out) {
  const Shape shape = part_of(full);
  const Ratios ratios = draw_ratios();
  const int exponent = draw(-22, 2);
  std::vector<int32_t> b(shape.count()), c(shape.count());
  for (size_t i = 0; i < b.size(); ++i) dyadic(ratios, exponent, &b[i], &c[i]);
  Numbers made = {{Type::s32, shape, words(b)}, {Type::s32, shape, words(c)}, {}, {}, {}};
  if (fits_zero_point(out) && !one_in(4)) made.ratio = find_ratio_of_all(bound, b.data(), c.data(), b.size());
  made.way_b = {Type::s32, shape, words(b)};
  made.way_c = {Type::s32, shape, words(c)};
  return made;
}

Output draw_output() {
  Output out = output(pick({Type::u8, Type::u8, Type::s8, Type::s16, Type::s32}));
  if (!one_in(6)) return out;
  const int32_t far = pick({300, 32767, 32768, 70000, 1 << 20, (1 << 30) - 1, 1 << 30, INT32_MAX});
  out.zero_point = one_in(2) ? far : -far;
  return out;
}

template <class Spec>
Bytes made_by(void (*kernel)(const Spec&, const Rows&), const Spec& spec, const std::vector<const Operand*>& operands,
              const Parallel& parallel) {
  struct Task {
    const Spec& spec;
    void (*kernel)(const Spec&, const Rows&);
  } task{spec, kernel};
  Shape shapes[kMaxOperands], result;
  Elements e;
  Loops loops;
  for (size_t i = 0; i < operands.size(); ++i) {
    shapes[i] = operands[i]->shape;
    e.data[i] = operands[i]->data.data();
    e.types[i] = operands[i]->type;
  }
  if (!make_loops(shapes, operands.size(), &result, &loops)) return {};
  Bytes y(result.count() * size_of(spec.out.type));
  e.y = y.data();
  e.y_type = spec.out.type;
  const auto run = [](const void* t, const Rows& rows) {
    static_cast<const Task*>(t)->kernel(static_cast<const Task*>(t)->spec, rows);
  };
  for_rows(loops, e, run, &task, parallel);
  return y;
}

// One line; `spec` and `operands` for the instruction set, `exact` and `plain` for the exact kernels.
template <class Spec>
void compare(void (*ElementwiseKernels::*which)(const Spec&, const Rows&), const Spec& spec, const Spec& exact,
             const std::vector<const Operand*>& operands, const std::vector<const Operand*>& plain) {
  const bool lanes = fits_lanes(spec.way, spec.out);
  const auto kernel = lanes ? isa()->elementwise.*which : exact_elementwise.*which;
  const Bytes y = made_by(kernel, spec, operands, pick({forward, backward, at_once})(draw(1, 4)));
  const Bytes wanted = made_by(exact_elementwise.*which, exact, plain, forward(1));
  std::printf(" way %s, %s%s", lanes ? name(spec.way) : "exact", name(spec.out.type), y == wanted ? "" : " INEXACT");
  for (const Operand* o : operands) {
    std::printf(" %s[", name(o->type));
    for (size_t i = 0; i < o->shape.rank; ++i) std::printf("%s%d", i ? " " : "", static_cast<int>(o->shape.dims[i]));
    std::printf("]");
  }
  std::printf(" of %d: %016llx\n", spec.out.zero_point, static_cast<unsigned long long>(hash(y)));
}

int32_t zero_point(Type type) { return type == Type::s32 ? draw(-5, 5) : element(type); }

int64_t most(Type type, int32_t zero_point) {
  return type == Type::s32 ? INT32_MAX : farthest(lowest(type), highest(type), zero_point);
}

// An Affine that is nothing but a scaling.
void scale() {
  const Shape shape = draw_shape(), part = one_in(2) ? Shape{1, {shape.dims[shape.rank - 1]}} : part_of(shape);
  ScaleSpec spec = {};
  do spec.out = draw_output();
  while (!fits_zero_point(spec.out));
  std::vector<int32_t> high(part.count()), low(high.size()), half(high.size()), shift(high.size());
  const bool ends = one_in(4);
  for (size_t i = 0; i < high.size(); ++i) {
    high[i] = ends ? pick({0, 1, 32767}) : draw(0, 32767) >> draw(0, 14);
    low[i] = ends ? pick({0, 1, 32768, 65535}) : draw(0, 65535);
    shift[i] = ends ? pick({1, 30}) : draw(1, 30);
    half[i] = 1 << (shift[i] - 1);
  }
  const auto all = [&](const std::vector<int32_t>& numbers) { return Operand{Type::s32, part, words(numbers)}; };
  const Operand x = operand(Type::s16, shape), h = all(high), l = all(low), a = all(half), c = all(shift);
  compare(&ElementwiseKernels::scale, spec, spec, {&x, &h, &l, &a, &c}, {&x, &h, &l, &a, &c});
}

}  // namespace

void requantize() {
  const Shape shape = draw_shape();
  RequantizeSpec spec = {};
  spec.x_type = pick({Type::u8, Type::s8, Type::s16, Type::s32});
  spec.x_zero_point = zero_point(spec.x_type);
  spec.out = draw_output();
  const Operand x = operand(spec.x_type, shape);
  const Numbers n = draw_numbers(shape, most(spec.x_type, spec.x_zero_point), spec.out);
  const RequantizeSpec exact = spec;
  spec.way = n.ratio.way;
  spec.left = n.ratio.left;
  compare(&ElementwiseKernels::requantize, spec, exact, {&x, &n.way_b, &n.way_c}, {&x, &n.b, &n.c});
}

void add() {
  const Shape shape = draw_shape();
  AddSpec spec = {};
  spec.x_type = pick({Type::u8, Type::u8, Type::s8, Type::s16});
  spec.y_type = pick({Type::u8, Type::u8, Type::s8, Type::s16});
  spec.x_zero_point = zero_point(spec.x_type);
  spec.y_zero_point = zero_point(spec.y_type);
  int32_t ignored;
  const Ratios ratios = draw_ratios();
  const int exponent = draw(-12, 2);
  dyadic(ratios, exponent, &spec.x_multiplier, &spec.shift);
  dyadic(ratios, exponent, &spec.y_multiplier, &ignored);
  if (one_in(3)) spec.x_multiplier *= -1;
  if (one_in(3)) spec.y_multiplier *= -1;
  spec.out = draw_output();
  spec.way = Way::any;
  AddSpec exact = spec;
  if (fits_zero_point(spec.out) && !one_in(4)) {
    const SumRatio ratio = find_sum_ratio(most(spec.x_type, spec.x_zero_point), spec.x_multiplier,
                                          most(spec.y_type, spec.y_zero_point), spec.y_multiplier, spec.shift);
    spec.way = ratio.way;
    spec.left = ratio.left;
    spec.x_multiplier = ratio.b1;
    spec.y_multiplier = ratio.b2;
    spec.shift = ratio.shift;
  }
  const Operand x = operand(spec.x_type, part_of(shape)), y = operand(spec.y_type, shape);
  compare(&ElementwiseKernels::add, spec, exact, {&x, &y}, {&x, &y});
}

void mul() {
  const Shape shape = draw_shape();
  MulSpec spec = {};
  spec.x_type = pick({Type::u8, Type::u8, Type::s8});
  spec.y_type = pick({Type::u8, Type::u8, Type::s8, Type::s16});
  spec.x_zero_point = zero_point(spec.x_type);
  spec.y_zero_point = zero_point(spec.y_type);
  const Ratios ratios = draw_ratios();
  dyadic(ratios, draw(-20, 2), &spec.multiplier, &spec.shift);
  spec.out = draw_output();
  spec.way = Way::any;
  const MulSpec exact = spec;
  if (fits_zero_point(spec.out) && !one_in(4)) {
    const int64_t bound = most(spec.x_type, spec.x_zero_point) * most(spec.y_type, spec.y_zero_point);
    const Ratio ratio = find_ratio(bound, spec.multiplier, spec.shift);
    spec.way = ratio.way;
    spec.left = ratio.left;
    spec.multiplier = ratio.b;
    spec.shift = ratio.shift;
  }
  const Operand x = operand(spec.x_type, part_of(shape)), y = operand(spec.y_type, shape);
  compare(&ElementwiseKernels::mul, spec, exact, {&x, &y}, {&x, &y});
}

void affine() {
  if (one_in(3)) return scale();
  const Shape shape = draw_shape();
  AffineSpec spec = {};
  spec.x_type = pick({Type::u8, Type::s8, Type::s16});
  spec.x_zero_point = zero_point(spec.x_type);
  spec.out = draw_output();
  const int limit = pick({3, 1000, 16383}), most_bias = pick({100, 1 << 18, (1 << 30) - 1});  // |acc| < 2^31
  const Operand x = operand(spec.x_type, shape), w = numbers(part_of(shape), -limit, limit);
  const Operand bias = numbers(part_of(shape), -most_bias, most_bias);
  const int64_t bound = most(spec.x_type, spec.x_zero_point) * limit + most_bias;
  const Numbers n = draw_numbers(shape, bound, spec.out);
  const AffineSpec exact = spec;
  spec.way = n.ratio.way;
  spec.left = n.ratio.left;
  compare(&ElementwiseKernels::affine, spec, exact, {&x, &w, &bias, &n.way_b, &n.way_c}, {&x, &w, &bias, &n.b, &n.c});
}

}  // namespace cases
}  // namespace mulshift
