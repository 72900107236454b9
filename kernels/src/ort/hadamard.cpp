// Hadamard(x, base) -> y: groups of `block` elements of the last axis times a Sylvester matrix (x) base.
#include "../hadamard.h"

#include <atomic>

#include "../broadcast.h"
#include "../buffer.h"
#include "../isa.h"
#include "elementwise.h"

namespace mulshift {
namespace ort {
namespace {

constexpr size_t kPiece = 4096;  // elements that are worth a task
constexpr size_t kLanes = 16;

struct Job {
  const HadamardSpec* spec;
  size_t block;
  const char* x;
  char* y;
  std::atomic<bool>* failed;

  static void run(const void* self, size_t first, size_t last) {
    thread_local Buffer words, acc;
    const Job& job = *static_cast<const Job*>(self);
    const HadamardSpec& spec = *job.spec;
    int16_t* w = words.array<int16_t>(job.block + kLanes);
    int32_t* a = acc.array<int32_t>(spec.slices * spec.stride);
    if (!w || !a) {
      *job.failed = true;
      return;
    }
    const size_t x_step = job.block * size_of(spec.x_type), y_step = job.block * size_of(spec.out.type);
    for (size_t i = first; i < last; ++i) isa()->hadamard.group(spec, job.x + i * x_step, w, a, job.y + i * y_step);
  }
};

// Whether i & j has an odd number of bits: entry (i, j) of a Sylvester matrix is then -1.
bool odd(size_t i, size_t j) {
  bool found = false;
  for (size_t both = i & j; both; both &= both - 1) found = !found;
  return found;
}

class HadamardKernel final : public Kernel {
 public:
  void read(Node& node) override {
    spec_.x_type = node.type(0);
    const int32_t zx = node.zero_point("x_zero_point", spec_.x_type);
    const int64_t block = node.integer("block", 1, INT32_MAX);
    const int32_t b = node.multiplier("multiplier"), c = node.shift("shift");
    spec_.out = node.small_output();
    const Tensor base = node.constant(1, "base");
    if (!node.ok() || !check(node, base, block)) return;
    const int64_t bound = block * farthest(spec_.x_type, zx);
    if (bound > INT32_MAX) {
      node.fail("its int32 accumulator may overflow");
      return;
    }
    spec_.ratio = find_ratio(bound, b, c);
    block_ = static_cast<size_t>(block);
    take(node, base.as<int8_t>(), base.shape.size(0), zx);
  }

  bool run(Call& call) const override {
    const Tensor x = call.input(0, "x");
    if (!call.ok()) return false;
    if (x.shape.rank < 1 || x.shape.size(x.shape.rank - 1) % block_) {
      return call.fail("the last axis of x must have a multiple of %zu elements", block_);
    }
    std::atomic<bool> failed{false};
    const Job job{&spec_, block_, x.as<char>(), static_cast<char*>(call.output(0, x.shape)), &failed};
    if (!job.y) return false;
    for_ranges(x.shape.count() / block_, kPiece / block_ + 1, Job::run, &job, call.parallel());
    return failed ? call.fail("out of memory") : true;
  }

 private:
  static bool check(Node& node, const Tensor& base, int64_t block) {
    const Shape& shape = base.shape;
    if (shape.rank != 2 || shape.dims[0] != shape.dims[1] || !shape.dims[0] || shape.size(0) > kMaxBase) {
      return node.fail("base must be square, of 1 to %zu rows", kMaxBase);
    }
    for (size_t i = 0; i < shape.count(); ++i) {
      const int8_t v = base.as<int8_t>()[i];
      if (v != 1 && v != -1) return node.fail("base has %d, which is neither 1 nor -1", v);
    }
    const int64_t slices = block / shape.dims[0];
    if (block % shape.dims[0] || (slices & (slices - 1))) {
      return node.fail("block is no power of two times the %zu rows of base", shape.size(0));
    }
    return true;
  }

  // Of the Sylvester matrix, as much goes into `base` as makes it sixteen columns wide.
  void take(Node& node, const int8_t* base, size_t m, int32_t zx) {
    spec_.columns = m;
    while (spec_.columns < kLanes && spec_.columns < block_) spec_.columns *= 2;
    spec_.slices = block_ / spec_.columns;
    spec_.stride = (spec_.columns + kLanes - 1) / kLanes * kLanes;
    int16_t* pairs = base_.array<int16_t>((spec_.columns + 1) / 2 * 2 * spec_.stride);
    int32_t* start = start_.array<int32_t>(spec_.stride);
    if (!pairs || !start) {
      node.fail("out of memory");
      return;
    }
    for (size_t i = 0; i < spec_.columns; ++i) {
      for (size_t j = 0; j < spec_.columns; ++j) {
        const int v = odd(i / m, j / m) ? -base[i % m * m + j % m] : base[i % m * m + j % m];
        pairs[(i / 2 * spec_.stride + j) * 2 + i % 2] = static_cast<int16_t>(v);
        start[j] -= zx * v;
      }
    }
    spec_.base = pairs;
    spec_.start = start;
  }

  HadamardSpec spec_ = {};
  size_t block_ = 1;
  Buffer base_, start_;
};

}  // namespace

Kernel* make_hadamard() { return make<HadamardKernel>(); }

}  // namespace ort
}  // namespace mulshift
