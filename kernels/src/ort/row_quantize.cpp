// RowQuantize(x) -> q, k: each row of the last axis in 8 bits with a power of two of its own.
//
// Layouts    x [rows][n], q u8 the same, k s32 [rows].
#include "../row_quantize.h"

#include "../broadcast.h"
#include "../isa.h"
#include "operator.h"

namespace mulshift {
namespace ort {
namespace {

constexpr size_t kPiece = 16384;  // elements that are worth a task

struct Job {
  const Tensor* x;
  int32_t x_zero_point;
  size_t n;
  uint8_t* q;
  int32_t* k;
};

void run_rows(const void* self, size_t first, size_t last) {
  const Job& job = *static_cast<const Job*>(self);
  const size_t step = job.n * size_of(job.x->type);
  for (size_t r = first; r < last; ++r) {
    isa()->rows.quantize(job.x->as<char>() + r * step, job.x->type, job.n, job.x_zero_point, job.q + r * job.n, job.k + r);
  }
}

class RowQuantize final : public Kernel {
 public:
  void read(Node& node) override { x_zero_point_ = node.zero_point("x_zero_point", node.type(0)); }

  bool run(Call& call) const override {
    const Tensor x = call.input(0, "x");
    if (!call.ok()) return false;
    if (!x.shape.rank || !x.shape.size(x.shape.rank - 1)) return call.fail("x must have elements along a last axis");
    Job job{&x, x_zero_point_, x.shape.size(x.shape.rank - 1), nullptr, nullptr};
    Shape rows = x.shape;
    rows.dims[rows.rank - 1] = 1;
    job.q = static_cast<uint8_t*>(call.output(0, x.shape));
    job.k = static_cast<int32_t*>(call.output(1, rows));
    if (!job.q || !job.k) return false;
    for_ranges(rows.count(), kPiece / job.n + 1, run_rows, &job, call.parallel());
    return true;
  }

 private:
  int32_t x_zero_point_ = 0;
};

}  // namespace

Kernel* make_row_quantize() { return make<RowQuantize>(); }

void infer_row_quantize(const Inference& inference) {
  OpenShape made = inference.input(0);
  inference.output(0, made);
  if (!made.known || !made.rank) return;
  made.dims[made.rank - 1] = Dim();
  made.dims[made.rank - 1].size = 1;
  inference.output(1, made);
}

}  // namespace ort
}  // namespace mulshift
