#include "depthwise.h"

#include <atomic>

#include "isa.h"

namespace mulshift {

namespace {

constexpr size_t kColumnBytes = 16 * 1024;  // of the columns laid at a time: within the first-level cache

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

// The pairs of a kernel: whole pairs of rows, then the taps of an odd last row.
struct Pairing {
  explicit Pairing(const Window& v) : window(v), row_pairs(v.h / 2), odd(v.h % 2), in_row((v.w + 1) / 2) {}

  size_t count() const { return row_pairs * window.w + odd * in_row; }
  size_t buffers() const { return row_pairs + odd; }

  // The two taps of pair i, as ky * kw + kx; the second may be `none`.
  void taps(size_t i, size_t* first, size_t* second) const {
    const size_t w = window.w;
    if (i < row_pairs * w) {
      *first = i / w * 2 * w + i % w;
      *second = *first + w;
      return;
    }
    const size_t kx = (i - row_pairs * w) * 2;
    *first = (window.h - 1) * w + kx;
    *second = kx + 1 < w ? *first + 1 : none;
  }
  // Where pair i starts in buffers of `size` elements each, columns of kPairs.
  size_t offset(size_t i, size_t size) const {
    const size_t w = window.w;
    if (i < row_pairs * w) return i / w * size + i % w * window.dilation_w * kPairs;
    return row_pairs * size + (i - row_pairs * w) * 2 * window.dilation_w * kPairs;
  }

  static constexpr size_t none = ~size_t{0};
  const Window& window;
  size_t row_pairs, odd, in_row;
};

struct Job {
  const ConvSpec& spec;
  const Stages& stages;
  const Image& image;
  const uint8_t* x;
  const int16_t* weights;
  void *y, *q;
  const void* r;
  size_t out_h, out_w, rows, blocks;  // rows: of all output images; a task takes a block of them
  size_t width;                       // columns laid: padding, image, and what the last pairs reach beyond
  std::atomic<bool> failed{false};

  size_t padded() const { return (spec.outputs + kPanel - 1) / kPanel * kPanel; }
};

struct Scratch {
  Buffer columns, offsets, acc, rows;
};
thread_local Scratch scratch;

// A row of zero points, and a place to widen the last channels of a row in: width * 16 bytes each.
struct Rows {
  const uint8_t* outside;
  uint8_t *first, *second;
};

// The 16 channels from `channel` on of each column of a row; null row: outside the image. A row whose last channels
// are fewer than 16 is copied to `room` first. Sets the step between columns.
const uint8_t* find_row(const Job& job, const uint8_t* row, size_t channel, const Rows& rows, uint8_t* room,
                        size_t* step) {
  if (!row) {
    *step = 0;
    return rows.outside;
  }
  const size_t channels = job.spec.outputs, count = channels - channel < kPanel ? channels - channel : kPanel;
  if (count == kPanel) {
    *step = channels;
    return row + channel;
  }
  for (size_t i = 0; i < job.image.w; ++i) {
    for (size_t ch = 0; ch < count; ++ch) room[i * kPanel + ch] = row[i * channels + channel + ch];
  }
  *step = kPanel;
  return room;
}

// Lays columns for the image's part of a row, padding left and right of it.
void lay(const Job& job, const uint8_t* a, size_t a_step, const uint8_t* b, size_t b_step, const Rows& rows,
         int16_t* out) {
  const DepthwiseKernels& kernels = isa()->depthwise;
  const size_t left = job.spec.window.pad_left, right = job.width - left - job.image.w;
  kernels.interleave(rows.outside, rows.outside, 0, left, out);
  out += left * kPairs;
  if (a_step == b_step) {
    kernels.interleave(a, b, a_step, job.image.w, out);
  } else {
    for (size_t i = 0; i < job.image.w; ++i) kernels.interleave(a + i * a_step, b + i * b_step, 0, 1, out + i * kPairs);
  }
  kernels.interleave(rows.outside, rows.outside, 0, right, out + job.image.w * kPairs);
}

// The odd last row, each column beside the one a tap to the right of it.
void lay_odd(const Job& job, const uint8_t* row, size_t step, const Rows& rows, int16_t* out) {
  const DepthwiseKernels& kernels = isa()->depthwise;
  const size_t left = job.spec.window.pad_left, next = job.spec.window.dilation_w, w = job.image.w;
  const size_t inside = w > next ? w - next : 0;  // columns of the image whose neighbour lies in it too
  const auto at = [&](size_t x) { return x >= left && x < left + w ? row + (x - left) * step : rows.outside; };
  for (size_t x = 0; x < job.width; ++x, out += kPairs) {
    if (x == left && inside) {
      kernels.interleave(row, row + next * step, step, inside, out);
      x += inside - 1;
      out += (inside - 1) * kPairs;
    } else {
      kernels.interleave(at(x), at(x + next), 0, 1, out);
    }
  }
}

void lay_panel(const Job& job, size_t row, size_t channel, const Rows& rows, int16_t* columns, size_t buffer) {
  const Window& v = job.spec.window;
  const Pairing pairing(v);
  const uint8_t* image = job.x + row / job.out_h * job.image.h * job.image.w * job.spec.outputs;
  const ptrdiff_t top = static_cast<ptrdiff_t>(row % job.out_h * v.stride_h) - static_cast<ptrdiff_t>(v.pad_top);
  const auto source = [&](size_t ky, uint8_t* room, size_t* step) {
    const ptrdiff_t iy = top + static_cast<ptrdiff_t>(ky * v.dilation_h);
    const bool inside = iy >= 0 && iy < static_cast<ptrdiff_t>(job.image.h);
    const uint8_t* from = inside ? image + static_cast<size_t>(iy) * job.image.w * job.spec.outputs : nullptr;
    return find_row(job, from, channel, rows, room, step);
  };
  size_t a_step, b_step;
  for (size_t i = 0; i < pairing.row_pairs; ++i) {
    const uint8_t* a = source(2 * i, rows.first, &a_step);
    const uint8_t* b = source(2 * i + 1, rows.second, &b_step);
    lay(job, a, a_step, b, b_step, rows, columns + i * buffer);
  }
  if (!pairing.odd) return;
  const uint8_t* last = source(v.h - 1, rows.first, &a_step);
  lay_odd(job, last, a_step, rows, columns + pairing.row_pairs * buffer);
}

void run_task(void* data, size_t task) {
  Job& job = *static_cast<Job*>(data);
  const Window& v = job.spec.window;
  const Pairing pairing(v);
  const size_t pairs = pairing.count(), buffer = job.width * kPairs, panels = job.padded() / kPanel;
  const size_t panel_bytes = pairing.buffers() * buffer * sizeof(int16_t);
  const size_t at_once = panel_bytes < kColumnBytes ? kColumnBytes / panel_bytes : 1;
  int16_t* columns = scratch.columns.array<int16_t>(pairing.buffers() * buffer);
  size_t* offsets = scratch.offsets.array<size_t>(pairs);
  int32_t* acc = scratch.acc.array<int32_t>(job.out_w * at_once * kPanel);
  uint8_t* room = scratch.rows.array<uint8_t>(2 * job.image.w * kPanel + kPanel);
  if (!columns || !offsets || !acc || !room) {
    job.failed = true;
    return;
  }
  std::memset(room, job.spec.x_zero_point, kPanel);
  const Rows rows = {room, room + kPanel, room + kPanel + job.image.w * kPanel};
  for (size_t i = 0; i < pairs; ++i) offsets[i] = pairing.offset(i, buffer);
  const Epilogue epilogue = {&job.stages, job.y, job.r, job.q, job.spec.outputs};
  const size_t first = job.rows * task / job.blocks, last = job.rows * (task + 1) / job.blocks;
  for (size_t row = first; row < last; ++row) {
    for (size_t p0 = 0; p0 < panels; p0 += at_once) {
      const size_t count = panels - p0 < at_once ? panels - p0 : at_once, stride = count * kPanel;
      for (size_t p = 0; p < count; ++p) {
        lay_panel(job, row, (p0 + p) * kPanel, rows, columns, buffer);
        isa()->depthwise.multiply(columns, offsets, pairs, v.stride_w * kPairs, job.out_w,
                                  job.weights + (p0 + p) * pairs * kPairs, job.stages.bias + (p0 + p) * kPanel,
                                  acc + p * kPanel, stride);
      }
      const size_t end = (p0 + count) * kPanel < job.spec.outputs ? (p0 + count) * kPanel : job.spec.outputs;
      isa()->dense.finish(epilogue, acc, stride, job.out_w, row * job.out_w, p0 * kPanel, end - p0 * kPanel);
    }
  }
}

}  // namespace

const char* Depthwise::prepare(const ConvSpec& spec, const ColumnInputs& columns) {
  spec_ = spec;
  const Weights w = {spec.packed, spec.window.h * spec.window.w, spec.outputs};
  ColumnInputs one_group = columns;
  one_group.groups = 1;
  if (const char* error = columns_.prepare(one_group, spec.x_zero_point, sums, &w)) return error;
  const Pairing pairing(spec_.window);
  const size_t pairs = pairing.count();
  int16_t* out = weights_.array<int16_t>(columns_.panels() * pairs * kPairs);
  if (!out) return "out of memory";
  for (size_t i = 0; i < pairs; ++i) {
    size_t first, second;
    pairing.taps(i, &first, &second);
    for (size_t ch = 0; ch < w.channels; ++ch) {
      int16_t* at = out + (ch / kPanel * pairs + i) * kPairs + ch % kPanel * 2;
      at[0] = w.w[first * w.channels + ch];
      at[1] = second == Pairing::none ? int16_t{0} : int16_t{w.w[second * w.channels + ch]};
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
  const size_t threads = static_cast<size_t>(parallel.threads), blocks = threads <= 1 ? 1 : threads * 4;
  const size_t reach = (out_w - 1) * v.stride_w + v.w * v.dilation_w + 1;
  const size_t least = v.pad_left + image.w, width = reach > least ? reach : least;
  Job job = {spec_, prepared, image, x, static_cast<const int16_t*>(weights_.data()), y, q, r, out_h, out_w, rows,
             rows < blocks ? rows : blocks, width};
  parallel.run(parallel.self, job.blocks, run_task, &job);
  return job.failed ? "out of memory" : nullptr;
}

}  // namespace mulshift
