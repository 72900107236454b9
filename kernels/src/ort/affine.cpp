// Affine(x, w, bias, b, c) -> out: (x - zx) * w + bias, requantized.
#include "../elementwise.h"
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
    const Tensor b = node.constant(3, "b"), c = node.constant(4, "c");
    node.check_dyadic(b, c);
    if (!node.ok()) return;
    const int64_t bound = farthest(spec_.x_type, spec_.x_zero_point) * magnitude(w) + magnitude(bias);
    spec_.narrow = is_narrow(bound, b, c, spec_.out);
  }

  bool run(Call& call) const override {
    const Tensor x = call.input(0, "x"), w = call.input(1, "w"), bias = call.input(2, "bias");
    const Tensor b = call.input(3, "b"), c = call.input(4, "c");
    if (!call.ok()) return false;
    const auto kernel = fits_clamp(spec_.out) ? isa()->elementwise.affine : exact_elementwise.affine;
    return run_elementwise(call, {x, w, bias, b, c}, spec_, kernel);
  }

 private:
  AffineSpec spec_;
};

}  // namespace

Kernel* make_affine() { return make<Affine>(); }

}  // namespace ort
}  // namespace mulshift
