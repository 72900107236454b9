// Add(x, y) -> out: two scales, one rounding.
#include "../elementwise.h"
#include "../isa.h"
#include "elementwise.h"

namespace mulshift {
namespace ort {
namespace {

class Add final : public Kernel {
 public:
  void read(Node& node) override {
    spec_.x_type = node.type(0);
    spec_.y_type = node.type(1);
    spec_.x_zero_point = node.zero_point("x_zero_point", spec_.x_type);
    spec_.y_zero_point = node.zero_point("y_zero_point", spec_.y_type);
    spec_.x_multiplier = node.signed_multiplier("x_multiplier");
    spec_.y_multiplier = node.signed_multiplier("y_multiplier");
    spec_.shift = node.shift("shift");
    spec_.out = node.output();
    if (!node.ok()) return;
    SumRatio ratio{Way::any, 0, spec_.x_multiplier, spec_.y_multiplier, spec_.shift};
    if (fits_zero_point(spec_.out)) {
      ratio = find_sum_ratio(farthest(spec_.x_type, spec_.x_zero_point), spec_.x_multiplier,
                             farthest(spec_.y_type, spec_.y_zero_point), spec_.y_multiplier, spec_.shift);
    }
    spec_.way = ratio.way;
    spec_.left = ratio.left;
    spec_.x_multiplier = ratio.b1;
    spec_.y_multiplier = ratio.b2;
    spec_.shift = ratio.shift;
  }

  bool run(Call& call) const override {
    const Tensor x = call.input(0, "x"), y = call.input(1, "y");
    if (!call.ok()) return false;
    const auto kernel = fits_lanes(spec_.way, spec_.out) ? isa()->elementwise.add : exact_elementwise.add;
    return run_elementwise(call, {x, y}, spec_, kernel);
  }

 private:
  AddSpec spec_;
};

}  // namespace

Kernel* make_add() { return make<Add>(); }

}  // namespace ort
}  // namespace mulshift
