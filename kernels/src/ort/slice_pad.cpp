// SlicePad(x) -> y: a box of x at steps, with one value around it.
#include <cstring>

#include "../broadcast.h"
#include "operator.h"

namespace mulshift {
namespace ort {
namespace {

constexpr int64_t kMost = INT32_MAX;
constexpr size_t kPiece = 1 << 16;  // bytes of y that are worth a task

// One axis: of `size` elements those from `start` on, at steps, below `end`; then what stands around them.
struct Axis {
  int64_t start, end, step, before, after;

  int64_t kept(int64_t size) const {
    const int64_t last = end < size ? end : size;
    return last > start ? (last - start + step - 1) / step : 0;
  }
};

struct Job {
  const Axis* axes;
  Shape in, out;
  size_t in_step[kMaxRank], out_step[kMaxRank];
  const uint8_t* x;
  uint8_t* y;
  int value;

  // Elements [first, last) of y's first two axes.
  static void run(const void* self, size_t first, size_t last) {
    const Job& job = *static_cast<const Job*>(self);
    const size_t inner = job.out.rank > 1 ? job.out.size(1) : 1;
    for (size_t i = first; i < last; ++i) job.outer(i / inner, i % inner);
  }

  void outer(size_t i, size_t j) const {
    const bool two = out.rank > 1;
    uint8_t* to = y + i * out_step[0] + (two ? j * out_step[1] : 0);
    const int64_t a = source(0, i), b = two ? source(1, j) : 0;
    const size_t axis = two ? 2 : 1;
    if (a < 0 || b < 0) {
      std::memset(to, value, out_step[axis - 1]);
    } else {
      box(axis, x + static_cast<size_t>(a) * in_step[0] + (two ? static_cast<size_t>(b) * in_step[1] : 0), to);
    }
  }

  // The element of x that an element of y is, -1 where it is the value.
  int64_t source(size_t axis, size_t i) const {
    const Axis& a = axes[axis];
    const int64_t k = static_cast<int64_t>(i) - a.before;
    return k >= 0 && k < a.kept(in.dims[axis]) ? a.start + k * a.step : -1;
  }

  // The axes from `axis` on.
  void box(size_t axis, const uint8_t* from, uint8_t* to) const {
    if (axis == out.rank) {
      *to = *from;
      return;
    }
    const Axis& a = axes[axis];
    const size_t kept = static_cast<size_t>(a.kept(in.dims[axis])), step = out_step[axis];
    const size_t before = static_cast<size_t>(a.before) * step, after = static_cast<size_t>(a.after) * step;
    if (before) std::memset(to, value, before);
    to += before;
    if (kept) from += static_cast<size_t>(a.start) * in_step[axis];
    if (axis + 1 == out.rank && a.step == 1) {
      if (kept) std::memcpy(to, from, kept);
      to += kept;
    } else {
      for (size_t i = 0; i < kept; ++i, to += step) box(axis + 1, from + i * static_cast<size_t>(a.step) * in_step[axis], to);
    }
    if (after) std::memset(to, value, after);
  }
};

class SlicePad final : public Kernel {
 public:
  void read(Node& node) override {
    value_ = node.zero_point("value", node.type(0));
    rank_ = node.count("starts");
    const Integers starts = node.integers("starts", rank_, 0, kMost), ends = node.integers("ends", rank_, 0, kMost),
                   steps = node.integers("steps", rank_, 1, kMost), before = node.integers("before", rank_, 0, kMost),
                   after = node.integers("after", rank_, 0, kMost);
    for (size_t i = 0; i < rank_; ++i) axes_[i] = {starts[i], ends[i], steps[i], before[i], after[i]};
  }

  bool run(Call& call) const override {
    const Tensor x = call.input(0, "x");
    if (!call.ok()) return false;
    if (x.shape.rank != rank_) return call.fail("x has %zu axes, 'starts' is of %zu", x.shape.rank, rank_);
    Job job = {axes_, x.shape, x.shape, {}, {}, x.as<uint8_t>(), nullptr, value_};
    for (size_t i = 0; i < rank_; ++i) job.out.dims[i] = axes_[i].before + axes_[i].kept(x.shape.dims[i]) + axes_[i].after;
    for (size_t i = 0; i < rank_; ++i) {
      job.in_step[i] = x.shape.count(i + 1, rank_);
      job.out_step[i] = job.out.count(i + 1, rank_);
    }
    job.y = static_cast<uint8_t*>(call.output(0, job.out));
    if (!job.y) return false;
    if (!job.out.count()) return true;
    const size_t two = rank_ < 2 ? rank_ : 2;
    for_ranges(job.out.count(0, two), kPiece / job.out_step[two - 1] + 1, Job::run, &job, call.parallel());
    return true;
  }

 private:
  size_t rank_ = 0;
  int value_ = 0;
  Axis axes_[kMaxRank] = {};
};

}  // namespace

Kernel* make_slice_pad() { return make<SlicePad>(); }

void infer_slice_pad(const Inference& inference) {
  OpenShape made = inference.input(0);
  int64_t numbers[5][kMaxRank];
  const char* const names[5] = {"starts", "ends", "steps", "before", "after"};
  for (size_t i = 0; i < 5; ++i) {
    if (!made.known || inference.integers(names[i], numbers[i]) != made.rank) return;
  }
  for (size_t i = 0; i < made.rank; ++i) {
    const Axis axis = {numbers[0][i], numbers[1][i], numbers[2][i], numbers[3][i], numbers[4][i]};
    const int64_t size = made.dims[i].size;
    if (axis.start == 0 && axis.end == kMost && axis.step == 1 && !axis.before && !axis.after) continue;
    made.dims[i] = Dim();
    if (size >= 0 && axis.start >= 0 && axis.step > 0 && axis.before >= 0 && axis.after >= 0) {
      made.dims[i].size = axis.before + axis.kept(size) + axis.after;
    }
  }
  inference.output(0, made);
}

}  // namespace ort
}  // namespace mulshift
