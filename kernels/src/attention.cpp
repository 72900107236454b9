#include "attention.h"

#include <atomic>
#include <cstring>

#include "buffer.h"
#include "isa.h"
#include "panels.h"
#include "parts.h"
#include "queue.h"

namespace mulshift {

namespace {

constexpr size_t kBlockBytes = 96 * 1024;  // of a block's scores
constexpr size_t kRows = 96;               // of a block
constexpr size_t kMaskedRows = 24;         // of a block whose rows end at other keys each

struct Scratch {
  Panels k, v;
  const int32_t* k_bias = nullptr;  // of every key
  Buffer a, scores, acc, totals, mask;
};
thread_local Scratch scratch;

// One call. The rows of a group's task are those of all heads that share its k and v: row r is of head r / M.
struct Job {
  const AttentionSpec& spec;
  const AttentionShape& shape;
  const uint8_t* q;
  const int8_t *k, *v;
  const Mask& mask;
  char* y;
  const Dense& dense;
  size_t shared, row_blocks;  // heads of a group; tasks = B * G * row_blocks
  int64_t most_v;
  std::atomic<bool> failed{false};
};

// Some rows of one group.
struct Block {
  size_t batch, group, first, rows;

  size_t head(const Job& job, size_t r) const { return group * job.shared + (first + r) / job.shape.rows; }
  size_t row(const Job& job, size_t r) const { return (first + r) % job.shape.rows; }
  // Which row of D or E elements of q and y it is.
  size_t place(const Job& job, size_t r) const {
    return (batch * job.shape.rows + row(job, r)) * job.shape.heads + head(job, r);
  }
  const uint8_t* mask(const Job& job, size_t r) const {
    const Mask& m = job.mask;
    return m.data ? m.data + batch * m.batch + head(job, r) * m.head + row(job, r) * m.row : nullptr;
  }
};

bool pack(const Job& job, size_t batch, size_t group) {
  const AttentionShape& s = job.shape;
  const size_t first = batch * s.keys * s.groups + group;
  if (!scratch.k.pack_transposed(job.dense, job.k + first * s.depth, s.groups * s.depth, s.depth, s.keys)) return false;
  scratch.k_bias = scratch.k.bias(job.dense, left_of(job.dense.held, job.spec.q_zero_point), scratch.k.k4(), s.keys);
  return scratch.k_bias && scratch.v.pack(job.dense, job.v + first * s.width, s.groups * s.width, s.keys, s.width);
}

// Keys up to the last one that a row of the block attends.
size_t keys_of(const Job& job, const Block& block) {
  const size_t keys = job.shape.keys;
  if (!job.mask.data) return keys;
  size_t used = 0;
  for (size_t r = 0; r < block.rows && used < keys; ++r) {
    const uint8_t* mask = block.mask(job, r);
    if (!job.mask.key) {
      if (mask[0]) used = keys;
      continue;
    }
    size_t last = keys;
    uint64_t eight = 0;
    while (last >= used + 8 && (std::memcpy(&eight, mask + last - 8, 8), !eight)) last -= 8;
    while (last > used && !mask[last - 1]) --last;
    used = last;
  }
  return used;
}

// A row's mask with a byte for each key.
const uint8_t* mask_of(const Job& job, const Block& block, size_t r, size_t keys) {
  const uint8_t* mask = block.mask(job, r);
  if (!mask || job.mask.key) return mask;
  uint8_t* room = static_cast<uint8_t*>(scratch.mask.data());
  std::memset(room, mask[0] != 0, keys);
  return room;
}

void load_rows(const Job& job, const Block& block, char* a, size_t stride) {
  const AttentionShape& s = job.shape;
  const uint8_t* end = job.q + s.batch * s.rows * s.heads * s.depth;
  for (size_t r = 0; r < block.rows; ++r) {
    job.dense.load_row(job.q + block.place(job, r) * s.depth, s.depth, end, job.spec.q_zero_point, a + r * stride);
  }
}

// Rows of the same head lie at equal distances.
void store_rows(const Job& job, const Block& block, const int32_t* acc, size_t acc_stride, const int32_t* totals) {
  const AttentionSpec& spec = job.spec;
  const AttentionShape& s = job.shape;
  const Division division = {spec.v_zero_point, spec.multiplier, spec.shift, job.most_v, spec.out};
  const size_t bytes = s.width * size_of(spec.out.type);
  for (size_t r = 0, count; r < block.rows; r += count) {
    const size_t left = s.rows - block.row(job, r);
    count = block.rows - r < left ? block.rows - r : left;
    char* y = job.y + block.place(job, r) * bytes;
    isa()->softmax.divide(division, acc + r * acc_stride, acc_stride, totals + r, count, s.width, y, s.heads * bytes);
  }
}

bool run_block(const Job& job, const Block& block) {
  const AttentionShape& s = job.shape;
  const Dense& dense = job.dense;
  const size_t keys = keys_of(job, block), wide = whole_panels(keys), k4 = scratch.k.k4();
  const size_t beyond = keys < s.keys ? dense.beyond : 0, width = whole_panels(s.width);
  const size_t q_stride = 4 * k4 * dense.element, e_stride = (wide + beyond) * dense.element;
  const size_t stride = q_stride > e_stride ? q_stride : e_stride;
  char* a = scratch.a.array<char>(block.rows * stride + kRowSlack * dense.element);
  int32_t* scores = scratch.scores.array<int32_t>(block.rows * wide + 1);
  int32_t* acc = scratch.acc.array<int32_t>(block.rows * width + 1);
  int32_t* totals = scratch.totals.array<int32_t>(block.rows);
  if (!a || !scores || !acc || !totals || !scratch.mask.reserve(s.keys)) return false;

  if (keys) {
    load_rows(job, block, a, q_stride);
    scratch.k.multiply(dense, a, q_stride, block.rows, k4, keys, scratch.k_bias, scores);
  }
  for (size_t r = 0; r < block.rows; ++r) {
    totals[r] = 0;
    if (!keys) continue;
    const uint8_t* mask = mask_of(job, block, r, keys);
    char* e = a + r * e_stride;
    totals[r] = isa()->softmax.weights(job.spec.exponent, scores + r * wide, mask, keys, dense.held, e);
    if (beyond) std::memset(e + wide * dense.element, 0, beyond * dense.element);
  }
  const size_t used4 = divide_up(keys, 4);
  const int32_t* bias = scratch.v.bias(dense, left_of(dense.held, 0), used4, s.width);
  if (!bias) return false;
  scratch.v.multiply(dense, a, e_stride, block.rows, used4, s.width, bias, acc);
  store_rows(job, block, acc, width, totals);
  return true;
}

// Whether the rows of a block end at other keys each: told by its first and its last one.
bool is_staircase(const Job& job, const Block& all) {
  const Block first = {all.batch, all.group, all.first, 1}, last = {all.batch, all.group, all.first + all.rows - 1, 1};
  return job.mask.row && keys_of(job, first) != keys_of(job, last);
}

// Rows that are worked on at a time.
size_t rows_at_once(const Job& job, const Block& all) {
  const size_t tile = job.dense.rows, fit = kBlockBytes / (4 * whole_panels(job.shape.keys)) / tile * tile;
  const size_t most = is_staircase(job, all) ? divide_up(kMaskedRows, tile) * tile : divide_up(kRows, tile) * tile;
  return fit < tile ? tile : fit < most ? fit : most;
}

// Tasks of the same group follow each other; `packed` says which the scratch holds.
bool run_task(const Job& job, size_t task, size_t* packed) {
  const size_t which = task / job.row_blocks, i = task % job.row_blocks, rows = job.shared * job.shape.rows;
  const size_t first = part(rows, job.row_blocks, i), count = part(rows, job.row_blocks, i + 1) - first;
  const size_t batch = which / job.shape.groups, group = which % job.shape.groups;
  if (!count) return true;
  if (*packed != which && !pack(job, batch, group)) return false;
  *packed = which;
  const size_t tile = job.dense.rows, tiles = divide_up(count, tile), blocks = divide_up(count, rows_at_once(job, {batch, group, first, count}));
  for (size_t b = 0; b < blocks; ++b) {
    const size_t from = part(tiles, blocks, b) * tile, end = part(tiles, blocks, b + 1) * tile, to = end < count ? end : count;
    if (!run_block(job, {batch, group, first + from, to - from})) return false;
  }
  return true;
}

void work(Job& job, Queue& queue) {
  size_t packed = ~size_t{0};
  for (size_t task; queue.take(&task);) {
    if (!run_task(job, task, &packed)) job.failed = true;
  }
}

// A few tasks for every thread, whole groups where there are enough of them: a group is packed by each that works on it.
size_t row_blocks(const AttentionShape& shape, const Dense& dense, int threads) {
  if (threads <= 1) return 1;
  const size_t groups = shape.batch * shape.groups, wanted = divide_up(2 * static_cast<size_t>(threads), groups);
  const size_t most = divide_up(shape.heads / shape.groups * shape.rows, 4 * dense.rows);
  return wanted < most ? wanted : most;
}

const char* wrong(const AttentionSpec& spec, const AttentionShape& s) {
  const int64_t q = farthest(spec.q_zero_point, 0, 255), k = farthest(spec.k_zero_point, -128, 127);
  if (s.keys == 0 || s.keys > kMostKeys) return "k must have 1 to 65536 keys";
  if (s.depth > (1u << 20) || static_cast<int64_t>(s.depth) * q * k >= (1 << 30)) return "its int32 scores may overflow";
  const int64_t v = farthest(spec.v_zero_point, -128, 127);
  if (static_cast<int64_t>(s.keys) * 255 * v > INT32_MAX) return "its int32 sums over the keys may overflow";
  return nullptr;
}

}  // namespace

const char* attention(const AttentionSpec& spec, const AttentionShape& shape, const uint8_t* q, const int8_t* k,
                      const int8_t* v, const Mask& mask, void* y, const Parallel& parallel) {
  if (const char* found = wrong(spec, shape)) return found;
  if (!shape.batch || !shape.rows || !shape.heads || !shape.width) return nullptr;
  const size_t shared = shape.heads / shape.groups;
  const Dense& dense = dense_of_call(isa()->dense, shared * shape.rows);
  Job job = {spec, shape, q, k, v, mask, static_cast<char*>(y), dense, shared, 1, farthest(spec.v_zero_point, -128, 127)};
  job.row_blocks = row_blocks(shape, dense, parallel.threads);
  run_queue(parallel, shape.batch * shape.groups * job.row_blocks, work, &job);
  return job.failed ? "out of memory" : nullptr;
}

}  // namespace mulshift
