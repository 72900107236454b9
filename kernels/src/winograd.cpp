#include "winograd.h"

#include <atomic>
#include <cstring>

#include "conv.h"
#include "epilogue.h"
#include "isa.h"
#include "queue.h"

namespace mulshift {

namespace {

constexpr size_t kInputBytes = 448 * 1024;  // of a block's transformed inputs: about the second-level cache
constexpr size_t kKeptBytes = 128 * 1024;   // of transformed weights: more are transformed in every call
constexpr size_t kFourBytes = 96 * 1024;    // of those of larger tiles, which are worth that much memory
constexpr size_t kLeastTiles = 24;          // of a block: each transforms all weights

size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }

// sum |w| of one column.
int64_t magnitude_of(const ConvSpec& spec, size_t n) {
  const int8_t* w = spec.bytes() + (n / kPanel * spec.k4() * kPanel + n % kPanel) * 4;
  int64_t sum = 0;
  for (size_t k = 0; k < spec.k4(); ++k, w += 4 * kPanel) {
    for (size_t i = 0; i < 4; ++i) sum += w[i] < 0 ? -w[i] : w[i];
  }
  return sum;
}

// Whether every result fits 32 bits.
bool is_proven(const ConvSpec& spec, const WinogradForm& form) {
  const int64_t z = spec.x_zero_point, most_x = z > 255 - z ? z : 255 - z;
  for (size_t n = 0; n < spec.outputs; ++n) {
    if (form.most * most_x * magnitude_of(spec, n) >= int64_t{1} << 31) return false;
  }
  return true;
}

struct Job {
  const ConvSpec& spec;
  const WinogradForm& form;
  const Columns& columns;
  const Stages& stages;
  const Image& image;
  const uint8_t* x;
  const int16_t* kept;  // or null
  void *y, *q;
  const void* r;
  size_t out_h, out_w, tiles_h, tiles_w, tiles;  // tiles: of all images
  size_t at_once, panel_blocks;                  // a task takes so many tiles, and one part of the panels
  std::atomic<bool> failed{false};
};

struct Scratch {
  Buffer patch, input, weights, sums, acc;
};
thread_local Scratch scratch;

size_t weights_step_of(size_t channels) { return channels * kPanel + 32; }

size_t weights_bytes_of(const ConvSpec& spec, const WinogradForm& form) {
  return divide_up(spec.outputs, kPanel) * form.products() * weights_step_of(spec.channels) * sizeof(int16_t);
}

void transform_panel(const ConvSpec& spec, const WinogradForm& form, size_t panel, int16_t* out) {
  const int8_t* packed = spec.bytes() + panel * spec.k4() * kPanel * 4;
  form.weights(packed, spec.channels * kPanel, spec.channels, out, weights_step_of(spec.channels));
}

// `n` pixels from x on, of a row of the image or, where `row` is null, outside.
void copy_pixels(const Job& job, const uint8_t* row, ptrdiff_t x, ptrdiff_t n, uint8_t* out) {
  const ptrdiff_t w = static_cast<ptrdiff_t>(job.image.w), channels = static_cast<ptrdiff_t>(job.spec.channels);
  const auto inside = [&](ptrdiff_t at) { return at < 0 ? 0 : at < w ? at : w; };
  const ptrdiff_t first = row ? inside(x) : 0, last = row ? inside(x + n) : 0;
  const ptrdiff_t before = first < last ? first - x : n, after = first < last ? x + n - last : 0;
  const auto put_outside = [&](ptrdiff_t at, ptrdiff_t count) {
    if (count) std::memset(out + at * channels, job.spec.x_zero_point, static_cast<size_t>(count * channels));
  };
  put_outside(0, before);
  if (first < last) std::memcpy(out + before * channels, row + first * channels, static_cast<size_t>((last - first) * channels));
  put_outside(n - after, after);
}

// Transformed inputs of tiles [first, last), which lie in one row of tiles. False if there is no memory.
bool load_run(const Job& job, size_t first, size_t last, int16_t* out, size_t step) {
  const size_t tx = first % job.tiles_w, ty = first / job.tiles_w % job.tiles_h, image = first / job.tiles_w / job.tiles_h;
  const size_t channels = job.spec.channels, outputs = job.form.outputs, side = job.form.side();
  const ptrdiff_t y0 = static_cast<ptrdiff_t>(outputs * ty) - static_cast<ptrdiff_t>(job.spec.window.pad_top);
  const ptrdiff_t x0 = static_cast<ptrdiff_t>(outputs * tx) - static_cast<ptrdiff_t>(job.spec.window.pad_left);
  const ptrdiff_t h = static_cast<ptrdiff_t>(job.image.h), w = static_cast<ptrdiff_t>(job.image.w);
  const ptrdiff_t width = static_cast<ptrdiff_t>(outputs * (last - first) + 2), height = static_cast<ptrdiff_t>(side);
  const uint8_t* const whole = job.x + image * job.image.h * job.image.w * channels;
  const auto row_at = [&](ptrdiff_t y) { return whole + static_cast<size_t>(y * w) * channels; };
  const uint8_t* from = nullptr;
  size_t row = job.image.w * channels;
  if (y0 >= 0 && x0 >= 0 && y0 + height <= h && x0 + width <= w) {
    from = row_at(y0) + static_cast<size_t>(x0) * channels;
  } else {
    row = static_cast<size_t>(width) * channels;
    uint8_t* patch = scratch.patch.array<uint8_t>(side * row);
    if (!patch) return false;
    for (ptrdiff_t y = 0; y < height; ++y) {
      const bool inside = y0 + y >= 0 && y0 + y < h;
      copy_pixels(job, inside ? row_at(y0 + y) : nullptr, x0, width, patch + static_cast<size_t>(y) * row);
    }
    from = patch;
  }
  for (; first < last; ++first, from += outputs * channels, out += channels) {
    job.form.input(from, row, channels, job.spec.x_zero_point, out, step);
  }
  return true;
}

// One panel of outputs of tiles [first, last), which lie in one row of tiles, from sums that start at tile `base`.
void store_run(const Job& job, const Stages& stages, size_t panel, size_t first, size_t last, size_t base,
               const int32_t* sums, size_t step, int32_t* acc) {
  const size_t tx = first % job.tiles_w, row = first / job.tiles_w, ty = row % job.tiles_h, image = row / job.tiles_h;
  const size_t outputs = job.form.outputs, length = outputs * (last - first), column = panel * kPanel;
  for (size_t t = first; t < last; ++t) {
    int32_t* const at = acc + outputs * (t - first) * kPanel;
    job.form.output(sums + (t - base) * kPanel, step, stages.bias + column, at, length * kPanel);
  }
  const Epilogue epilogue = {&stages, job.y, job.r, job.q, job.spec.outputs};
  const size_t left = job.spec.outputs - column, columns = left < kPanel ? left : kPanel;
  const size_t x0 = outputs * tx, count = job.out_w - x0 < length ? job.out_w - x0 : length;
  for (size_t i = 0; i < outputs && outputs * ty + i < job.out_h; ++i) {
    const size_t at = (image * job.out_h + outputs * ty + i) * job.out_w + x0;
    isa()->dense.finish(epilogue, acc + i * length * kPanel, kPanel, count, at, column, columns);
  }
}

// Tasks of the same block of tiles follow each other; `prepared` is the block whose transformed inputs the scratch holds.
bool run_task(const Job& job, size_t task, size_t* prepared) {
  const size_t block = task / job.panel_blocks, part = task % job.panel_blocks, panels = job.columns.panels();
  const size_t first = block * job.at_once, last = first + job.at_once < job.tiles ? first + job.at_once : job.tiles;
  // The products lie a cache line more than their size apart: at a power of two they would share cache sets.
  const size_t count = last - first, channels = job.spec.channels, step = count * channels + 32;
  const size_t weights_step = weights_step_of(channels), sums_step = count * kPanel + 16;
  const size_t products = job.form.products();
  int16_t* input = scratch.input.array<int16_t>(products * (job.at_once * channels + 32));
  int16_t* weights = scratch.weights.array<int16_t>(job.kept ? 1 : products * weights_step);
  int32_t* sums = scratch.sums.array<int32_t>(products * (job.at_once * kPanel + 16));
  int32_t* acc = scratch.acc.array<int32_t>(job.form.outputs * job.form.outputs * job.at_once * kPanel);
  if (!input || !weights || !sums || !acc) return false;
  // run(first, last) for the tiles of each row.
  const auto each_run = [&](const auto& run) {
    bool done = true;
    for (size_t t = first; t < last && done;) {
      const size_t row_end = (t / job.tiles_w + 1) * job.tiles_w, to = row_end < last ? row_end : last;
      done = run(t, to);
      t = to;
    }
    return done;
  };
  if (*prepared != block &&
      !each_run([&](size_t t, size_t to) { return load_run(job, t, to, input + (t - first) * channels, step); })) {
    return false;
  }
  *prepared = block;
  const Stages stages = job.columns.of_group(job.stages, 0);
  const size_t begin = panels * part / job.panel_blocks, end = panels * (part + 1) / job.panel_blocks;
  for (size_t panel = begin; panel < end; ++panel) {
    const int16_t* u = job.kept ? job.kept + panel * products * weights_step : weights;
    if (!job.kept) transform_panel(job.spec, job.form, panel, weights);
    isa()->dense.winograd->multiply({input, u, sums, step, weights_step, sums_step, products, count, channels});
    each_run([&](size_t t, size_t to) {
      store_run(job, stages, panel, t, to, first, sums, sums_step, acc);
      return true;
    });
  }
  return true;
}

void work(Job& job, Queue& queue) {
  size_t prepared = ~size_t{0};
  for (size_t task; queue.take(&task);) {
    if (!run_task(job, task, &prepared)) job.failed = true;
  }
}

}  // namespace

bool Winograd::fits(const ConvSpec& spec) {
  const Window& v = spec.window;
  return isa()->dense.winograd && v.h == 3 && v.w == 3 && v.stride_h * v.stride_w * v.dilation_h * v.dilation_w == 1 &&
         spec.groups == 1 && spec.channels % 16 == 0 && spec.channels > 0;
}

bool Winograd::prepare(const ConvSpec& spec) {
  const WinogradKernels& kernels = *isa()->dense.winograd;
  const bool is_four = weights_bytes_of(spec, kernels.four) <= kFourBytes && is_proven(spec, kernels.four);
  if (!is_four && !is_proven(spec, kernels.two)) return false;
  form_ = is_four ? &kernels.four : &kernels.two;
  const size_t bytes = weights_bytes_of(spec, *form_), panels = divide_up(spec.outputs, kPanel);
  if (bytes > kKeptBytes) return true;
  int16_t* kept = static_cast<int16_t*>(kept_.reserve(bytes));
  for (size_t panel = 0; kept && panel < panels; ++panel) {
    transform_panel(spec, *form_, panel, kept + panel * form_->products() * weights_step_of(spec.channels));
  }
  return true;
}

const char* Winograd::run(const ConvSpec& spec, const Columns& columns, const Stages& stages, const Image& image,
                          const uint8_t* x, void* y, const void* r, void* q, const Parallel& parallel) const {
  const Window& v = spec.window;
  const size_t out_h = positions(image.h, 3, 1, v.pad_top, v.pad_bottom, 1);
  const size_t out_w = positions(image.w, 3, 1, v.pad_left, v.pad_right, 1);
  const WinogradForm& form = *form_;
  const size_t tiles_h = divide_up(out_h, form.outputs), tiles_w = divide_up(out_w, form.outputs);
  const size_t tiles = image.count * tiles_h * tiles_w;
  if (!tiles) return nullptr;
  const size_t fit = kInputBytes / (form.products() * spec.channels * sizeof(int16_t));
  const size_t most = fit < kLeastTiles ? kLeastTiles : fit, blocks = divide_up(tiles, most);
  const size_t wanted = parallel.threads > 1 ? static_cast<size_t>(parallel.threads) * 2 : 1;
  // Kept weights: more blocks of tiles. Others are transformed in each block: fewer blocks, each cut by its panels.
  const size_t by_threads = kept_.data() ? divide_up(tiles, kLeastTiles) : 1;
  const size_t finer = wanted < by_threads ? wanted : by_threads;
  const size_t at_once = divide_up(tiles, blocks > finer ? blocks : finer), made = divide_up(tiles, at_once);
  const size_t parts = divide_up(wanted, made), panels = columns.panels();
  Job job = {spec, form, columns, stages, image, x,
             static_cast<const int16_t*>(kept_.data()), y, q, r, out_h, out_w,
             tiles_h, tiles_w, tiles, at_once, parts < panels ? parts : panels};
  run_queue(parallel, made * job.panel_blocks, work, &job);
  return job.failed ? "out of memory" : nullptr;
}

}  // namespace mulshift
