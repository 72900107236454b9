// Requantize(x, b, c) -> y.
#include "../broadcast.h"
#include "../elementwise.h"
#include "../isa.h"
#include "elementwise.h"

namespace mulshift {
namespace ort {
namespace {

class Requantize final : public Kernel {
 public:
  void read(Node& node) override {
    spec_.x_type = node.type(0);
    spec_.x_zero_point = node.zero_point("x_zero_point", node.type(0));
    spec_.out = node.output();
    if (!node.ok()) return;
    dyadics_.read(node, 1, farthest(spec_.x_type, spec_.x_zero_point), spec_.out);
    spec_.way = dyadics_.ratio().way;
    spec_.left = dyadics_.ratio().left;
  }

  bool run(Call& call) const override {
    const Tensor x = call.input(0, "x");
    Tensor b, c;
    if (!call.ok() || !dyadics_.get(call, &b, &c)) return false;
    RequantizeSpec spec = spec_;
    spec.way = dyadics_.way(b, c);
    const auto kernel = fits_lanes(spec.way, spec.out) ? isa()->elementwise.requantize : exact_elementwise.requantize;
    return run_elementwise(call, {x, b, c}, spec, kernel);
  }

 private:
  RequantizeSpec spec_;
  Dyadics dyadics_;
};

}  // namespace

Kernel* make_requantize() { return make<Requantize>(); }

}  // namespace ort
}  // namespace mulshift
