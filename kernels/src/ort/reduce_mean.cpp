// ReduceMean(x, axes) -> y: int32 sums of x - zx over some axes, requantized.
#include "../broadcast.h"
#include "../elementwise.h"
#include "../isa.h"
#include "../reduce.h"
#include "../requantize.h"
#include "elementwise.h"

namespace mulshift {
namespace ort {
namespace {

constexpr size_t kPiece = 16384;  // elements that are worth a task

// Axes with neighbours of a kind merged: kept and reduced ones alternate.
struct Groups {
  size_t count = 0;
  size_t size[kMaxRank];
  bool reduced[kMaxRank];

  void add(size_t n, bool is_reduced) {
    if (n == 1) return;
    if (count && reduced[count - 1] == is_reduced) {
      size[count - 1] *= n;
      return;
    }
    size[count] = n;
    reduced[count++] = is_reduced;
  }
};

struct Job {
  const Tensor* x;
  void* y;
  int32_t x_zero_point, multiplier, shift;
  Output out;
  Groups groups;
  size_t outer, terms, inner;  // x as [outer][terms][inner] where at most one group is reduced

  void put(size_t at, int64_t sum) const {
    const int64_t acc = sum - static_cast<int64_t>(terms) * x_zero_point;
    const int32_t value =
        requantize_half_up(static_cast<int32_t>(acc), multiplier, shift, out.zero_point, out.low, out.high);
    switch (out.type) {
      case Type::u8:
        static_cast<uint8_t*>(y)[at] = static_cast<uint8_t>(value);
        return;
      case Type::s8:
        static_cast<int8_t*>(y)[at] = static_cast<int8_t>(value);
        return;
      case Type::s16:
        static_cast<int16_t*>(y)[at] = static_cast<int16_t>(value);
        return;
      default:
        static_cast<int32_t*>(y)[at] = value;
    }
  }
  const void* at(size_t element) const { return static_cast<const char*>(x->data) + element * size_of(x->type); }
  int64_t element(size_t i) const {
    switch (x->type) {
      case Type::u8:
        return x->as<uint8_t>()[i];
      case Type::s8:
        return x->as<int8_t>()[i];
      default:
        return x->as<int16_t>()[i];
    }
  }
};

// Outputs [first, last) of sums over the innermost axis.
void reduce_rows(const void* self, size_t first, size_t last) {
  const Job& job = *static_cast<const Job*>(self);
  for (size_t i = first; i < last; ++i) {
    job.put(i, isa()->reduce.row(job.at(i * job.terms), job.x->type, job.terms));
  }
}

// Blocks [first, last) of kSumColumns columns of sums over an axis before the innermost.
void reduce_columns(const void* self, size_t first, size_t last) {
  const Job& job = *static_cast<const Job*>(self);
  const size_t blocks = (job.inner + kSumColumns - 1) / kSumColumns;
  int32_t sums[kSumColumns];
  for (size_t i = first; i < last; ++i) {
    const size_t outer = i / blocks, column = i % blocks * kSumColumns;
    const size_t columns = job.inner - column < kSumColumns ? job.inner - column : kSumColumns;
    isa()->reduce.columns(job.at(outer * job.terms * job.inner), job.x->type, job.terms, job.inner, column, columns,
                          sums);
    for (size_t c = 0; c < columns; ++c) job.put(outer * job.inner + column + c, sums[c]);
  }
}

// Where element i of the kept (or of the reduced) axes lies in x.
size_t offset(const Groups& groups, bool reduced, size_t i) {
  size_t at = 0, stride = 1;
  for (size_t g = groups.count; g-- > 0; stride *= groups.size[g]) {
    if (groups.reduced[g] != reduced) continue;
    at += i % groups.size[g] * stride;
    i /= groups.size[g];
  }
  return at;
}

// Outputs [first, last) over any axes, in 64 bits.
void reduce_any(const void* self, size_t first, size_t last) {
  const Job& job = *static_cast<const Job*>(self);
  for (size_t i = first; i < last; ++i) {
    const size_t base = offset(job.groups, false, i);
    int64_t sum = 0;
    for (size_t t = 0; t < job.terms; ++t) sum += job.element(base + offset(job.groups, true, t));
    job.put(i, sum);
  }
}

class ReduceMean final : public Kernel {
 public:
  void read(Node& node) override {
    x_zero_point_ = node.zero_point("x_zero_point", node.type(0));
    keepdims_ = node.flag("keepdims");
    multiplier_ = node.multiplier("multiplier");
    shift_ = node.shift("shift");
    out_ = node.output();
    const Tensor axes = node.constant(1, "axes");
    if (!node.ok()) return;
    count_ = axes.shape.count();
    if (axes.shape.rank > 1 || count_ == 0 || count_ > kMaxRank) {
      node.fail("axes must be a list of 1 to %zu axes", kMaxRank);
      return;
    }
    for (size_t i = 0; i < count_; ++i) axes_[i] = axes.as<int64_t>()[i];
  }

  bool run(Call& call) const override {
    const Tensor x = call.input(0, "x");
    if (!call.ok()) return false;
    bool reduced[kMaxRank] = {};
    if (!mark(call, x.shape.rank, reduced)) return false;
    Job job{&x, nullptr, x_zero_point_, multiplier_, shift_, out_, {}, 1, 1, 1};
    Shape result;
    for (size_t axis = 0; axis < x.shape.rank; ++axis) {
      job.groups.add(x.shape.size(axis), reduced[axis]);
      if (reduced[axis]) job.terms *= x.shape.size(axis);
      if (!reduced[axis] || keepdims_) result.dims[result.rank++] = reduced[axis] ? 1 : x.shape.dims[axis];
    }
    job.y = call.output(0, result);
    if (!job.y) return false;
    if (result.count()) start(job, result.count(), call.parallel());
    return true;
  }

 private:
  bool mark(Call& call, size_t rank, bool* reduced) const {
    const int64_t axes = static_cast<int64_t>(rank);
    for (size_t i = 0; i < count_; ++i) {
      const int64_t axis = axes_[i] < 0 ? axes_[i] + axes : axes_[i];
      if (axis < 0 || axis >= axes || reduced[axis]) return call.fail("axes do not fit the %zu axes of x", rank);
      reduced[axis] = true;
    }
    return true;
  }

  static void start(Job& job, size_t outputs, const Parallel& parallel) {
    const Groups& groups = job.groups;
    const int64_t most = farthest(job.x->type, 0) * static_cast<int64_t>(job.terms);
    const size_t least = kPiece / (job.terms ? job.terms : 1) + 1;
    size_t reduced = groups.count, found = 0;
    for (size_t g = 0; g < groups.count; ++g) {
      if (!groups.reduced[g]) continue;
      reduced = g;
      ++found;
    }
    if (found != 1 || most > INT32_MAX) return for_ranges(outputs, least, reduce_any, &job, parallel);
    for (size_t g = 0; g < reduced; ++g) job.outer *= groups.size[g];
    for (size_t g = reduced + 1; g < groups.count; ++g) job.inner *= groups.size[g];
    if (job.inner == 1) return for_ranges(outputs, least, reduce_rows, &job, parallel);
    const size_t blocks = job.outer * ((job.inner + kSumColumns - 1) / kSumColumns);
    for_ranges(blocks, least / kSumColumns + 1, reduce_columns, &job, parallel);
  }

  int32_t x_zero_point_ = 0, multiplier_ = 0, shift_ = kMinShift;
  bool keepdims_ = false;
  Output out_;
  size_t count_ = 0;
  int64_t axes_[kMaxRank] = {};
};

}  // namespace

Kernel* make_reduce_mean() { return make<ReduceMean>(); }

// Which axes they are is not told here, only how many.
void infer_reduce_mean(const Inference& inference) {
  OpenShape made = inference.input(0);
  const OpenShape axes = inference.input(1);
  if (inference.integer("keepdims", 0) != 1) {
    if (!axes.known || axes.dims[0].size < 0 || made.rank < static_cast<size_t>(axes.dims[0].size)) return;
    made.rank -= static_cast<size_t>(axes.dims[0].size);
  }
  for (Dim& dim : made.dims) dim = Dim();
  inference.output(0, made);
}

}  // namespace ort
}  // namespace mulshift
