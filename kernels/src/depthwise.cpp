#include "depthwise.h"

#include <atomic>

#include "isa.h"
#include "queue.h"

namespace mulshift {

namespace {

constexpr size_t kInputBytes = 128 * 1024;  // of the rows that a task reads: within the second-level cache
constexpr size_t kLeastRows = 4;            // of a task's outputs

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

// The pairs of a kernel: pair i is of kernel rows 2 * (i / w) and the next, at kernel column i % w.
size_t row_pairs(const Window& v) { return (v.h + 1) / 2; }
size_t pairs_of(const Window& v) { return row_pairs(v) * v.w; }

struct Job {
  const ConvSpec& spec;
  const Stages& stages;
  const Image& image;
  const uint8_t* x;
  const int16_t* weights;
  const DirectWindows& direct;
  void *y, *q;
  const void* r;
  size_t out_h, out_w, row_blocks, panel_blocks;  // a task takes a part of an image's output rows and of its panels
  size_t width;                 // columns laid: padding, image, and what the last positions reach beyond
  std::atomic<bool> failed{false};
};

struct Scratch {
  Buffer columns, offsets, acc, rows;
};
thread_local Scratch scratch;

// The laid rows of one panel of one image, as many as an output row spans, in a ring.
class Laid {
 public:
  static constexpr ptrdiff_t none = PTRDIFF_MIN;

  Laid(const Job& job, const uint8_t* image, size_t channel, int16_t* columns, ptrdiff_t* rows, uint8_t* room)
      : job_(job), image_(image), channel_(channel), columns_(columns), rows_(rows), outside_(room), room_(room + kPanel) {
    const Window& v = job.spec.window;
    std::memset(room, job.spec.x_zero_point, kPanel);
    for (size_t i = 0; i < slots(v); ++i) {
      rows_[i] = none;
      int16_t* at = columns_ + i * size();
      isa()->depthwise.interleave(outside_, 0, outside_, 0, v.pad_left, at);
      const size_t right = v.pad_left + job.image.w;
      isa()->depthwise.interleave(outside_, 0, outside_, 0, job.width - right, at + right * kPairs);
    }
  }

  static size_t slots(const Window& v) { return 2 * (row_pairs(v) - 1) * v.dilation_h + 1; }
  size_t size() const { return job_.width * kPairs; }

  // Starts at row `top` of the image, or moves down by `rows`.
  void start(ptrdiff_t top) { top_ = top; }
  void move(size_t rows) {
    top_ += static_cast<ptrdiff_t>(rows);
    for (first_ += rows; first_ >= count_;) first_ -= count_;
  }

  // Where the row `below` the top one begins, laid beside the one that is a dilation further; below < slots.
  size_t find(size_t below) {
    const ptrdiff_t r = top_ + static_cast<ptrdiff_t>(below);
    size_t slot = first_ + below;
    if (slot >= count_) slot -= count_;
    if (rows_[slot] != r) {
      lay(r, columns_ + slot * size() + job_.spec.window.pad_left * kPairs);
      rows_[slot] = r;
    }
    return slot * size();
  }

 private:
  void lay(ptrdiff_t r, int16_t* out) const {
    size_t a_step, b_step;
    const uint8_t* a = row(r, room_, &a_step);
    const ptrdiff_t below = r + static_cast<ptrdiff_t>(job_.spec.window.dilation_h);
    const uint8_t* b = row(below, room_ + job_.image.w * kPanel, &b_step);
    isa()->depthwise.interleave(a, a_step, b, b_step, job_.image.w, out);
  }

  // The panel's channels of a row, and the step between its columns. Fewer than 16 channels are copied to `room` first.
  const uint8_t* row(ptrdiff_t r, uint8_t* room, size_t* step) const {
    *step = 0;
    if (r < 0 || r >= static_cast<ptrdiff_t>(job_.image.h)) return outside_;
    const size_t channels = job_.spec.outputs, count = channels - channel_ < kPanel ? channels - channel_ : kPanel;
    const uint8_t* from = image_ + static_cast<size_t>(r) * job_.image.w * channels + channel_;
    *step = channels;
    if (count == kPanel) return from;
    for (size_t x = 0; x < job_.image.w; ++x) {
      for (size_t ch = 0; ch < count; ++ch) room[x * kPanel + ch] = from[x * channels + ch];
    }
    *step = kPanel;
    return room;
  }

  const Job& job_;
  size_t count_ = slots(job_.spec.window), first_ = 0;
  ptrdiff_t top_ = 0;
  const uint8_t* image_;
  size_t channel_;
  int16_t* columns_;
  ptrdiff_t* rows_;
  const uint8_t* outside_;
  uint8_t* room_;
};

bool run_task(const Job& job, size_t task) {
  const Window& v = job.spec.window;
  const size_t pairs = pairs_of(v), slots = Laid::slots(v), channels = job.spec.outputs;
  const size_t image = task / job.row_blocks / job.panel_blocks;
  int16_t* columns = scratch.columns.array<int16_t>(slots * job.width * kPairs);
  size_t* offsets = scratch.offsets.array<size_t>(pairs + slots);
  int32_t* acc = scratch.acc.array<int32_t>(job.out_w * kPanel);
  uint8_t* room = scratch.rows.array<uint8_t>(2 * job.image.w * kPanel + kPanel);
  if (!columns || !offsets || !acc || !room) return false;
  const uint8_t* x = job.x + image * job.image.h * job.image.w * channels;
  const Epilogue epilogue = {&job.stages, job.y, job.r, job.q, channels};
  const size_t part = task / job.panel_blocks % job.row_blocks, panel_part = task % job.panel_blocks;
  // Even rows, which direct windows take two by two.
  const size_t first = job.out_h * part / job.row_blocks / 2 * 2;
  const size_t last = part + 1 < job.row_blocks ? job.out_h * (part + 1) / job.row_blocks / 2 * 2 : job.out_h;
  const size_t panels = (channels + kPanel - 1) / kPanel;
  const auto panel = [&](size_t i) {  // where parts begin: panels that direct windows take together are in one
    return i < job.panel_blocks ? panels * i / job.panel_blocks / kDirectPanels * kDirectPanels : panels;
  };
  const DirectPart direct = {job.image, x, epilogue, job.out_w, first, last, image * job.out_h * job.out_w};
  for (size_t channel = panel(panel_part) * kPanel, next; channel < panel(panel_part + 1) * kPanel; channel = next) {
    if (const size_t taken = job.direct.channels(channel)) {
      if (!job.direct.run(job.spec, direct, channel)) return false;
      next = channel + taken;
      continue;
    }
    next = channel + kPanel;
    Laid laid(job, x, channel, columns, reinterpret_cast<ptrdiff_t*>(offsets + pairs), room);
    const int16_t* w = job.weights + channel / kPanel * pairs * kPairs;
    const size_t count = channels - channel < kPanel ? channels - channel : kPanel;
    const Stages here = from_column(job.stages, channel);
    const bool bytes = is_plain(here, count);
    laid.start(static_cast<ptrdiff_t>(first * v.stride_h) - static_cast<ptrdiff_t>(v.pad_top));
    for (size_t oy = first; oy < last; ++oy, laid.move(v.stride_h)) {
      for (size_t i = 0; i < row_pairs(v); ++i) {
        const size_t at = laid.find(2 * i * v.dilation_h);
        for (size_t kx = 0; kx < v.w; ++kx) offsets[i * v.w + kx] = at + kx * v.dilation_w * kPairs;
      }
      const size_t row = (image * job.out_h + oy) * job.out_w;
      if (bytes && count == kPanel) {
        uint8_t* y = static_cast<uint8_t*>(job.y) + row * channels + channel;
        isa()->depthwise.multiply_to_bytes(columns, offsets, pairs, v.stride_w * kPairs, job.out_w, w, here, y, channels);
        continue;
      }
      isa()->depthwise.multiply(columns, offsets, pairs, v.stride_w * kPairs, job.out_w, w, here.bias, acc, kPanel);
      isa()->dense.finish(epilogue, acc, kPanel, job.out_w, row, channel, count);
    }
  }
  return true;
}

void work(Job& job, Queue& queue) {
  for (size_t task; queue.take(&task);) {
    if (!run_task(job, task)) job.failed = true;
  }
}

}  // namespace

const char* Depthwise::prepare(const ConvSpec& spec, const ColumnInputs& columns) {
  spec_ = spec;
  const Weights w = {spec.bytes(), spec.window.h * spec.window.w, spec.outputs};
  ColumnInputs one_group = columns;
  one_group.groups = 1;
  if (const char* error = columns_.prepare(one_group, Held::raw, sums, &w)) return error;
  if (!direct_.prepare(spec_, columns_.of_group({}, 0).bias)) return "out of memory";
  bool rest = false;
  for (size_t channel = 0; channel < spec_.outputs; channel += kPanel) rest = rest || !direct_.channels(channel);
  if (!rest) return nullptr;
  const Window& v = spec_.window;
  const size_t pairs = pairs_of(v);
  int16_t* out = weights_.array<int16_t>(columns_.panels() * pairs * kPairs);
  if (!out) return "out of memory";
  for (size_t tap = 0; tap < w.taps; ++tap) {
    const size_t ky = tap / v.w, pair = ky / 2 * v.w + tap % v.w;
    for (size_t ch = 0; ch < w.channels; ++ch) {
      out[(ch / kPanel * pairs + pair) * kPairs + ch % kPanel * 2 + ky % 2] = w.w[tap * w.channels + ch];
    }
  }
  return nullptr;
}

const char* Depthwise::run(const Stages& stages, const Image& image, const uint8_t* x, void* y, const void* r, void* q,
                           const Parallel& parallel) const {
  const Window& v = spec_.window;
  const size_t out_h = positions(image.h, v.h, v.stride_h, v.pad_top, v.pad_bottom, v.dilation_h);
  const size_t out_w = positions(image.w, v.w, v.stride_w, v.pad_left, v.pad_right, v.dilation_w);
  if (!image.count || !out_h || !out_w || !spec_.outputs) return nullptr;
  const Stages prepared = columns_.of_group(stages, 0);
  // Parts of an image: few enough rows for the cache, and panels for every thread.
  const size_t wanted = parallel.threads > 1 ? static_cast<size_t>(parallel.threads) * 2 : 1;
  const size_t by_bytes = image.h * image.w * spec_.outputs / kInputBytes + 1, most = (out_h + kLeastRows - 1) / kLeastRows;
  const size_t row_blocks = by_bytes < most ? by_bytes : most, have = image.count * row_blocks;
  const size_t parts = (wanted + have - 1) / have, panels = columns_.panels();
  const size_t reach = (out_w - 1) * v.stride_w + (v.w - 1) * v.dilation_w + 1, least = v.pad_left + image.w;
  Job job = {spec_,
             prepared,
             image,
             x,
             static_cast<const int16_t*>(weights_.data()),
             direct_,
             y,
             q,
             r,
             out_h,
             out_w,
             row_blocks,
             parts < panels ? parts : panels,
             reach > least ? reach : least};
  run_queue(parallel, have * job.panel_blocks, work, &job);
  return job.failed ? "out of memory" : nullptr;
}

}  // namespace mulshift
