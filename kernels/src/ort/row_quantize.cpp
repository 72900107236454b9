// RowQuantize(x) -> q, k: each row of the last axis in 8 bits with a power of two of its own.
//
//   m = max |x - zx|,  k = max(bits(m) - 7, 0),  q = clamp(((x - zx) + (2^k >> 1)) >> k, -128, 127) + 128
//
// Rounding   half up, by an arithmetic shift.
// Ranges     |x - zx| < 2^16, so that nothing leaves int32.
// Layouts    x [rows][n], q u8 the same, k s32 [rows].
#include "../broadcast.h"
#include "operator.h"

namespace mulshift {
namespace ort {
namespace {

constexpr size_t kPiece = 16384;  // elements that are worth a task
constexpr int32_t kKeptBits = 7, kMiddle = 128;

struct Job {
  const Tensor* x;
  int32_t x_zero_point;
  size_t n;
  uint8_t* q;
  int32_t* k;
};

inline int32_t shift_of(int32_t m) {
  int32_t bits = 0;
  for (; m; m >>= 1) ++bits;
  return bits > kKeptBits ? bits - kKeptBits : 0;
}

template <class T>
void quantize_row(const T* x, size_t n, int32_t zx, uint8_t* q, int32_t* k) {
  int32_t low = 0, high = 0;
  for (size_t i = 0; i < n; ++i) {
    const int32_t value = x[i] - zx;
    low = value < low ? value : low;
    high = value > high ? value : high;
  }
  const int32_t shift = shift_of(high > -low ? high : -low), half = (int32_t{1} << shift) >> 1;
  for (size_t i = 0; i < n; ++i) {
    const int32_t y = ((x[i] - zx + half) >> shift) + kMiddle;
    q[i] = static_cast<uint8_t>(y < 0 ? 0 : y > 255 ? 255 : y);
  }
  *k = shift;
}

template <class T>
void rows_of(const Job& job, size_t first, size_t last) {
  for (size_t r = first; r < last; ++r) {
    quantize_row(job.x->as<T>() + r * job.n, job.n, job.x_zero_point, job.q + r * job.n, job.k + r);
  }
}

void run_rows(const void* self, size_t first, size_t last) {
  const Job& job = *static_cast<const Job*>(self);
  switch (job.x->type) {
    case Type::u8:
      return rows_of<uint8_t>(job, first, last);
    case Type::s8:
      return rows_of<int8_t>(job, first, last);
    default:
      return rows_of<int16_t>(job, first, last);
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
