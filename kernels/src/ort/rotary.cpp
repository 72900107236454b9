// RotaryEmbedding(x, cos, sin) -> y: the halves of every row of the last axis turned by angles.
#include "../rotary.h"

#include "../broadcast.h"
#include "../isa.h"
#include "elementwise.h"

namespace mulshift {
namespace ort {
namespace {

constexpr size_t kPiece = 16384;  // elements that are worth a task

struct Job {
  const RotarySpec* spec;
  const Loops* loops;  // over the rows: x, then cos
  size_t half;
  const int16_t *cos, *sin;
  const char* x;
  char* y;

  // The element of cos where the row's angles begin, and for how many rows from this one on that holds.
  size_t angles(size_t row, size_t* rows) const {
    const size_t inner = loops->axes - 1, shared = loops->stride[1][inner] ? 1 : loops->size[inner];
    *rows = shared - row % shared;
    size_t at = 0, rest = row;
    for (size_t axis = loops->axes; axis-- > 0; rest /= loops->size[axis]) {
      at += rest % loops->size[axis] * loops->stride[1][axis];
    }
    return at * half;
  }

  static void run(const void* self, size_t first, size_t last) {
    const Job& job = *static_cast<const Job*>(self);
    const auto row = isa()->rotary.row;
    const size_t n = 2 * job.half, x_step = n * size_of(job.spec->x_type), y_step = n * size_of(job.spec->out.type);
    size_t at = 0, same = 0;
    for (size_t i = first; i < last; ++i, --same) {
      if (!same) at = job.angles(i, &same);
      row(*job.spec, job.half, job.cos + at, job.sin + at, job.x + i * x_step, job.y + i * y_step);
    }
  }
};

class RotaryKernel final : public Kernel {
 public:
  void read(Node& node) override {
    spec_.x_type = node.type(0);
    spec_.x_zero_point = node.zero_point("x_zero_point", spec_.x_type);
    const int32_t b = node.multiplier("multiplier"), c = node.shift("shift");
    spec_.out = node.small_output();
    if (!node.ok()) return;
    const int64_t angle = spec_.x_type == Type::s16 ? kMaxAngle : -int64_t{INT16_MIN};
    spec_.ratio = find_ratio(2 * angle * farthest(spec_.x_type, spec_.x_zero_point), b, c);
  }

  bool run(Call& call) const override {
    const Tensor x = call.input(0, "x"), cos = call.input(1, "cos"), sin = call.input(2, "sin");
    Loops loops;
    if (!call.ok() || !find_rows(call, x.shape, cos.shape, sin.shape, &loops)) return false;
    const size_t n = x.shape.size(x.shape.rank - 1), angles = cos.shape.count();
    const auto within = isa()->rotary.within;
    const bool good = spec_.x_type != Type::s16 ||
                      (within(cos.as<int16_t>(), angles) && within(sin.as<int16_t>(), angles));
    if (!good) return call.fail("a cosine or sine is beyond %d, too far for an x of 16 bits", kMaxAngle);
    char* y = static_cast<char*>(call.output(0, x.shape));
    if (!y) return false;
    if (!x.shape.count()) return true;
    const Job job{&spec_, &loops, n / 2, cos.as<int16_t>(), sin.as<int16_t>(), x.as<char>(), y};
    for_ranges(x.shape.count() / n, kPiece / n + 1, Job::run, &job, call.parallel());
    return true;
  }

 private:
  // Loops over all axes but the last one.
  static bool find_rows(Call& call, const Shape& x, const Shape& cos, const Shape& sin, Loops* loops) {
    if (x.rank < 1 || cos.rank < 1) return call.fail("x, cos and sin must have at least one axis");
    const size_t n = x.size(x.rank - 1);
    if (n % 2) return call.fail("the last axis of x must have two halves, it has %zu elements", n);
    bool same = cos.rank == sin.rank;
    for (size_t i = 0; same && i < cos.rank; ++i) same = cos.dims[i] == sin.dims[i];
    if (!same) return call.fail("cos and sin differ in their shapes");
    if (cos.size(cos.rank - 1) != n / 2) {
      return call.fail("cos and sin must have %zu elements along the last axis, half as many as x", n / 2);
    }
    Shape rows[2] = {x, cos}, result;
    for (Shape& shape : rows) --shape.rank;
    bool fits = make_loops(rows, 2, &result, loops) && result.rank == rows[0].rank;
    for (size_t i = 0; fits && i < result.rank; ++i) fits = result.dims[i] == x.dims[i];
    return fits || call.fail("cos and sin do not broadcast to x");
  }

  RotarySpec spec_ = {};
};

}  // namespace

Kernel* make_rotary() { return make<RotaryKernel>(); }

}  // namespace ort
}  // namespace mulshift
