// LayerNorm(x, w, bias) -> y and RmsNorm(x, w, bias) -> y: each row of the last axis normalized, scaled and moved;
// LayerNormRowQuantize and RmsNormRowQuantize (x, w, bias) -> q, k: RowQuantize(y), one row at a time.
#include "../norm.h"

#include <atomic>

#include "../broadcast.h"
#include "../buffer.h"
#include "../isa.h"
#include "../ratios.h"
#include "../row_quantize.h"
#include "operator.h"

namespace mulshift {
namespace ort {
namespace {

constexpr size_t kPiece = 16384;  // elements that are worth a task
constexpr size_t kLanes = 16;
constexpr size_t kRows = 4;  // whose roots are found one after the other: a processor does so while it sums the next row
constexpr size_t kRowsBytes = 16384;  // of them at most, else one at a time

struct Rows {
  int32_t y_zero_point = 0;
  uint8_t* q = nullptr;
  int32_t* k = nullptr;
};

struct Job {
  const NormSpec* spec;
  const char* x;
  char* y;  // null where rows follow
  Rows rows;
  mutable std::atomic<bool> failed{false};

  static void run(const void* self, size_t first, size_t last) {
    const Job& job = *static_cast<const Job*>(self);
    const NormSpec& spec = *job.spec;
    const NormKernels& kernels = isa()->norm;
    const size_t x_step = spec.n * size_of(spec.x_type), y_step = spec.n * size_of(spec.out.type);
    thread_local Buffer room;
    char* row = job.y ? nullptr : room.array<char>(y_step);
    if (!job.y && !row) {
      job.failed = true;
      return;
    }
    NormRow rows[kRows];
    const size_t most = kRows * x_step <= kRowsBytes ? kRows : 1;
    for (size_t i = first, count; i < last; i += count) {
      count = last - i < most ? last - i : most;
      for (size_t r = 0; r < count; ++r) {
        int64_t sum, squares;
        kernels.sums(job.x + (i + r) * x_step, spec.x_type, spec.n, &sum, &squares);
        rows[r] = norm_row(spec, sum, squares);
      }
      for (size_t r = i; r < i + count; ++r) {
        char* y = job.y ? job.y + r * y_step : row;
        kernels.scale(spec, rows[r - i], job.x + r * x_step, y);
        if (job.y) continue;
        isa()->rows.quantize(y, spec.out.type, spec.n, job.rows.y_zero_point, job.rows.q + r * spec.n, job.rows.k + r);
      }
    }
  }
};

int64_t size(int32_t x) { return x < 0 ? -int64_t{x} : x; }

template <bool OF_MEAN, bool TO_ROWS>
class NormKernel final : public Kernel {
 public:
  void read(Node& node) override {
    spec_.of_mean = OF_MEAN;
    spec_.x_type = node.type(0);
    spec_.x_zero_point = node.zero_point("x_zero_point", spec_.x_type);
    spec_.epsilon = node.integer("epsilon", 0, kMaxNormEpsilon);
    spec_.fraction = node.s32("fraction", 0, kMaxNormFraction);
    spec_.shift = node.s32("shift", kMinShift, 31);
    spec_.out = node.output();
    if (TO_ROWS && spec_.out.type == Type::s32) node.fail("attribute 'dtype' is 6, rows are made of 8 or 16 bits");
    if (TO_ROWS) y_zero_point_ = node.zero_point("q_x_zero_point", spec_.out.type);
    const Tensor w = node.constant(1, "w"), bias = node.constant(2, "bias");
    if (!node.ok()) return;
    if (!fits_zero_point(spec_.out)) {
      node.fail("zero_point %d is too far from 0", spec_.out.zero_point);
      return;
    }
    spec_.n = w.shape.count();
    if (w.shape.rank != 1 || bias.shape.rank != 1 || bias.shape.count() != spec_.n || spec_.n < 1 ||
        spec_.n > kMaxNormTerms) {
      node.fail("w and bias must be two lists of 1 to %zu elements, of the same length", kMaxNormTerms);
      return;
    }
    take(node, w.as<int32_t>(), bias.as<int32_t>());
  }

  bool run(Call& call) const override {
    const Tensor x = call.input(0, "x");
    if (!call.ok()) return false;
    if (x.shape.rank < 1 || x.shape.size(x.shape.rank - 1) != spec_.n) {
      return call.fail("the last axis of x must have %zu elements as w", spec_.n);
    }
    Job job;
    job.spec = &spec_;
    job.x = x.as<char>();
    void* first = call.output(0, x.shape);
    job.y = TO_ROWS ? nullptr : static_cast<char*>(first);
    if (TO_ROWS) {
      Shape rows = x.shape;
      rows.dims[rows.rank - 1] = 1;
      job.rows = {y_zero_point_, static_cast<uint8_t*>(first), static_cast<int32_t*>(call.output(1, rows))};
    }
    if (!call.ok()) return false;
    for_ranges(x.shape.count() / spec_.n, kPiece / spec_.n + 1, Job::run, &job, call.parallel());
    return job.failed ? call.fail("out of memory") : true;
  }

 private:
  // Copies both, with 2^(shift-1) in bias and zeros after the end.
  void take(Node& node, const int32_t* w, const int32_t* bias) {
    const size_t padded = (spec_.n + kLanes - 1) / kLanes * kLanes;
    int32_t *ws = w_.array<int32_t>(padded), *biases = bias_.array<int32_t>(padded);
    if (!ws || !biases) {
      node.fail("out of memory");
      return;
    }
    const int64_t z = largest_normalized(spec_.n, spec_.fraction), half = int64_t{1} << (spec_.shift - 1);
    for (size_t i = 0; i < spec_.n; ++i) {
      if (z * size(w[i]) + size(bias[i]) + half > INT32_MAX) {
        node.fail("its int32 accumulator may overflow");
        return;
      }
      ws[i] = w[i];
      biases[i] = static_cast<int32_t>(bias[i] + half);
    }
    spec_.w = ws;
    spec_.bias = biases;
  }

  NormSpec spec_ = {};
  int32_t y_zero_point_ = 0;
  Buffer w_, bias_;
};

}  // namespace

Kernel* make_layer_norm() { return make<NormKernel<true, false>>(); }
Kernel* make_rms_norm() { return make<NormKernel<false, false>>(); }
Kernel* make_layer_norm_row_quantize() { return make<NormKernel<true, true>>(); }
Kernel* make_rms_norm_row_quantize() { return make<NormKernel<false, true>>(); }

}  // namespace ort
}  // namespace mulshift
