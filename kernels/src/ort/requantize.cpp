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
    const Tensor b = node.constant_or_none(1, "b"), c = node.constant_or_none(2, "c");
    node.check_dyadic(b, c);
    checked_ = b.data && c.data;
    spec_.narrow = checked_ && node.ok() && is_narrow(farthest(spec_.x_type, spec_.x_zero_point), b, c, spec_.out);
  }

  bool run(Call& call) const override {
    const Tensor x = call.input(0, "x"), b = call.input(1, "b"), c = call.input(2, "c");
    if (!call.ok() || (!checked_ && !check_dyadic(call, b, c))) return false;
    const auto kernel = fits_clamp(spec_.out) ? isa()->elementwise.requantize : exact_elementwise.requantize;
    return run_elementwise(call, {x, b, c}, spec_, kernel);
  }

 private:
  RequantizeSpec spec_;
  bool checked_ = false;
};

}  // namespace

Kernel* make_requantize() { return make<Requantize>(); }

}  // namespace ort
}  // namespace mulshift
