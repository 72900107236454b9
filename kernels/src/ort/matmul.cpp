// MatMul(x, w, b, c) -> y: two activations, requantized.
#include "../matmul.h"

#include "operator.h"
#include "serial.h"

namespace mulshift {
namespace ort {
namespace {

class MatmulKernel final : public Kernel {
 public:
  void read(Node& node) override {
    spec_.x_zero_point = node.zero_point("x_zero_point", Type::u8);
    spec_.w_zero_point = node.zero_point("w_zero_point", Type::s8);
    spec_.out = node.small_output();
    const Tensor b = node.constant(2, "b"), c = node.constant(3, "c");
    node.check_dyadic(b, c);
    if (!node.ok()) return;
    spec_.ratios = b.shape.count();
    if (b.shape.rank > 1 || c.shape.rank > 1 || !spec_.ratios || c.shape.count() != spec_.ratios) {
      node.fail("b has %zu and c %zu elements, not one or one for each column", b.shape.count(), c.shape.count());
      return;
    }
    spec_.b = b.as<int32_t>();
    spec_.c = c.as<int32_t>();
  }

  bool run(Call& call) const override {
    const Tensor x = call.input(0, "x"), w = call.input(1, "w");
    MatmulShape shape;
    Shape out;
    if (!call.ok() || !find_shape(call, x.shape, w.shape, &shape, &out)) return false;
    void* y = call.output(0, out);
    if (!y) return false;
    const Parallel parallel = out.count() * shape.k < kSmall ? serial() : call.parallel();
    const char* wrong = matmul(spec_, shape, x.as<uint8_t>(), w.as<int8_t>(), y, parallel);
    return wrong ? call.fail("%s", wrong) : true;
  }

 private:
  static constexpr size_t kSmall = 1 << 16;  // products below which a second thread costs more than it brings

  bool find_shape(Call& call, const Shape& x, const Shape& w, MatmulShape* shape, Shape* out) const {
    if (x.rank < 2 || w.rank < 2) return call.fail("x and w must have at least 2 axes");
    shape->m = x.size(x.rank - 2);
    shape->k = x.size(x.rank - 1);
    shape->n = w.size(w.rank - 1);
    if (w.size(w.rank - 2) != shape->k) {
      return call.fail("x has %zu elements along k, w has %zu", shape->k, w.size(w.rank - 2));
    }
    if (spec_.ratios != 1 && spec_.ratios != shape->n) {
      return call.fail("b and c have %zu elements, not one for each of %zu columns", spec_.ratios, shape->n);
    }
    Shape batches[2] = {x, w};
    batches[0].rank -= 2;
    batches[1].rank -= 2;
    if (!make_loops(batches, 2, out, &shape->loops)) return call.fail("the batches of x and w do not broadcast");
    shape->batches = out->count();
    out->dims[out->rank++] = x.dims[x.rank - 2];
    out->dims[out->rank++] = w.dims[w.rank - 1];
    if (batches[1].count() == 1 && batches[0].count() == shape->batches) {  // one w: all rows of x are those of one matrix
      shape->m *= shape->batches;
      shape->batches = shape->batches ? 1 : 0;
      shape->loops.axes = 0;
    }
    return true;
  }

  MatmulSpec spec_ = {};
};

}  // namespace

Kernel* make_matmul() { return make<MatmulKernel>(); }

void infer_matmul(const Inference& inference) {
  OpenShape x = inference.input(0), w = inference.input(1);
  if (!x.known || !w.known || x.rank < 2 || w.rank < 2) return;
  const Dim rows = x.dims[x.rank - 2], columns = w.dims[w.rank - 1];
  x.rank -= 2;
  w.rank -= 2;
  OpenShape made = broadcast(x, w);
  made.dims[made.rank++] = rows;
  made.dims[made.rank++] = columns;
  inference.output(0, made);
}

}  // namespace ort
}  // namespace mulshift
