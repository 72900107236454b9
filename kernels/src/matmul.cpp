#include "matmul.h"

#include <atomic>

#include "buffer.h"
#include "epilogue.h"
#include "isa.h"
#include "panels.h"
#include "parts.h"
#include "queue.h"
#include "ratios.h"
#include "reduce.h"

namespace mulshift {

namespace {

constexpr size_t kBlockBytes = 96 * 1024;  // of a block's rows, and of its sums

struct Scratch {
  Panels w;
  Buffer a, acc;
};
thread_local Scratch scratch;

struct Ratios {
  Buffer b, shift, ways;
};
thread_local Ratios ratios;  // of the calling thread's node

struct Job {
  const MatmulSpec& spec;
  const MatmulShape& shape;
  const uint8_t* x;
  const int8_t* w;
  void* y;
  const Dense& dense;
  const Stages& stages;
  size_t row_blocks;  // tasks = batches * row_blocks
  std::atomic<bool> failed{false};

  // Which matrix of an operand a batch reads.
  size_t matrix(size_t batch, size_t operand) const {
    const Loops& loops = shape.loops;
    size_t at = 0;
    for (size_t axis = loops.axes; axis-- > 0; batch /= loops.size[axis]) {
      at += batch % loops.size[axis] * loops.stride[operand][axis];
    }
    return at;
  }
};

// acc less zw * sum (x - zx) of its row.
void take_off(const Job& job, const uint8_t* x, size_t rows, int32_t* acc, size_t width) {
  const int64_t k = static_cast<int64_t>(job.shape.k);
  for (size_t r = 0; r < rows; ++r, x += job.shape.k, acc += width) {
    const int64_t sum = isa()->reduce.row(x, Type::u8, job.shape.k) - k * job.spec.x_zero_point;
    const uint32_t less = static_cast<uint32_t>(sum * job.spec.w_zero_point);
    for (size_t i = 0; i < width; ++i) acc[i] = static_cast<int32_t>(static_cast<uint32_t>(acc[i]) - less);
  }
}

bool run_task(const Job& job, size_t task, size_t* packed) {
  const MatmulShape& s = job.shape;
  const Dense& dense = job.dense;
  const size_t batch = task / job.row_blocks, i = task % job.row_blocks, which = job.matrix(batch, 1);
  const size_t m0 = part(s.m, job.row_blocks, i), count = part(s.m, job.row_blocks, i + 1) - m0;
  if (!count) return true;
  Panels& w = scratch.w;
  if (*packed != which && !w.pack(dense, job.w + which * s.k * s.n, s.n, s.k, s.n)) return false;
  *packed = which;
  const size_t stride = 4 * w.k4() * dense.element, width = whole_panels(s.n);
  const size_t longest = stride > 4 * width ? stride : 4 * width, fit = kBlockBytes / (longest + 1) / dense.rows * dense.rows;
  const size_t most = fit < dense.rows ? dense.rows : fit < 16 * dense.rows ? fit : 16 * dense.rows;
  char* a = scratch.a.array<char>(most * stride + kRowSlack * dense.element);
  int32_t* acc = scratch.acc.array<int32_t>(most * width);
  const int32_t* bias = w.bias(dense, left_of(dense.held, job.spec.x_zero_point), w.k4(), s.n);
  if (!a || !acc || !bias) return false;
  const uint8_t *x = job.x + job.matrix(batch, 0) * s.m * s.k, *end = x + s.m * s.k;
  const Epilogue epilogue = {&job.stages, job.y, nullptr, nullptr, s.n};
  const size_t blocks = divide_up(count, most);
  for (size_t b = 0; b < blocks; ++b) {
    const size_t first = m0 + part(count, blocks, b), rows = m0 + part(count, blocks, b + 1) - first;
    const uint8_t* from = x + first * s.k;
    for (size_t r = 0; r < rows; ++r) {
      dense.load_row(from + r * s.k, s.k, end, job.spec.x_zero_point, a + r * stride);
    }
    w.multiply(dense, a, stride, rows, w.k4(), s.n, bias, acc);
    if (job.spec.w_zero_point) take_off(job, from, rows, acc, width);
    isa()->dense.finish(epilogue, acc, width, rows, batch * s.m + first, 0, s.n);
  }
  return true;
}

void work(Job& job, Queue& queue) {
  size_t packed = ~size_t{0};
  for (size_t task; queue.take(&task);) {
    if (!run_task(job, task, &packed)) job.failed = true;
  }
}

// One way for all columns, padded to whole panels; false if there is no memory.
bool make_stages(const MatmulSpec& spec, size_t n, int64_t bound, Stages* stages) {
  const size_t width = whole_panels(n);
  int32_t *b = ratios.b.array<int32_t>(width), *shift = ratios.shift.array<int32_t>(width);
  PanelWay* ways = ratios.ways.array<PanelWay>(width / kPanel);
  if (!b || !shift || !ways) return false;
  for (size_t i = 0; i < width; ++i) {
    const size_t from = spec.ratios == 1 ? 0 : i < n ? i : n - 1;
    b[i] = spec.b[from];
    shift[i] = spec.c[from];
  }
  const Ratio ratio = find_ratio_of_all(bound, b, shift, width);
  for (size_t i = 0; i < width / kPanel; ++i) ways[i] = {ratio.way, ratio.left};
  *stages = {nullptr, b, shift, ways, spec.out};
  return true;
}

}  // namespace

const char* matmul(const MatmulSpec& spec, const MatmulShape& shape, const uint8_t* x, const int8_t* w, void* y,
                   const Parallel& parallel) {
  const int64_t most = farthest(spec.x_zero_point, 0, 255) * farthest(spec.w_zero_point, -128, 127);
  if (shape.k > INT32_MAX || static_cast<int64_t>(shape.k) * most > INT32_MAX) return "its int32 accumulator may overflow";
  if (!shape.batches || !shape.m || !shape.n) return nullptr;
  Stages stages = {};
  if (!make_stages(spec, shape.n, static_cast<int64_t>(shape.k) * most, &stages)) return "out of memory";
  const Dense& dense = dense_of_call(isa()->dense, shape.m);
  Job job = {spec, shape, x, w, y, dense, stages, 1};
  if (parallel.threads > 1) {
    const size_t wanted = divide_up(2 * static_cast<size_t>(parallel.threads), shape.batches);
    const size_t finest = divide_up(shape.m, 4 * dense.rows);
    job.row_blocks = wanted < finest ? wanted : finest;
  }
  run_queue(parallel, shape.batches * job.row_blocks, work, &job);
  return job.failed ? "out of memory" : nullptr;
}

}  // namespace mulshift
