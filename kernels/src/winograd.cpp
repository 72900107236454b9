#include "winograd.h"

#include <atomic>
#include <cstring>

#include "conv.h"
#include "epilogue.h"
#include "isa.h"
#include "queue.h"

namespace mulshift {

namespace {

constexpr size_t kInputBytes = 512 * 1024;  // of a block's transformed inputs: about the second-level cache
constexpr size_t kKeptBytes = 96 * 1024;    // of transformed weights: more are transformed in every call
constexpr size_t kPart = 128;               // channels whose weights are transformed at a time
constexpr size_t kLeastTiles = 16;          // of a block: each transforms all weights
constexpr size_t kKeptTiles = 32;           // of a block at most where weights are kept: larger ones only take memory
constexpr int64_t kMostOutput = 1 << 25;

size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }

// The greatest |output| of a column: all x - x_zero_point at one end where w is above 0, at the other where it is below.
int64_t farthest(const ConvSpec& spec, size_t n) {
  const int8_t* w = spec.bytes() + (n / kPanel * spec.k4() * kPanel + n % kPanel) * 4;
  int64_t above = 0, below = 0;
  for (size_t k = 0; k < spec.k4(); ++k, w += 4 * kPanel) {
    for (size_t i = 0; i < 4; ++i) (w[i] > 0 ? above : below) += w[i];
  }
  const int64_t high = 255 - spec.x_zero_point, low = -spec.x_zero_point;
  const int64_t most = above * high + below * low, least = above * low + below * high;
  return most > -least ? most : -least;
}

struct Job {
  const ConvSpec& spec;
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

// Weights of a panel, of `count` channels from `first` on.
void transform_panel(const ConvSpec& spec, size_t panel, size_t first, size_t count, int16_t* out, size_t step) {
  const int8_t* packed = spec.bytes() + (panel * spec.k4() * 4 + first) * kPanel;
  isa()->dense.winograd->weights(packed, spec.channels * kPanel, count, out, step);
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
  const size_t channels = job.spec.channels, side = kSide;
  const ptrdiff_t y0 = static_cast<ptrdiff_t>(kOutputs * ty) - static_cast<ptrdiff_t>(job.spec.window.pad_top);
  const ptrdiff_t x0 = static_cast<ptrdiff_t>(kOutputs * tx) - static_cast<ptrdiff_t>(job.spec.window.pad_left);
  const ptrdiff_t h = static_cast<ptrdiff_t>(job.image.h), w = static_cast<ptrdiff_t>(job.image.w);
  const ptrdiff_t width = static_cast<ptrdiff_t>(kOutputs * (last - first) + 2), height = static_cast<ptrdiff_t>(side);
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
  for (; first < last; ++first, from += kOutputs * channels, out += channels) {
    isa()->dense.winograd->input(from, row, channels, job.spec.x_zero_point, out, step);
  }
  return true;
}

// One panel of outputs of tiles [first, last), which lie in one row of tiles, from sums that start at tile `base`.
void store_run(const Job& job, const Stages& stages, size_t panel, size_t first, size_t last, size_t base,
               const int32_t* sums, size_t step, int32_t* acc) {
  const size_t tx = first % job.tiles_w, row = first / job.tiles_w, ty = row % job.tiles_h, image = row / job.tiles_h;
  const size_t length = kOutputs * (last - first), column = panel * kPanel, line = length * kPanel;
  for (size_t t = first; t < last; ++t) {
    int32_t* const at = acc + kOutputs * (t - first) * kPanel;
    int32_t* const lines[kOutputs] = {at, at + line, at + 2 * line, at + 3 * line};
    isa()->dense.winograd->output(sums + (t - base) * kPanel, step, kPanel, stages.bias + column, lines);
  }
  const Epilogue epilogue = {&stages, job.y, job.r, job.q, job.spec.outputs};
  const size_t left = job.spec.outputs - column, columns = left < kPanel ? left : kPanel;
  const size_t x0 = kOutputs * tx, y0 = kOutputs * ty, count = job.out_w - x0 < length ? job.out_w - x0 : length;
  for (size_t i = 0; i < kOutputs && y0 + i < job.out_h; ++i) {
    const size_t at = (image * job.out_h + y0 + i) * job.out_w + x0;
    isa()->dense.finish(epilogue, acc + i * line, kPanel, count, at, column, columns);
  }
}

// Tasks of the same block of tiles follow each other; `prepared` is the block whose transformed inputs the scratch holds.
bool run_task(const Job& job, size_t task, size_t* prepared) {
  const size_t block = task / job.panel_blocks, part = task % job.panel_blocks, panels = job.columns.panels();
  const size_t first = block * job.at_once, last = first + job.at_once < job.tiles ? first + job.at_once : job.tiles;
  // The 36 products lie a cache line more than their size apart: at a power of two they would share cache sets.
  const size_t count = last - first, channels = job.spec.channels, step = count * channels + 32;
  const size_t part_channels = job.kept || channels < kPart ? channels : kPart;
  const size_t weights_step = weights_step_of(part_channels), sums_step = count * kPanel + 16;
  int16_t* input = scratch.input.array<int16_t>(kProducts * (job.at_once * channels + 32));
  int16_t* weights = scratch.weights.array<int16_t>(job.kept ? 1 : kProducts * weights_step);
  int32_t* sums = scratch.sums.array<int32_t>(kProducts * (job.at_once * kPanel + 16));
  int32_t* acc = scratch.acc.array<int32_t>(kOutputs * kOutputs * job.at_once * kPanel);
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
  WinogradProducts products = {input, weights, sums, step, weights_step, sums_step, channels, channels, count};
  const Stages stages = job.columns.of_group(job.stages, 0);
  const size_t begin = panels * part / job.panel_blocks, end = panels * (part + 1) / job.panel_blocks;
  for (size_t panel = begin; panel < end; ++panel) {
    for (size_t ch = 0; ch < channels; ch += part_channels) {
      const size_t now = channels - ch < part_channels ? channels - ch : part_channels;
      if (job.kept) {
        products.weights = job.kept + panel * kProducts * weights_step;
      } else {
        transform_panel(job.spec, panel, ch, now, weights, weights_step);
      }
      products.input = input + ch;
      products.channels = now;
      isa()->dense.winograd->multiply(products, ch == 0);
    }
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
  const size_t channels = spec.channels;
  for (size_t n = 0; n < spec.outputs; ++n) {
    if (farthest(spec, n) >= kMostOutput) return false;
  }
  is_ready_ = true;
  const size_t panels = divide_up(spec.outputs, kPanel), of_panel = kProducts * weights_step_of(channels);
  if (panels * of_panel * sizeof(int16_t) > kKeptBytes) return true;
  int16_t* kept = kept_.array<int16_t>(panels * of_panel);
  for (size_t panel = 0; kept && panel < panels; ++panel) {
    transform_panel(spec, panel, 0, channels, kept + panel * of_panel, weights_step_of(channels));
  }
  return true;
}

bool Winograd::pays(const Image& image, const Window& v) const {
  const size_t h = positions(image.h, 3, 1, v.pad_top, v.pad_bottom, 1), w = positions(image.w, 3, 1, v.pad_left, v.pad_right, 1);
  return is_ready_ && kProducts * divide_up(h, kOutputs) * divide_up(w, kOutputs) < 9 * h * w;
}

const char* Winograd::run(const ConvSpec& spec, const Columns& columns, const Stages& stages, const Image& image,
                          const uint8_t* x, void* y, const void* r, void* q, const Parallel& parallel) const {
  const Window& v = spec.window;
  const size_t out_h = positions(image.h, 3, 1, v.pad_top, v.pad_bottom, 1);
  const size_t out_w = positions(image.w, 3, 1, v.pad_left, v.pad_right, 1);
  const size_t tiles_h = divide_up(out_h, kOutputs), tiles_w = divide_up(out_w, kOutputs), tiles = image.count * tiles_h * tiles_w;
  if (!tiles) return nullptr;
  const size_t fit = kInputBytes / (kProducts * spec.channels * sizeof(int16_t));
  const size_t least = fit < kLeastTiles ? kLeastTiles : fit, most = kept_.data() && least > kKeptTiles ? kKeptTiles : least;
  const size_t blocks = divide_up(tiles, most);
  const size_t wanted = parallel.threads > 1 ? static_cast<size_t>(parallel.threads) * 2 : 1;
  // Kept weights: more blocks of tiles. Others are transformed in each block: fewer blocks, each cut by its panels.
  const size_t by_threads = kept_.data() ? divide_up(tiles, kLeastTiles) : 1;
  const size_t finer = wanted < by_threads ? wanted : by_threads;
  const size_t at_once = divide_up(tiles, blocks > finer ? blocks : finer), made = divide_up(tiles, at_once);
  const size_t parts = divide_up(wanted, made), panels = columns.panels();
  Job job = {spec, columns, stages, image, x,
             static_cast<const int16_t*>(kept_.data()), y, q, r, out_h, out_w,
             tiles_h, tiles_w, tiles, at_once, parts < panels ? parts : panels};
  run_queue(parallel, made * job.panel_blocks, work, &job);
  return job.failed ? "out of memory" : nullptr;
}

}  // namespace mulshift
