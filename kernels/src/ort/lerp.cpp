// Lerp(x, i0, i1, w0, w1) -> acc: linear interpolation along one axis, not rounded.
#include "../lerp.h"

#include "../broadcast.h"
#include "../isa.h"
#include "operator.h"

namespace mulshift {
namespace ort {
namespace {

constexpr size_t kPiece = 16384;

struct Job {
  LerpRow row;
  const char* x;
  const int64_t *i0, *i1;
  const int32_t *w0, *w1;
  size_t w0_step, w1_step;  // 0 where one weight serves all
  size_t size, length, inner, bytes;
  int32_t* y;

  size_t index(int64_t i) const { return static_cast<size_t>(i < 0 ? i + static_cast<int64_t>(size) : i); }

  // Rows [first, last) of y[outer][length][inner].
  static void run(const void* self, size_t first, size_t last) {
    const Job& job = *static_cast<const Job*>(self);
    LerpRow row = job.row;
    for (size_t i = first; i < last; ++i) {
      const size_t outer = i / job.length, l = i % job.length, step = job.inner * job.bytes;
      const char* x = job.x + outer * job.size * step;
      row.x0 = x + job.index(job.i0[l]) * step;
      row.x1 = x + job.index(job.i1[l]) * step;
      row.w0 = job.w0[l * job.w0_step];
      row.w1 = job.w1[l * job.w1_step];
      isa()->lerp.row(row, job.inner, job.y + i * job.inner);
    }
  }
};

class LerpKernel final : public Kernel {
 public:
  void read(Node& node) override {
    x_zero_point_ = node.zero_point("x_zero_point", node.type(0));
    axis_ = node.integer("axis", -static_cast<int64_t>(kMaxRank), static_cast<int64_t>(kMaxRank) - 1);
  }

  bool run(Call& call) const override {
    const Tensor x = call.input(0, "x"), i0 = call.input(1, "i0"), i1 = call.input(2, "i1");
    const Tensor w0 = call.input(3, "w0"), w1 = call.input(4, "w1");
    if (!call.ok()) return false;
    const int64_t rank = static_cast<int64_t>(x.shape.rank), given = axis_ < 0 ? axis_ + rank : axis_;
    if (given < 0 || given >= rank)
      return call.fail("axis %d is none of the %zu axes of x", static_cast<int>(axis_), x.shape.rank);
    const size_t axis = static_cast<size_t>(given);
    if (!check_indices(call, i0, x.shape.dims[axis]) || !check_indices(call, i1, x.shape.dims[axis])) return false;
    const size_t length = i0.shape.count(), after = x.shape.rank - axis;
    if (i1.shape.count() != length) return call.fail("i0 and i1 differ in length");
    if (!is_weight(w0, length, after) || !is_weight(w1, length, after)) {
      return call.fail("w0 and w1 must be [%zu, 1, ...], one for each index", length);
    }
    Shape result = x.shape;
    result.dims[axis] = i0.shape.dims[0];
    Job job{{x.type, nullptr, nullptr, x_zero_point_, 0, 0},
            x.as<char>(),
            i0.as<int64_t>(),
            i1.as<int64_t>(),
            w0.as<int32_t>(),
            w1.as<int32_t>(),
            w0.shape.count() > 1,
            w1.shape.count() > 1,
            x.shape.size(axis),
            length,
            x.shape.count(axis + 1, x.shape.rank),
            size_of(x.type),
            static_cast<int32_t*>(call.output(0, result))};
    if (!job.y) return false;
    if (!result.count()) return true;
    for_ranges(x.shape.count(0, axis) * length, kPiece / job.inner + 1, Job::run, &job, call.parallel());
    return true;
  }

 private:
  static bool check_indices(Call& call, const Tensor& indices, int64_t size) {
    if (indices.shape.rank != 1) return call.fail("i0 and i1 must have one axis");
    for (size_t i = 0; i < indices.shape.count(); ++i) {
      const int64_t index = indices.as<int64_t>()[i];
      if (index < -size || index >= size)
        return call.fail("an index is outside the %d elements along the axis", static_cast<int>(size));
    }
    return true;
  }

  // [length, 1, ...] over the last `after` axes, or one number.
  static bool is_weight(const Tensor& w, size_t length, size_t after) {
    if (w.shape.count() == 1) return w.shape.rank <= after;
    return w.shape.rank == after && w.shape.size(0) == length && w.shape.count() == length;
  }

  int32_t x_zero_point_ = 0;
  int64_t axis_ = 0;
};

}  // namespace

Kernel* make_lerp() { return make<LerpKernel>(); }

void infer_lerp(const Inference& inference) {
  OpenShape made = inference.input(0);
  const OpenShape indices = inference.input(1);
  const int64_t rank = static_cast<int64_t>(made.rank), given = inference.integer("axis", 0);
  const int64_t axis = given < 0 ? given + rank : given;
  if (!made.known || !indices.known || axis < 0 || axis >= rank) return;
  made.dims[axis] = indices.dims[0];
  inference.output(0, made);
}

}  // namespace ort
}  // namespace mulshift
