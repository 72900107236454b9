// Affine(x, w, bias, b, c) -> out: (x - zx) * w + bias, requantized.
#include "../elementwise.h"

#include <cstring>

#include "../isa.h"
#include "elementwise.h"

namespace mulshift {
namespace ort {
namespace {

int64_t magnitude(const Tensor& tensor) {
  int64_t most = 0;
  for (size_t i = 0; i < tensor.shape.count(); ++i) {
    const int64_t value = tensor.as<int32_t>()[i], size = value < 0 ? -value : value;
    if (size > most) most = size;
  }
  return most;
}

class Affine final : public Kernel {
 public:
  void read(Node& node) override {
    spec_.x_type = node.type(0);
    spec_.x_zero_point = node.zero_point("x_zero_point", spec_.x_type);
    spec_.out = node.output();
    const Tensor w = node.constant(1, "w"), bias = node.constant(2, "bias");
    if (!node.ok()) return;
    const int64_t bound = farthest(spec_.x_type, spec_.x_zero_point) * magnitude(w) + magnitude(bias);
    dyadics_.read(node, 3, bound < INT32_MAX ? bound : INT32_MAX, spec_.out);
    spec_.way = dyadics_.ratio().way;
    spec_.left = dyadics_.ratio().left;
    if (spec_.x_type == Type::s16 && !spec_.x_zero_point && fits_zero_point(spec_.out)) read_scale(node, w, bias);
  }

  bool run(Call& call) const override {
    const Tensor x = call.input(0, "x"), w = call.input(1, "w"), bias = call.input(2, "bias");
    if (call.ok() && is_scale_) {
      const int32_t* numbers = static_cast<const int32_t*>(numbers_.data());
      const auto of = [&](size_t i) { return Tensor{Type::s32, shape_, numbers + i * shape_.count()}; };
      return run_elementwise(call, {x, of(0), of(1), of(2), of(3)}, ScaleSpec{spec_.out}, isa()->elementwise.scale);
    }
    Tensor b, c;
    if (!call.ok() || !dyadics_.get(call, &b, &c)) return false;
    const auto kernel = fits_lanes(spec_.way, spec_.out) ? isa()->elementwise.affine : exact_elementwise.affine;
    return run_elementwise(call, {x, w, bias, b, c}, spec_, kernel);
  }

 private:
  // Whether `other` has one element for each of w, or one for all.
  static bool goes_with(const Tensor& w, const Tensor& other) {
    if (other.shape.count() == 1) return other.shape.rank <= w.shape.rank;
    return other.shape.rank == w.shape.rank && !std::memcmp(other.shape.dims, w.shape.dims, w.shape.rank * sizeof(w.shape.dims[0]));
  }

  // Whether it is a scaling, whose operands are then made.
  void read_scale(Node& node, const Tensor& w, const Tensor& bias) {
    const Tensor b = node.constant_or_none(3, "b"), c = node.constant_or_none(4, "c");
    const size_t n = w.shape.count(), bs = b.shape.count(), cs = c.shape.count();
    if (!b.data || !c.data || !n || !goes_with(w, bias) || !goes_with(w, b) || !goes_with(w, c)) return;
    const int32_t first = w.as<int32_t>()[0], k = first > 0 ? __builtin_ctz(static_cast<unsigned>(first)) : 0;
    if (first != 1 << k || magnitude(bias)) return;
    int32_t* numbers = numbers_.array<int32_t>(4 * n);
    if (!numbers) return;
    for (size_t i = 0; i < n; ++i) {
      const int32_t bi = b.as<int32_t>()[bs == 1 ? 0 : i], ci = c.as<int32_t>()[cs == 1 ? 0 : i] - k;
      if (w.as<int32_t>()[i] != first || !put_scale(bi, ci, numbers + i, n)) return;
    }
    shape_ = w.shape;
    is_scale_ = true;
  }

  AffineSpec spec_;
  Dyadics dyadics_;
  bool is_scale_ = false;
  Shape shape_;
  Buffer numbers_;  // as put_scale puts them
};

}  // namespace

Kernel* make_affine() { return make<Affine>(); }

}  // namespace ort
}  // namespace mulshift
