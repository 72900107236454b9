#include "depthwise.h"

#include <atomic>

#include "isa.h"

namespace mulshift {

namespace {

struct Weights {
  const int8_t* w;
  size_t taps, channels;
};

ColumnSums sums(const void* data, size_t, size_t channel) {
  const Weights& s = *static_cast<const Weights*>(data);
  ColumnSums found = {0, 0};
  for (size_t t = 0; t < s.taps; ++t) {
    const int w = s.w[t * s.channels + channel];
    found.sum += w;
    found.magnitude += w < 0 ? -w : w;
  }
  return found;
}

constexpr size_t kPositions = 8;  // whose accumulators are held at a time

struct Job {
  const ConvSpec& spec;
  const Stages& stages;
  const Image& image;
  const uint8_t *x, *end, *outside;
  const int16_t* weights;
  void *y, *q;
  const void* r;
  size_t out_h, out_w, rows, blocks;  // rows: of all output images; each task takes a block of them
  std::atomic<bool> failed{false};
};

struct Scratch {
  Buffer taps, acc;
};
thread_local Scratch scratch;

size_t pairs_of(const ConvSpec& spec) { return (spec.window.h * spec.window.w + 1) / 2; }

// The taps of one output position; pointers to `outside` where they leave the image.
void find_taps(const Job& job, size_t image, size_t oy, size_t ox, const uint8_t** taps) {
  const Window& v = job.spec.window;
  const size_t channels = job.spec.outputs;
  const uint8_t* base = job.x + image * job.image.h * job.image.w * channels;
  for (size_t ky = 0; ky < v.h; ++ky) {
    const ptrdiff_t iy = static_cast<ptrdiff_t>(oy * v.stride_h + ky * v.dilation_h) - static_cast<ptrdiff_t>(v.pad_top);
    const bool row_inside = iy >= 0 && iy < static_cast<ptrdiff_t>(job.image.h);
    for (size_t kx = 0; kx < v.w; ++kx) {
      const ptrdiff_t ix =
          static_cast<ptrdiff_t>(ox * v.stride_w + kx * v.dilation_w) - static_cast<ptrdiff_t>(v.pad_left);
      const bool inside = row_inside && ix >= 0 && ix < static_cast<ptrdiff_t>(job.image.w);
      *taps++ = inside ? base + (iy * static_cast<ptrdiff_t>(job.image.w) + ix) * static_cast<ptrdiff_t>(channels)
                       : job.outside;
    }
  }
  if (v.h * v.w % 2) *taps = job.outside;
}

void run_row(const Job& job, size_t row, const uint8_t** taps, int32_t* acc) {
  const size_t pairs = pairs_of(job.spec), channels = job.spec.outputs;
  const size_t stride = (channels + kPanel - 1) / kPanel * kPanel;
  const Epilogue epilogue = {&job.stages, job.y, job.r, job.q, channels};
  for (size_t ox = 0; ox < job.out_w; ox += kPositions) {
    const size_t count = job.out_w - ox < kPositions ? job.out_w - ox : kPositions;
    for (size_t i = 0; i < count; ++i) {
      find_taps(job, row / job.out_h, row % job.out_h, ox + i, taps + i * 2 * pairs);
    }
    isa()->depthwise.multiply(taps, count, pairs, channels, job.end, job.weights, acc);
    isa()->dense.finish(epilogue, acc, stride, count, row * job.out_w + ox, 0, channels);
  }
}

void run_task(void* data, size_t task) {
  Job& job = *static_cast<Job*>(data);
  const size_t stride = (job.spec.outputs + kPanel - 1) / kPanel * kPanel;
  const uint8_t** taps = scratch.taps.array<const uint8_t*>(kPositions * 2 * pairs_of(job.spec));
  int32_t* acc = scratch.acc.array<int32_t>(kPositions * stride);
  if (!taps || !acc) {
    job.failed = true;
    return;
  }
  const size_t first = job.rows * task / job.blocks, last = job.rows * (task + 1) / job.blocks;
  for (size_t row = first; row < last; ++row) run_row(job, row, taps, acc);
}

}  // namespace

const char* Depthwise::prepare(const ConvSpec& spec, const ColumnInputs& columns) {
  spec_ = spec;
  const Weights w = {spec.packed, spec.window.h * spec.window.w, spec.outputs};
  ColumnInputs one_group = columns;
  one_group.groups = 1;
  if (const char* error = columns_.prepare(one_group, true, sums, &w)) return error;
  const size_t pairs = pairs_of(spec), panels = columns_.panels();
  int16_t* out = weights_.array<int16_t>(pairs * panels * kPanel * 2);
  uint8_t* outside = outside_.array<uint8_t>(panels * kPanel);
  if (!out || !outside) return "out of memory";
  for (size_t i = 0; i < panels * kPanel; ++i) outside[i] = static_cast<uint8_t>(spec.x_zero_point);
  for (size_t t = 0; t < w.taps; ++t) {
    for (size_t ch = 0; ch < w.channels; ++ch) {
      out[(t / 2 * panels * kPanel + ch) * 2 + t % 2] = w.w[t * w.channels + ch];
    }
  }
  return nullptr;
}

const char* Depthwise::run(const Stages& stages, const Image& image, const uint8_t* x, void* y, const void* r, void* q,
                           const Parallel& parallel) const {
  const Window& v = spec_.window;
  const size_t out_h = positions(image.h, v.h, v.stride_h, v.pad_top, v.pad_bottom, v.dilation_h);
  const size_t out_w = positions(image.w, v.w, v.stride_w, v.pad_left, v.pad_right, v.dilation_w);
  const size_t rows = image.count * out_h;
  if (!rows || !out_w || !spec_.outputs) return nullptr;
  const Stages prepared = columns_.of_group(stages, 0);
  const size_t wanted = static_cast<size_t>(parallel.threads) * 4;
  Job job = {spec_,
             prepared,
             image,
             x,
             x + image.count * image.h * image.w * spec_.outputs,
             static_cast<const uint8_t*>(outside_.data()),
             static_cast<const int16_t*>(weights_.data()),
             y,
             q,
             r,
             out_h,
             out_w,
             rows,
             parallel.threads <= 1 ? 1 : (rows < wanted ? rows : wanted)};
  parallel.run(parallel.self, job.blocks, run_task, &job);
  return job.failed ? "out of memory" : nullptr;
}

}  // namespace mulshift
