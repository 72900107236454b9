#include "winograd.h"

#include <atomic>

#include "conv.h"
#include "epilogue.h"
#include "isa.h"

namespace mulshift {

namespace {

constexpr size_t kProducts = 16;            // of one tile, channel and column
constexpr size_t kBlockBytes = 160 * 1024;  // of a block's transformed inputs and sums: within the second-level cache
constexpr size_t kLeastTiles = 24;          // of a block: each reads all weights

size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }

int weight(const ConvSpec& spec, size_t tap, size_t channel, size_t n) {
  const size_t k = tap * spec.channels + channel;
  return spec.packed[((n / kPanel * spec.k4() + k / 4) * kPanel + n % kPanel) * 4 + k % 4];
}

// 2G g (2G)' of one channel and column.
void transform(const ConvSpec& spec, size_t channel, size_t n, int* u) {
  int rows[4][3];
  for (size_t x = 0; x < 3; ++x) {
    const int g0 = weight(spec, x, channel, n), g1 = weight(spec, 3 + x, channel, n), g2 = weight(spec, 6 + x, channel, n);
    rows[0][x] = 2 * g0;
    rows[1][x] = g0 + g1 + g2;
    rows[2][x] = g0 - g1 + g2;
    rows[3][x] = 2 * g2;
  }
  for (size_t y = 0; y < 4; ++y) {
    const int* g = rows[y];
    u[4 * y] = 2 * g[0];
    u[4 * y + 1] = g[0] + g[1] + g[2];
    u[4 * y + 2] = g[0] - g[1] + g[2];
    u[4 * y + 3] = 2 * g[2];
  }
}

// The largest sum that may meet in one output of a column: every product at its greatest.
bool is_proven(const int64_t (&magnitudes)[kProducts]) {
  int64_t sum = 0;
  for (const int64_t m : magnitudes) sum += m * 1020;
  return sum < int64_t{1} << 31;
}

struct Job {
  const ConvSpec& spec;
  const Columns& columns;
  const Stages& stages;
  const Image& image;
  const uint8_t *x, *outside;
  const int16_t* weights;
  void *y, *q;
  const void* r;
  size_t out_h, out_w, tiles_h, tiles_w, tiles, at_once;  // tiles of all images; a task takes `at_once` of them
  std::atomic<bool> failed{false};
};

struct Scratch {
  Buffer input, sums, acc;
};
thread_local Scratch scratch;

void load_tile(const Job& job, size_t tile, int16_t* out, size_t step) {
  const size_t tx = tile % job.tiles_w, ty = tile / job.tiles_w % job.tiles_h, image = tile / job.tiles_w / job.tiles_h;
  const size_t channels = job.spec.channels;
  const uint8_t* pixels[kProducts];
  for (size_t i = 0; i < kProducts; ++i) {
    const ptrdiff_t iy = static_cast<ptrdiff_t>(2 * ty + i / 4) - static_cast<ptrdiff_t>(job.spec.window.pad_top);
    const ptrdiff_t ix = static_cast<ptrdiff_t>(2 * tx + i % 4) - static_cast<ptrdiff_t>(job.spec.window.pad_left);
    const bool inside = iy >= 0 && ix >= 0 && iy < static_cast<ptrdiff_t>(job.image.h) &&
                        ix < static_cast<ptrdiff_t>(job.image.w);
    const size_t row = image * job.image.h + static_cast<size_t>(inside ? iy : 0);
    pixels[i] = inside ? job.x + (row * job.image.w + static_cast<size_t>(ix)) * channels : job.outside;
  }
  isa()->dense.winograd->input(pixels, channels, job.spec.x_zero_point, out, step);
}

// The outputs of tiles [first, last), which lie in one row of tiles, from sums that start at tile `base`.
void store_run(const Job& job, const Stages& stages, size_t first, size_t last, size_t base, const int32_t* sums,
               size_t step, int32_t* acc, size_t width) {
  const size_t tx = first % job.tiles_w, row = first / job.tiles_w, ty = row % job.tiles_h, image = row / job.tiles_h;
  const size_t length = 2 * (last - first);
  for (size_t t = first; t < last; ++t) {
    int32_t* const at = acc + 2 * (t - first) * width;
    int32_t* const four[4] = {at, at + width, at + length * width, at + (length + 1) * width};
    isa()->dense.winograd->output(sums + (t - base) * width, step, width, stages.bias, four);
  }
  const Epilogue epilogue = {&stages, job.y, job.r, job.q, job.spec.outputs};
  const size_t x0 = 2 * tx, count = job.out_w - x0 < length ? job.out_w - x0 : length;
  for (size_t i = 0; i < 2 && 2 * ty + i < job.out_h; ++i) {
    const size_t at = (image * job.out_h + 2 * ty + i) * job.out_w + x0;
    isa()->dense.finish(epilogue, acc + i * length * width, width, count, at, 0, job.spec.outputs);
  }
}

void run_task(void* data, size_t task) {
  Job& job = *static_cast<Job*>(data);
  const size_t first = task * job.at_once, channels = job.spec.channels, panels = job.columns.panels();
  const size_t last = first + job.at_once < job.tiles ? first + job.at_once : job.tiles;
  const size_t count = last - first, width = panels * kPanel, step = count * channels, sums_step = count * width;
  int16_t* input = scratch.input.array<int16_t>(kProducts * job.at_once * channels);
  int32_t* sums = scratch.sums.array<int32_t>(kProducts * job.at_once * width);
  int32_t* acc = scratch.acc.array<int32_t>(4 * job.at_once * width + width);
  if (!input || !sums || !acc) {
    job.failed = true;
    return;
  }
  int32_t* zero = acc + 4 * job.at_once * width;
  std::memset(zero, 0, width * sizeof(int32_t));
  for (size_t t = first; t < last; ++t) load_tile(job, t, input + (t - first) * channels, step);
  Product product = {};
  product.a_stride = channels * sizeof(int16_t);
  product.b_stride = channels * kPanel * sizeof(int16_t);
  product.k4 = channels / 4;
  product.columns = width;
  product.rows = count;
  product.init = zero;
  for (size_t i = 0; i < kProducts; ++i) {
    product.a = input + i * step;
    product.b = job.weights + i * panels * channels * kPanel;
    isa()->dense.any.multiply(product, sums + i * sums_step, width);
  }
  const Stages stages = job.columns.of_group(job.stages, 0);
  for (size_t t = first; t < last;) {
    const size_t row_end = (t / job.tiles_w + 1) * job.tiles_w, end = row_end < last ? row_end : last;
    store_run(job, stages, t, end, first, sums, sums_step, acc, width);
    t = end;
  }
}

}  // namespace

bool Winograd::fits(const ConvSpec& spec) {
  const Window& v = spec.window;
  return isa()->dense.winograd && v.h == 3 && v.w == 3 && v.stride_h * v.stride_w * v.dilation_h * v.dilation_w == 1 &&
         spec.groups == 1 && spec.channels % 16 == 0 && spec.channels > 0;
}

bool Winograd::prepare(const ConvSpec& spec) {
  const size_t panels = divide_up(spec.outputs, kPanel), channels = spec.channels;
  const auto magnitudes_fit = [&](size_t n) {
    int64_t magnitudes[kProducts] = {};
    for (size_t ch = 0; ch < channels; ++ch) {
      int u[kProducts];
      transform(spec, ch, n, u);
      for (size_t i = 0; i < kProducts; ++i) magnitudes[i] += u[i] < 0 ? -u[i] : u[i];
    }
    return is_proven(magnitudes);
  };
  for (size_t n = 0; n < spec.outputs; ++n) {
    if (!magnitudes_fit(n)) return false;
  }
  uint8_t* outside = outside_.array<uint8_t>(channels);
  int16_t* out = weights_.array<int16_t>(kProducts * panels * channels * kPanel);
  if (!out || !outside) return false;
  std::memset(outside, spec.x_zero_point, channels);
  for (size_t n = 0; n < spec.outputs; ++n) {
    for (size_t ch = 0; ch < channels; ++ch) {
      int u[kProducts];
      transform(spec, ch, n, u);
      for (size_t i = 0; i < kProducts; ++i) {
        out[(((i * panels + n / kPanel) * channels + ch) / 2 * kPanel + n % kPanel) * 2 + ch % 2] =
            static_cast<int16_t>(u[i]);
      }
    }
  }
  return true;
}

const char* Winograd::run(const ConvSpec& spec, const Columns& columns, const Stages& stages, const Image& image,
                          const uint8_t* x, void* y, const void* r, void* q, const Parallel& parallel) const {
  const Window& v = spec.window;
  const size_t out_h = positions(image.h, 3, 1, v.pad_top, v.pad_bottom, 1);
  const size_t out_w = positions(image.w, 3, 1, v.pad_left, v.pad_right, 1);
  const size_t tiles_h = divide_up(out_h, 2), tiles_w = divide_up(out_w, 2), tiles = image.count * tiles_h * tiles_w;
  if (!tiles) return nullptr;
  const size_t width = columns.panels() * kPanel;
  const size_t fit = kBlockBytes / (kProducts * (spec.channels * sizeof(int16_t) + width * sizeof(int32_t)));
  const size_t most = fit < kLeastTiles ? kLeastTiles : fit, fair = divide_up(tiles, static_cast<size_t>(parallel.threads) * 2);
  const size_t wanted = parallel.threads > 1 && fair < most ? fair : most;
  const size_t at_once = divide_up(tiles, divide_up(tiles, wanted));
  Job job = {spec, columns, stages, image, x, static_cast<const uint8_t*>(outside_.data()),
             static_cast<const int16_t*>(weights_.data()), y, q, r, out_h, out_w, tiles_h, tiles_w, tiles, at_once};
  parallel.run(parallel.self, divide_up(tiles, at_once), run_task, &job);
  return job.failed ? "out of memory" : nullptr;
}

}  // namespace mulshift
