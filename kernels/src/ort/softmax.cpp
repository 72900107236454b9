// Softmax(x) -> y over the last axis.
#include "../softmax.h"

#include <atomic>

#include "../broadcast.h"
#include "../buffer.h"
#include "../isa.h"
#include "../reciprocal.h"
#include "operator.h"

namespace mulshift {
namespace ort {
namespace {

constexpr int32_t kMostShift = 22, kOctaves = 24;
constexpr int64_t kMostPower = 1 << 23;
constexpr size_t kMostLength = 65536;  // so that the sum stays below 2^40
constexpr size_t kPiece = 4096;        // elements that are worth a task

struct Job {
  const Exponent& exponent;
  int32_t multiplier, shift;
  const Output& out;
  const char* x;
  Type x_type;
  size_t n;
  char* y;
  std::atomic<bool>* failed;

  // Rows [first, last).
  static void run(const void* self, size_t first, size_t last) {
    const Job& job = *static_cast<const Job*>(self);
    const SoftmaxKernels& kernels = isa()->softmax;
    const size_t x_bytes = job.n * size_of(job.x_type), y_bytes = job.n * size_of(job.out.type);
    thread_local Buffer powers;
    int32_t* e = powers.array<int32_t>(job.n + kPanel);
    if (!e) *job.failed = true;
    for (size_t i = first; i < last && e; ++i) {
      const uint64_t total = kernels.powers(job.exponent, job.x + i * x_bytes, job.x_type, job.n, e);
      const RowDyadic row = row_dyadic(total, job.multiplier, job.shift);
      kernels.scale(e, 0, find_ratio(kMostPower, row.b, row.c), job.out, job.n, job.y + i * y_bytes);
    }
  }
};

class SoftmaxKernel final : public Kernel {
 public:
  void read(Node& node) override {
    const int32_t b = node.multiplier("score_multiplier"), c = node.shift("score_shift");
    multiplier_ = node.multiplier("multiplier");
    shift_ = node.s32("shift", kMinShift, kMostShift);
    out_ = node.small_output();
    if (node.ok()) exponent_ = Exponent(b, c, kOctaves);
  }

  bool run(Call& call) const override {
    const Tensor x = call.input(0, "x");
    if (!call.ok()) return false;
    if (!x.shape.rank) return call.fail("x must have at least one axis");
    const size_t last = x.shape.rank - 1, n = x.shape.size(last);
    if (n > kMostLength) return call.fail("x has %zu elements along the last axis, more than 65536", n);
    char* y = static_cast<char*>(call.output(0, x.shape));
    if (!y) return false;
    if (!x.shape.count()) return true;
    std::atomic<bool> failed{false};
    const Job job{exponent_, multiplier_, shift_, out_, x.as<char>(), x.type, n, y, &failed};
    for_ranges(x.shape.count(0, last), kPiece / n + 1, Job::run, &job, call.parallel());
    return failed ? call.fail("out of memory") : true;
  }

 private:
  Exponent exponent_;
  int32_t multiplier_ = 0, shift_ = kMinShift;
  Output out_;
};

}  // namespace

Kernel* make_softmax() { return make<SoftmaxKernel>(); }

}  // namespace ort
}  // namespace mulshift
