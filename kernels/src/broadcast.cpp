#include "broadcast.h"

#include "parts.h"

namespace mulshift {
namespace {

constexpr size_t kPiece = 16384;  // elements that are worth a task
constexpr size_t kTasksAThread = 4;

// Strides of an operand along the axes of the result, aligned at the last axis.
void strides_of(const Shape& shape, const Shape& result, size_t* stride) {
  size_t step = 1;
  for (size_t i = 0; i < result.rank; ++i) {
    const size_t axis = result.rank - 1 - i;
    const bool there = i < shape.rank && shape.dims[shape.rank - 1 - i] != 1;
    stride[axis] = there ? step : 0;
    if (there) step *= shape.size(shape.rank - 1 - i);
  }
}

bool result_of(const Shape* shapes, size_t operands, Shape* result) {
  result->rank = 0;
  for (size_t o = 0; o < operands; ++o) {
    if (shapes[o].rank > result->rank) result->rank = shapes[o].rank;
  }
  for (size_t i = 0; i < result->rank; ++i) {
    int64_t& dim = result->dims[result->rank - 1 - i];
    dim = 1;
    for (size_t o = 0; o < operands; ++o) {
      if (i >= shapes[o].rank) continue;
      const int64_t own = shapes[o].dims[shapes[o].rank - 1 - i];
      if (own == 1 || own == dim) continue;
      if (dim != 1) return false;
      dim = own;
    }
  }
  return true;
}

// Whether axis `outer`, then `inner`, is one long axis for every operand.
bool continues(const Loops& loops, size_t outer, size_t inner) {
  for (size_t o = 0; o < loops.operands; ++o) {
    if (loops.stride[o][outer] != loops.stride[o][inner] * loops.size[inner]) return false;
  }
  return true;
}

struct Job {
  const Loops* loops;
  const Elements* elements;
  void (*task)(const void* context, const Rows& rows);
  const void* context;
};

// Elements [first, last) along the innermost axis of rows [first_row, last_row), all below one index of the outer axes.
void run(const Job& job, size_t first_row, size_t rows, size_t first, size_t n) {
  const Loops& loops = *job.loops;
  const size_t inner = loops.axes - 1;
  Rows made{rows, n, {}, {}, {}, nullptr};
  for (size_t o = 0; o < loops.operands; ++o) {
    size_t at = loops.stride[o][inner] * first, rest = first_row;
    for (size_t axis = inner; axis-- > 0; rest /= loops.size[axis])
      at += rest % loops.size[axis] * loops.stride[o][axis];
    made.data[o] = static_cast<const char*>(job.elements->data[o]) + at * size_of(job.elements->types[o]);
    made.row_stride[o] = inner ? loops.stride[o][inner - 1] : 0;
    made.varies[o] = loops.stride[o][inner] != 0;
  }
  const size_t at = first_row * loops.size[inner] + first;
  made.y = static_cast<char*>(job.elements->y) + at * size_of(job.elements->y_type);
  job.task(job.context, made);
}

void run_rows(const void* data, size_t first, size_t last) {
  const Job& job = *static_cast<const Job*>(data);
  const size_t inner = job.loops->axes - 1, period = inner ? job.loops->size[inner - 1] : 1;
  while (first < last) {
    const size_t left = period - first % period, rows = left < last - first ? left : last - first;
    run(job, first, rows, 0, job.loops->size[inner]);
    first += rows;
  }
}

// Long rows: the range is of elements.
void run_elements(const void* data, size_t first, size_t last) {
  const Job& job = *static_cast<const Job*>(data);
  const size_t n = job.loops->size[job.loops->axes - 1];
  while (first < last) {
    const size_t left = n - first % n, count = left < last - first ? left : last - first;
    run(job, first / n, 1, first % n, count);
    first += count;
  }
}

struct Ranges {
  void (*task)(const void* context, size_t first, size_t last);
  const void* context;
  size_t count, piece;
};

void run_range(void* data, size_t i) {
  const Ranges& ranges = *static_cast<const Ranges*>(data);
  const size_t first = i * ranges.piece, end = first + ranges.piece;
  ranges.task(ranges.context, first, end < ranges.count ? end : ranges.count);
}

}  // namespace

bool make_loops(const Shape* shapes, size_t operands, Shape* result, Loops* loops) {
  if (!result_of(shapes, operands, result)) return false;
  Loops full;
  full.operands = operands;
  size_t strides[kMaxOperands][kMaxRank];
  for (size_t o = 0; o < operands; ++o) strides_of(shapes[o], *result, strides[o]);
  for (size_t axis = 0; axis < result->rank; ++axis) {
    if (result->dims[axis] == 1) continue;
    full.size[full.axes] = result->size(axis);
    for (size_t o = 0; o < operands; ++o) full.stride[o][full.axes] = strides[o][axis];
    ++full.axes;
    if (full.axes < 2 || !continues(full, full.axes - 2, full.axes - 1)) continue;
    full.size[full.axes - 2] *= full.size[full.axes - 1];
    for (size_t o = 0; o < operands; ++o) full.stride[o][full.axes - 2] = full.stride[o][full.axes - 1];
    --full.axes;
  }
  if (full.axes == 0) {
    full.axes = 1;
    full.size[0] = 1;
    for (size_t o = 0; o < operands; ++o) full.stride[o][0] = 0;
  }
  *loops = full;
  return true;
}

void for_ranges(size_t count, size_t least, void (*task)(const void* context, size_t first, size_t last),
                const void* context, const Parallel& parallel) {
  const size_t threads = static_cast<size_t>(parallel.threads), most = kTasksAThread * threads;
  const size_t fit = least ? divide_up(count, least) : count, few = fit < most ? fit : most;
  const size_t tasks = few > threads ? divide_up(few, threads) * threads : few;  // as many for each thread
  if (tasks < 2) {
    if (count) task(context, 0, count);
    return;
  }
  const size_t piece = divide_up(count, tasks);
  Ranges ranges{task, context, count, piece};
  parallel.run(parallel.self, (count + piece - 1) / piece, run_range, &ranges);
}

void for_rows(const Loops& loops, const Elements& elements, void (*task)(const void* context, const Rows& rows),
              const void* context, const Parallel& parallel) {
  const Job job{&loops, &elements, task, context};
  const size_t n = loops.size[loops.axes - 1];
  size_t rows = 1;
  for (size_t axis = 0; axis + 1 < loops.axes; ++axis) rows *= loops.size[axis];
  if (n == 0 || rows == 0) return;
  if (n >= kPiece) return for_ranges(rows * n, kPiece, run_elements, &job, parallel);
  for_ranges(rows, kPiece / n, run_rows, &job, parallel);
}

}  // namespace mulshift
