// Mul(x, y) -> out: the product of two centred tensors, requantized.
#include "../elementwise.h"
#include "../isa.h"
#include "elementwise.h"

namespace mulshift {
namespace ort {
namespace {

class Mul final : public Kernel {
 public:
  void read(Node& node) override {
    spec_.x_type = node.type(0);
    spec_.y_type = node.type(1);
    spec_.x_zero_point = node.zero_point("x_zero_point", spec_.x_type);
    spec_.y_zero_point = node.zero_point("y_zero_point", spec_.y_type);
    spec_.multiplier = node.multiplier("multiplier");
    spec_.shift = node.shift("shift");
    spec_.out = node.output();
    if (!node.ok()) return;
    const int64_t bound = farthest(spec_.x_type, spec_.x_zero_point) * farthest(spec_.y_type, spec_.y_zero_point);
    Ratio ratio{Way::any, 0, spec_.multiplier, spec_.shift};
    if (fits_zero_point(spec_.out)) {
      ratio = find_ratio(bound < INT32_MAX ? bound : INT32_MAX, spec_.multiplier, spec_.shift);
    }
    spec_.way = ratio.way;
    spec_.left = ratio.left;
    spec_.multiplier = ratio.b;
    spec_.shift = ratio.shift;
  }

  bool run(Call& call) const override {
    const Tensor x = call.input(0, "x"), y = call.input(1, "y");
    if (!call.ok()) return false;
    const auto kernel = fits_lanes(spec_.way, spec_.out) ? isa()->elementwise.mul : exact_elementwise.mul;
    return run_elementwise(call, {x, y}, spec_, kernel);
  }

 private:
  MulSpec spec_;
};

}  // namespace

Kernel* make_mul() { return make<Mul>(); }

}  // namespace ort
}  // namespace mulshift
