#include "elementwise.h"

namespace mulshift {
namespace ort {

int64_t farthest(Type type, int32_t zero_point) {
  const int64_t below = zero_point - lowest(type), above = highest(type) - zero_point;
  return below > above ? below : above;
}

void Dyadics::read(Node& node, size_t b_input, int64_t bound, const Output& out) {
  input_ = b_input;
  bound_ = bound;
  near_ = fits_zero_point(out);
  const Tensor b = node.constant_or_none(b_input, "b"), c = node.constant_or_none(b_input + 1, "c");
  node.check_dyadic(b, c);
  if (!node.ok() || !b.data || !c.data) return;
  constant_ = true;
  const Shape shapes[] = {b.shape, c.shape};
  Loops loops;
  if (!make_loops(shapes, 2, &shape_, &loops)) {
    node.fail("the shapes of b and c do not broadcast");
    return;
  }
  const size_t n = shape_.count();
  int32_t *bs = b_.array<int32_t>(n + 1), *cs = c_.array<int32_t>(n + 1);
  if (!bs || !cs) {
    node.fail("out of memory");
    return;
  }
  for (size_t i = 0; i < n; ++i) {
    size_t at[2] = {0, 0}, rest = i;
    for (size_t axis = loops.axes; axis-- > 0; rest /= loops.size[axis]) {
      for (size_t o = 0; o < 2; ++o) at[o] += rest % loops.size[axis] * loops.stride[o][axis];
    }
    bs[i] = b.as<int32_t>()[at[0]];
    cs[i] = c.as<int32_t>()[at[1]];
  }
  if (near_) ratio_ = find_ratio_of_all(bound, bs, cs, n);
}

bool Dyadics::get(Call& call, Tensor* b, Tensor* c) const {
  if (constant_) {
    *b = {Type::s32, shape_, b_.data()};
    *c = {Type::s32, shape_, c_.data()};
    return true;
  }
  *b = call.input(input_, "b");
  *c = call.input(input_ + 1, "c");
  if (!call.ok()) return false;
  const char* wrong = wrong_dyadic(b->as<int32_t>(), b->shape.count(), c->as<int32_t>(), c->shape.count());
  return wrong ? call.fail("%s", wrong) : true;
}

Way Dyadics::way(const Tensor& b, const Tensor& c) const {
  if (constant_ || !near_) return ratio_.way;
  int32_t multiplier = 0, shift = kMinShift;
  for (size_t i = 0; i < b.shape.count(); ++i) {
    if (b.as<int32_t>()[i] > multiplier) multiplier = b.as<int32_t>()[i];
  }
  for (size_t i = 0; i < c.shape.count(); ++i) {
    if (c.as<int32_t>()[i] > shift) shift = c.as<int32_t>()[i];
  }
  const bool narrow = shift <= 31 && bound_ * multiplier + (int64_t{1} << (shift - 1)) < (int64_t{1} << 31);
  return narrow ? Way::low : Way::any;
}

void infer_with_constants(const Inference& inference) {
  OpenShape made = inference.input(0);
  for (size_t i = 1; i < inference.inputs(); ++i) {
    const OpenShape other = inference.input(i);
    if (other.known) made = broadcast(made, other);
  }
  inference.output(0, made);
}

void infer_of_two(const Inference& inference) {
  inference.output(0, broadcast(inference.input(0), inference.input(1)));
}

}  // namespace ort
}  // namespace mulshift
