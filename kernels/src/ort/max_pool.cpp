// MaxPoolNhwc(x) -> y: padding never wins.
#include <cstring>

#include "../broadcast.h"
#include "../isa.h"
#include "../pool.h"
#include "operator.h"

namespace mulshift {
namespace ort {
namespace {

constexpr int64_t kMost = INT32_MAX;
constexpr size_t kPiece = 4096;  // bytes of y that are worth a task

// One axis of the windows.
struct Axis {
  int64_t kernel, stride, before, after, dilation;

  int64_t reach() const { return (kernel - 1) * dilation + 1; }
  // Windows over `size` elements; with `ceil` one that overhangs counts too, unless it starts in the padding at the
  // end.
  int64_t windows(int64_t size, bool ceil) const {
    const int64_t room = size + before + after - reach();
    if (room < 0) return 0;
    if (!ceil) return room / stride + 1;
    const int64_t steps = (room + stride - 1) / stride;
    return steps * stride >= size + before ? steps : steps + 1;
  }
  // Taps [first, last) of window i that lie in [0, size); where first >= last there is none.
  void inside(int64_t i, int64_t size, int64_t* first, int64_t* last) const {
    const int64_t start = i * stride - before;
    *first = start >= 0 ? 0 : (-start + dilation - 1) / dilation;
    *last = start >= size ? 0 : (size - start + dilation - 1) / dilation;
    if (*last > kernel) *last = kernel;
  }
};

struct Job {
  Type type;
  const Tensor* x;
  uint8_t* y;
  Axis h, w;
  int64_t in_h, in_w;
  size_t out_h, out_w, channels;

  // Rows [first, last) of y[N * out_h][out_w][channels].
  static void run(const void* self, size_t first, size_t last) {
    const Job& job = *static_cast<const Job*>(self);
    for (size_t i = first; i < last; ++i) job.row(i / job.out_h, static_cast<int64_t>(i % job.out_h), i);
  }

  void row(size_t image, int64_t oy, size_t at) const {
    int64_t top, bottom, left, right;
    h.inside(oy, in_h, &top, &bottom);
    uint8_t* out = y + at * out_w * channels;
    for (size_t ox = 0; ox < out_w; ++ox, out += channels) {
      w.inside(static_cast<int64_t>(ox), in_w, &left, &right);
      if (top >= bottom || left >= right) {
        std::memset(out, type == Type::u8 ? 0 : -128, channels);
        continue;
      }
      const int64_t iy = oy * h.stride - h.before + top * h.dilation;
      const int64_t ix = static_cast<int64_t>(ox) * w.stride - w.before + left * w.dilation;
      const int64_t pixel = (static_cast<int64_t>(image) * in_h + iy) * in_w + ix;
      window(static_cast<size_t>(pixel) * channels, static_cast<size_t>(bottom - top),
             static_cast<size_t>(right - left), out);
    }
  }

  void window(size_t start, size_t rows, size_t columns, uint8_t* out) const {
    const size_t column_step = static_cast<size_t>(w.dilation) * channels;
    const size_t row_step = static_cast<size_t>(h.dilation * in_w) * channels;
    const PoolKernels& kernels = isa()->pool;
    if (type == Type::u8) {
      return kernels.max_u8(x->as<uint8_t>() + start, rows, columns, row_step, column_step, channels, out);
    }
    kernels.max_s8(x->as<int8_t>() + start, rows, columns, row_step, column_step, channels,
                   reinterpret_cast<int8_t*>(out));
  }
};

class MaxPoolNhwc final : public Kernel {
 public:
  void read(Node& node) override {
    const Integers kernel = node.integers("kernel_shape", 2, 1, kMost),
                   strides = node.integers_or("strides", 2, 1, 1, kMost);
    const Integers pads = node.integers_or("pads", 4, 0, 0, kMost),
                   dilations = node.integers_or("dilations", 2, 1, 1, kMost);
    h_ = {kernel[0], strides[0], pads[0], pads[2], dilations[0]};
    w_ = {kernel[1], strides[1], pads[1], pads[3], dilations[1]};
    ceil_ = node.integer_or("ceil_mode", 0, 0, 1) != 0;
  }

  bool run(Call& call) const override {
    const Tensor x = call.input(0, "x");
    if (!call.ok()) return false;
    if (x.shape.rank != 4) return call.fail("x must be [N, H, W, C], not of %zu axes", x.shape.rank);
    const int64_t in_h = x.shape.dims[1], in_w = x.shape.dims[2];
    Shape result = x.shape;
    result.dims[1] = h_.windows(in_h, ceil_);
    result.dims[2] = w_.windows(in_w, ceil_);
    if (result.dims[1] <= 0 || result.dims[2] <= 0) return call.fail("the window is larger than the padded x");
    uint8_t* y = static_cast<uint8_t*>(call.output(0, result));
    if (!y) return false;
    const Job job{x.type, &x, y, h_, w_, in_h, in_w, result.size(1), result.size(2), x.shape.size(3)};
    if (!result.count()) return true;
    const size_t row = job.out_w * job.channels;
    for_ranges(result.size(0) * job.out_h, kPiece / row + 1, Job::run, &job, call.parallel());
    return true;
  }

 private:
  Axis h_, w_;
  bool ceil_ = false;
};

}  // namespace

Kernel* make_max_pool() { return make<MaxPoolNhwc>(); }

void infer_max_pool(const Inference& inference) {
  OpenShape made = inference.input(0);
  int64_t kernel[kMaxRank], strides[kMaxRank] = {1, 1}, pads[kMaxRank] = {}, dilations[kMaxRank] = {1, 1};
  if (!made.known || made.rank != 4 || inference.integers("kernel_shape", kernel) != 2) return;
  inference.integers("strides", strides);
  inference.integers("pads", pads);
  inference.integers("dilations", dilations);
  const bool ceil = inference.integer("ceil_mode", 0) != 0;
  for (int i = 0; i < 2; ++i) {
    Dim& dim = made.dims[1 + i];
    const Axis axis{kernel[i], strides[i], pads[i], pads[i + 2], dilations[i]};
    const int64_t size = dim.size;
    dim = Dim();
    const int64_t windows = size >= 0 && axis.stride > 0 ? axis.windows(size, ceil) : 0;
    if (windows > 0) dim.size = windows;
  }
  inference.output(0, made);
}

}  // namespace ort
}  // namespace mulshift
