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
    if (!node.ok()) return;
    const int64_t bound = farthest(spec_.x_type, spec_.x_zero_point) * magnitude(w) + magnitude(bias);
    dyadics_.read(node, 3, bound < INT32_MAX ? bound : INT32_MAX, spec_.out);
    spec_.way = dyadics_.ratio().way;
    spec_.left = dyadics_.ratio().left;
  }

  bool run(Call& call) const override {
    const Tensor x = call.input(0, "x"), w = call.input(1, "w"), bias = call.input(2, "bias");
    Tensor b, c;
    if (!call.ok() || !dyadics_.get(call, &b, &c)) return false;
    const auto kernel = fits_lanes(spec_.way, spec_.out) ? isa()->elementwise.affine : exact_elementwise.affine;
    return run_elementwise(call, {x, w, bias, b, c}, spec_, kernel);
  }

 private:
  AffineSpec spec_;
  Dyadics dyadics_;
};

}  // namespace

Kernel* make_affine() { return make<Affine>(); }

}  // namespace ort
}  // namespace mulshift
