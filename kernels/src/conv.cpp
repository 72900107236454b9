#include "conv.h"

#include <atomic>
#include <cstring>

#include "elementwise.h"
#include "isa.h"
#include "low_bits.h"
#include "queue.h"
#include "sparse.h"
#include "table.h"

namespace mulshift {

namespace {

constexpr size_t kExpandedBytes = 512 * 1024;  // of a task's weights: each task widens its activations anew
constexpr size_t kBlockBytes = 96 * 1024;      // of a block of activations
constexpr size_t kPartBytes = 32 * 1024;       // of one panel's part: about the first-level cache
constexpr size_t kColumns = 64;                // of a block that are finished at a time
constexpr size_t kSlack = 64;                  // elements that load_row may write past a row

const int8_t* column(const ConvSpec& spec, size_t group, size_t n) {
  const size_t panels = (spec.outputs / spec.groups + kPanel - 1) / kPanel;
  return spec.bytes() + ((group * panels + n / kPanel) * spec.k4() * kPanel + n % kPanel) * 4;
}

ColumnSums sums(const void* data, size_t group, size_t n) {
  const ConvSpec& spec = *static_cast<const ConvSpec*>(data);
  const int8_t* w = column(spec, group, n);
  ColumnSums found = {0, 0};
  for (size_t k = 0; k < spec.k4(); ++k, w += 4 * kPanel) {
    for (size_t i = 0; i < 4; ++i) {
      found.sum += w[i];
      found.magnitude += w[i] < 0 ? -w[i] : w[i];
    }
  }
  return found;
}

// Whether the packed weights are zero beyond k, where a block of activations holds leftovers.
bool is_padded_with_zeros(const ConvSpec& spec) {
  const size_t rest = spec.depth() % 4;
  for (size_t n = 0; rest && n < spec.outputs; ++n) {
    const size_t per_group = spec.outputs / spec.groups;
    const int8_t* last = column(spec, n / per_group, n % per_group) + (spec.k4() - 1) * 4 * kPanel;
    for (size_t i = rest; i < 4; ++i) {
      if (last[i]) return false;
    }
  }
  return true;
}

size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }

// The i-th of `parts` nearly equal parts of [0, total).
size_t part(size_t total, size_t parts, size_t i) { return total / parts * i + (i < total % parts ? i : total % parts); }

// The kernel for few rows by weights that are packed so, null if there is none.
const Dense* few_of(const Packing& packing) {
  const DenseKernels& kernels = isa()->dense;
  if (packing.zeros == Zeros::of_columns) {
    const Dense& sparse = packing.bits == 4 ? kernels.few_sparse_four : kernels.few_sparse;
    return sparse.multiply ? &sparse : nullptr;
  }
  const Dense* four = packing.block ? &kernels.packed_blocks : &kernels.packed_four;
  const Dense* packed = packing.bits == 4 ? four : packing.bits == 2 ? &kernels.packed_two : nullptr;
  const Dense* few = packing.bits == 8 ? &kernels.few : packed;
  return few && few->multiply ? few : nullptr;
}

// The kernel for any rows by weights that are packed with zeros, null if there is none.
const Dense* sparse_of(const Packing& packing) {
  const DenseKernels& kernels = isa()->dense;
  const Dense* of_columns = packing.bits == 4 ? &kernels.sparse_four : &kernels.sparse;
  const Dense* of_panels = packing.bits == 4 ? nullptr : &kernels.shared;
  const Dense* sparse = packing.zeros == Zeros::of_columns ? of_columns : packing.zeros == Zeros::of_panels ? of_panels : nullptr;
  return sparse && sparse->multiply ? sparse : nullptr;
}

// One call, as its tasks see it.
struct Job {
  const ConvSpec& spec;
  const Dense& dense;
  const Fours& fours;
  const Columns& columns;
  const Stages& stages;
  const Image& image;
  const uint8_t *x, *end;
  void *y, *q;
  const void* r;
  const int32_t* k;
  size_t out_h, out_w, rows;        // rows: all output positions
  size_t row_blocks, panel_blocks;  // tasks = groups * panel_blocks * row_blocks
  std::atomic<bool> failed{false};

  // Zeros of panels leave dense products over half of k.
  bool is_gathered() const { return spec.packing.zeros == Zeros::of_panels && &dense != &isa()->dense.shared; }
  size_t inner() const { return is_gathered() ? steps_of(spec.k4()) : spec.k4(); }  // k4 of the products

  // Bytes of a panel as it is packed, and as `multiply` reads it.
  size_t packed_bytes() const { return spec.packing.panel_bytes(spec.k4()); }
  const char* packed_panel(size_t group, size_t panel) const {
    return static_cast<const char*>(spec.packed) + (group * columns.panels() + panel) * packed_bytes();
  }
  bool is_unpacked() const {
    const Packing& packing = spec.packing;
    return (packing.bits < 8 || packing.zeros == Zeros::of_columns) && &dense != few_of(packing) && &dense != sparse_of(packing);
  }
  size_t step_bytes() const { return dense.step * kStepBytes * (dense.expand ? dense.expanded_bytes : 1); }
  size_t panel_bytes() const {
    if (dense.expand) return divide_up(inner(), dense.step) * step_bytes();
    return is_unpacked() ? inner() * kStepBytes : packed_bytes();
  }

  bool is_direct() const {
    const Window& v = spec.window;
    return (dense.held == Held::raw || dense.held == Held::by_sign) && is_pointwise() && spec.groups == 1 && spec.channels % 4 == 0 && v.h == 1;
  }
  bool is_pointwise() const {
    const Window& v = spec.window;
    return v.h * v.w == 1 && v.stride_h * v.stride_w == 1 && !(v.pad_top + v.pad_left + v.pad_bottom + v.pad_right);
  }
  size_t pixel() const { return spec.groups * spec.channels; }
};

struct Position {
  size_t image, y, x;
};

void fill(const Job& job, void* a, size_t n) {
  std::memset(a, left_of(job.dense.held, job.spec.x_zero_point), n * job.dense.element);
}

// The k elements of one output position.
void load_position(const Job& job, size_t group, const Position& at, char* a) {
  const ConvSpec& spec = job.spec;
  const Window& v = spec.window;
  const size_t element = job.dense.element, channels = spec.channels;
  const bool whole = v.dilation_w == 1 && spec.groups == 1;  // neighbours of a kernel row lie beside each other
  const ptrdiff_t left = static_cast<ptrdiff_t>(at.x * v.stride_w) - static_cast<ptrdiff_t>(v.pad_left);
  for (size_t ky = 0; ky < v.h; ++ky) {
    const ptrdiff_t iy = static_cast<ptrdiff_t>(at.y * v.stride_h + ky * v.dilation_h) - static_cast<ptrdiff_t>(v.pad_top);
    if (iy < 0 || iy >= static_cast<ptrdiff_t>(job.image.h)) {
      fill(job, a, v.w * channels);
      a += v.w * channels * element;
      continue;
    }
    const uint8_t* row = job.x + (at.image * job.image.h + static_cast<size_t>(iy)) * job.image.w * job.pixel();
    if (whole && left >= 0 && left + static_cast<ptrdiff_t>(v.w) <= static_cast<ptrdiff_t>(job.image.w)) {
      job.dense.load_row(row + static_cast<size_t>(left) * channels, v.w * channels, job.end, spec.x_zero_point, a);
      a += v.w * channels * element;
      continue;
    }
    for (size_t kx = 0; kx < v.w; ++kx, a += channels * element) {
      const ptrdiff_t ix = left + static_cast<ptrdiff_t>(kx * v.dilation_w);
      if (ix < 0 || ix >= static_cast<ptrdiff_t>(job.image.w)) {
        fill(job, a, channels);
      } else {
        const uint8_t* from = row + static_cast<size_t>(ix) * job.pixel() + group * channels;
        job.dense.load_row(from, channels, job.end, spec.x_zero_point, a);
      }
    }
  }
}

// Loads the positions from `at` on, in its row, whose windows lie inside the image and whole; how many they were.
size_t load_inside(const Job& job, const Position& at, size_t most, char* a, size_t stride) {
  const ConvSpec& spec = job.spec;
  const Window& v = spec.window;
  if (spec.groups != 1 || v.dilation_w != 1) return 0;
  const size_t top = at.y * v.stride_h, left = at.x * v.stride_w;
  if (top < v.pad_top || left < v.pad_left) return 0;
  const size_t y0 = top - v.pad_top, x0 = left - v.pad_left;
  if (y0 + (v.h - 1) * v.dilation_h >= job.image.h || x0 + v.w > job.image.w) return 0;
  const size_t room = (job.image.w - x0 - v.w) / v.stride_w + 1, in_row = job.out_w - at.x;
  const size_t fit = room < in_row ? room : in_row, pixel = spec.channels;
  Windows windows;
  windows.x = job.x + ((at.image * job.image.h + y0) * job.image.w + x0) * pixel;
  windows.end = job.end;
  windows.rows = v.h;
  windows.n = v.w * pixel;
  windows.row_stride = v.dilation_h * job.image.w * pixel;
  windows.count = fit < most ? fit : most;
  windows.step = v.stride_w * pixel;
  job.dense.load_windows(windows, spec.x_zero_point, a, stride);
  return windows.count;
}

// a: rows of 4 * k4 elements.
void load_block(const Job& job, size_t group, size_t first, size_t rows, char* a, size_t stride) {
  const ConvSpec& spec = job.spec;
  if (job.is_pointwise() && spec.groups == 1 && spec.channels % 4 == 0) {
    job.dense.load_row(job.x + first * spec.channels, rows * spec.channels, job.end, spec.x_zero_point, a);
    return;
  }
  size_t x = first % job.out_w, y = first / job.out_w % job.out_h, image = first / job.out_w / job.out_h;
  for (size_t i = 0; i < rows;) {
    const size_t whole = load_inside(job, {image, y, x}, rows - i, a, stride);
    if (!whole) load_position(job, group, {image, y, x}, a);
    const size_t done = whole ? whole : 1;
    i += done;
    a += done * stride;
    if ((x += done) < job.out_w) continue;
    x = 0;
    if (++y < job.out_h) continue;
    y = 0;
    ++image;
  }
}

void* offset(void* p, Type type, size_t elements) {
  return p ? static_cast<char*>(p) + elements * size_of(type) : nullptr;
}

Epilogue epilogue_of(const Job& job, const Stages& stages, size_t group) {
  const size_t first = group * job.columns.per_group();
  const void* r = nullptr;
  if (stages.add) r = static_cast<const char*>(job.r) + first * size_of(stages.add->r_type);
  void* q = stages.again ? offset(job.q, stages.again->out.type, first) : nullptr;
  return {&stages, offset(job.y, type_of_y(stages), first), r, q, job.spec.outputs, job.k};
}

// Rows that are loaded at a time: within the second-level cache beside the weights.
size_t rows_at_once(const Dense& dense, size_t stride) {
  const size_t fit = kBlockBytes / (stride ? stride : 1) / dense.rows * dense.rows;
  const size_t most = 16 * dense.rows;
  return fit < dense.rows ? dense.rows : fit < most ? fit : most;
}

struct Scratch {
  Buffer a, b, plain, acc, places, kept, bytes, rest, words;
};
thread_local Scratch scratch;

// The same of `columns` from a panel on.
Product from_panel(Product product, size_t panel, size_t columns) {
  product.b = static_cast<const char*>(product.b) + panel * product.b_stride;
  product.init += panel * kPanel;
  product.columns = columns;
  product.couples = product.couples.from_panel(panel, product.k4);
  return product;
}

// Whole panels to y; a last one that is not whole by way of scratch.rest.
void multiply_to_bytes(const Dense& dense, const Product& product, const Stages& stages, uint8_t* y, size_t stride) {
  const size_t panels = product.columns / kPanel, whole = panels * kPanel, rest = product.columns - whole;
  if (whole) dense.multiply_to_bytes(from_panel(product, 0, whole), stages, y, stride);
  if (!rest) return;
  uint8_t* bytes = static_cast<uint8_t*>(scratch.rest.data());
  dense.multiply_to_bytes(from_panel(product, panels, rest), from_column(stages, whole), bytes, kPanel);
  for (size_t r = 0; r < product.rows; ++r) copy_columns(y + whole + r * stride, bytes + r * kPanel, rest);
}

// All of k in parts, so that a panel's part stays in the first-level cache while many rows go by; the last part ends in
// the epilogue, some columns after the other: their sums stay in the cache. A step of k is `step_bytes` of b.
void multiply_block(const Dense& dense, Product product, size_t step_bytes, size_t k4, const Stages& stages,
                    const Epilogue& epilogue, size_t first_row, size_t first_column, int32_t* acc, size_t width) {
  const size_t steps = divide_up(k4, dense.step), most = kPartBytes / step_bytes;
  const bool is_cut = k4 && product.rows > kFewRows && !product.couples.steps;  // those are of all of k
  const size_t parts = is_cut ? divide_up(steps, most) : 1;
  const char *a = static_cast<const char*>(product.a), *b = static_cast<const char*>(product.b);
  product.init = stages.bias;
  for (size_t i = 0; i < parts; ++i) {
    const size_t step = part(steps, parts, i), k = step * dense.step, last = part(steps, parts, i + 1) * dense.step;
    product.k4 = (last < k4 ? last : k4) - k;
    product.a = a + k * 4 * dense.element;
    product.b = b + step * step_bytes;
    if (i + 1 == parts && dense.multiply_to_bytes && is_plain(stages, divide_up(product.columns, kPanel) * kPanel)) {
      uint8_t* y = static_cast<uint8_t*>(epilogue.y) + first_row * epilogue.stride + first_column;
      return multiply_to_bytes(dense, product, stages, y, epilogue.stride);
    }
    if (i + 1 == parts) break;
    dense.multiply(product, acc, width);
    product.init = acc;
    product.init_stride = width;
  }
  const size_t columns = product.columns;
  for (size_t n = 0; n < columns; n += kColumns) {
    const Product some = from_panel(product, n / kPanel, columns - n < kColumns ? columns - n : kColumns);
    int32_t* sums = parts > 1 ? acc + n : acc;
    const size_t stride = parts > 1 || width < kColumns ? width : kColumns;
    dense.multiply(some, sums, stride);
    isa()->dense.finish(epilogue, sums, stride, some.rows, first_row, first_column + n, some.columns);
  }
}

// Whether u8 is stored first and changed byte by byte while it is in the cache: the fastest kernels store u8.
bool is_changed_later(const Stages& stages) { return ends_in_byte_table(stages) || ends_in_signed_bytes(stages); }

Stages before_change(const Stages& stages) {
  Stages s = stages;
  s.table = nullptr;
  s.rescale = nullptr;
  if (s.first.type == Type::s8) s.first = {s.first.zero_point + 128, s.first.low + 128, s.first.high + 128, Type::u8};
  return s;
}

void change(const Stages& stages, uint8_t* y, size_t n) {
  if (stages.table) return isa()->table.bytes(y, n, static_cast<const uint8_t*>(stages.table->entries), y);
  constexpr uint64_t kTops = 0x8080808080808080;
  size_t i = 0;
  for (uint64_t eight; i + 8 <= n; i += 8) {
    std::memcpy(&eight, y + i, 8);
    eight ^= kTops;
    std::memcpy(y + i, &eight, 8);
  }
  for (; i < n; ++i) y[i] = static_cast<uint8_t>(y[i] ^ 0x80);
}

// Packed weights as dense kernels take them, of half of k where they have zeros of panels.
void unpack(const void* packed, const Packing& packing, size_t k4, size_t panels, int8_t* room) {
  const uint8_t* from = static_cast<const uint8_t*>(packed);
  if (packing.zeros == Zeros::none) return isa()->low_bits.unpack(from, packing, k4, panels, room);
  if (packing.zeros == Zeros::of_columns) return unpack_zeros(from, packing, k4, panels, room);
  const size_t steps = steps_of(k4);
  for (size_t p = 0; p < panels; ++p, from += packing.panel_bytes(k4), room += steps * kStepBytes) {
    const uint8_t* kept = from + packing.head_bytes(k4);
    packing.bits == 8 ? static_cast<void>(std::memcpy(room, kept, steps * kStepBytes))
                      : isa()->low_bits.unpack(kept, {packing.bits}, steps, 1, room);
  }
}

// The same of kept weights that are read where they lie.
const void* find_kept(const Job& job, const char* packed, size_t panels, bool is_new) {
  const char* kept = packed + job.spec.packing.head_bytes(job.spec.k4());
  if (!job.dense.expand) return kept;
  char* room = scratch.b.array<char>(panels * job.panel_bytes());
  for (size_t p = 0; room && is_new && p < panels; ++p, kept += job.packed_bytes()) {
    job.dense.expand(reinterpret_cast<const int8_t*>(kept), job.inner(), 1, room + p * job.panel_bytes());
  }
  return room;
}

// A task's weights as `multiply` reads them; null if there is no memory. `prepared` says which the scratch holds.
const void* find_weights(const Job& job, size_t group, size_t first, size_t last, size_t which, size_t* prepared) {
  const Packing& packing = job.spec.packing;
  const size_t k4 = job.inner(), panels = last - first;
  const void* plain = job.packed_panel(group, first);
  const bool is_new = *prepared != which;
  *prepared = which;
  if (job.is_unpacked()) {
    int8_t* room = scratch.plain.array<int8_t>(panels * k4 * kStepBytes);
    if (room && is_new) unpack(plain, packing, job.spec.k4(), panels, room);
    plain = room;
  } else if (job.is_gathered()) {
    return find_kept(job, static_cast<const char*>(plain), panels, is_new);
  }
  if (!job.dense.expand || !plain) return plain;
  void* room = scratch.b.reserve(panels * job.panel_bytes());
  if (room && is_new) job.dense.expand(static_cast<const int8_t*>(plain), k4, panels, room);
  return room;
}

// The activations that a panel's products take: those of its positions. Null if there is no memory.
const char* gathered(const Job& job, const Product& product, const char* panel) {
  const size_t k4 = job.spec.k4(), element = job.dense.element, stride = 4 * job.inner() * element;
  uint8_t* places = scratch.places.array<uint8_t>(places_bytes(k4, element));
  char* kept = scratch.kept.array<char>(product.rows * stride + kSlack);
  if (!places || !kept) return nullptr;
  find_places(reinterpret_cast<const uint8_t*>(panel), k4, element, places);
  isa()->sparse.gather(product.a, product.a_stride, product.rows, k4, element, places, kept, stride);
  return kept;
}

// A block of rows by the panels of a task, `packed` the first; those of the same positions together.
bool multiply_panels(const Job& job, const Product& product, const char* packed, const Stages& stages, const Epilogue& epilogue,
                     size_t first_row, size_t first_column, int32_t* acc) {
  const size_t panels = divide_up(product.columns, kPanel), width = panels * kPanel, steps = steps_of(job.spec.k4());
  for (size_t p = 0, next; p < panels; p = next) {
    const char* head = packed + p * job.packed_bytes();
    Product own = product;
    next = panels;
    if (job.is_gathered()) {
      next = p + 1;
      while (next < panels && !std::memcmp(head, packed + next * job.packed_bytes(), steps)) ++next;
      own.a = gathered(job, product, head);
      own.a_stride = 4 * job.inner() * job.dense.element;
      if (!own.a) return false;
    }
    own.b = static_cast<const char*>(product.b) + p * product.b_stride;
    own.columns = (next < panels ? next * kPanel : product.columns) - p * kPanel;
    own.couples = own.couples.from_panel(p, job.inner());
    const size_t column = first_column + p * kPanel;
    multiply_block(job.dense, own, job.step_bytes(), job.inner(), from_column(stages, column), epilogue, first_row, column, acc, width);
  }
  return true;
}

// Words of some columns, of row after row looked up from bytes, by their own numbers; `stride` is that of y.
bool scale_words(const RescaleStage& stage, const uint8_t* bytes, size_t rows, size_t width, size_t columns,
                 const int16_t* entries, char* y, size_t stride) {
  int16_t* words = scratch.words.array<int16_t>(2 * width);
  if (!words) return false;
  const int32_t* const* numbers = stage.scale;
  const size_t most = width == stride ? 2 : 1;  // without a gap between them
  for (size_t r = 0; r < rows; r += most) {
    const size_t count = rows - r < most ? rows - r : most;
    isa()->table.words(bytes + r * width, count * width, entries, words);
    const Rows some = {count,
                       columns,
                       {words, numbers[0], numbers[1], numbers[2], numbers[3]},
                       {width, 0, 0, 0, 0},
                       {true, true, true, true, true},
                       y + r * stride * size_of(stage.out.type)};
    isa()->elementwise.scale({stage.out}, some);
  }
  return true;
}

// The same where each byte is looked up in a table of words: bytes of the block, then words to y, or what a rescaling makes
// of them. `stages` and `rescale` start at the first column; `k` as in an Epilogue.
bool multiply_to_words(const Job& job, const Product& product, const char* packed, const Stages& stages, const TableStage& table,
                       const RescaleStage* rescale, const int32_t* k, int32_t* acc, void* to) {
  const size_t width = divide_up(product.columns, kPanel) * kPanel, stride = job.spec.outputs;
  const int16_t* entries = static_cast<const int16_t*>(table.entries);
  uint8_t* bytes = static_cast<uint8_t*>(scratch.bytes.data());
  if (!multiply_panels(job, product, packed, stages, {&stages, bytes, nullptr, nullptr, width, k}, 0, 0, acc)) return false;
  if (rescale) return scale_words(*rescale, bytes, product.rows, width, product.columns, entries, static_cast<char*>(to), stride);
  int16_t* y = static_cast<int16_t*>(to);
  if (width == stride) {
    isa()->table.words(bytes, product.rows * width, entries, y);
    return true;
  }
  for (size_t r = 0; r < product.rows; ++r) isa()->table.words(bytes + r * width, product.columns, entries, y + r * stride);
  return true;
}

// Tasks of the same weights follow each other.
bool run_task(const Job& job, size_t task, size_t* prepared) {
  const ConvSpec& spec = job.spec;
  const Dense& dense = job.dense;
  const size_t k4 = spec.k4(), panels = job.columns.panels(), row_block = task % job.row_blocks;
  const size_t which = task / job.row_blocks, panel_block = which % job.panel_blocks, group = which / job.panel_blocks;
  const size_t p0 = part(panels, job.panel_blocks, panel_block), p1 = part(panels, job.panel_blocks, panel_block + 1);
  const size_t m0 = part(job.rows, job.row_blocks, row_block), m1 = part(job.rows, job.row_blocks, row_block + 1);
  if (p0 == p1 || m0 == m1) return true;

  const void* b = find_weights(job, group, p0, p1, which, prepared);
  const Stages stages = job.columns.of_group(job.stages, group);
  const size_t width = (p1 - p0) * kPanel, first_column = p0 * kPanel, stride = k4 * 4 * dense.element;
  const size_t columns = p1 == panels ? job.columns.per_group() - first_column : width;
  const size_t most = rows_at_once(dense, stride);
  char* block = scratch.a.array<char>(most * stride + kSlack * dense.element);
  int32_t* acc = scratch.acc.array<int32_t>(most * width);
  if (!b || !block || !acc || !scratch.rest.reserve(most * kPanel)) return false;
  const char* packed = job.packed_panel(group, p0);
  Product product = {};
  product.b = b;
  product.a_stride = stride;
  product.b_stride = job.panel_bytes();
  product.columns = columns;
  product.block = spec.packing.block;
  product.couples = job.fours.couples(group * panels + p0);
  const bool is_changed = is_changed_later(stages), to_words = ends_in_word_table(stages);
  const Stages stored = is_changed || to_words ? before_change(stages) : stages;
  const Epilogue epilogue = epilogue_of(job, stored, group);
  if (to_words && !scratch.bytes.reserve(most * width)) return false;
  const size_t tiles = divide_up(m1 - m0, dense.rows), blocks = divide_up(m1 - m0, most);
  for (size_t i = 0; i < blocks; ++i) {
    const size_t first = m0 + part(tiles, blocks, i) * dense.rows, last = m0 + part(tiles, blocks, i + 1) * dense.rows;
    product.rows = (last < m1 ? last : m1) - first;
    product.a = block;
    if (job.is_direct()) {
      product.a = job.x + first * spec.channels;
    } else {
      load_block(job, group, first, product.rows, block, stride);
    }
    if (to_words) {
      const Stages own = from_column(stored, first_column);
      const size_t column = group * job.columns.per_group() + first_column;
      const RescaleStage own_rescale = stages.rescale ? from_column(*stages.rescale, column) : RescaleStage{};
      const RescaleStage* rescale = stages.rescale ? &own_rescale : nullptr;
      void* y = offset(job.y, type_of_y(stages), first * epilogue.stride + column);
      const int32_t* k = job.k ? job.k + first : nullptr;
      if (!multiply_to_words(job, product, packed, own, *stages.table, rescale, k, acc, y)) return false;
      continue;
    }
    if (!multiply_panels(job, product, packed, stored, epilogue, first, first_column, acc)) return false;
    if (!is_changed) continue;
    uint8_t* y = static_cast<uint8_t*>(epilogue.y) + first * epilogue.stride + first_column;
    for (size_t r = 0; r < product.rows; ++r, y += epilogue.stride) change(stages, y, columns);
  }
  return true;
}

void work(Job& job, Queue& queue) {
  size_t prepared = ~size_t{0};
  for (size_t task; queue.take(&task);) {
    if (!run_task(job, task, &prepared)) job.failed = true;
  }
}

// How a call is cut into tasks: weights of a task fit the cache, and every thread gets a few.
void cut(Job* job, int threads) {
  const size_t panels = job->columns.panels();
  const size_t panel_bytes = job->panel_bytes();
  const size_t most = panel_bytes < kExpandedBytes ? kExpandedBytes / panel_bytes : 1;
  job->panel_blocks = divide_up(panels, most);
  job->row_blocks = 1;
  if (threads <= 1) return;
  const size_t wanted = static_cast<size_t>(threads) * 2;
  const size_t have = job->spec.groups * job->panel_blocks;
  if (have >= wanted) return;
  // Where weights are more than activations that are read where they lie, each thread reads a part of the weights.
  const bool by_panels = job->is_direct() && panels * panel_bytes > job->rows * job->spec.channels && panels >= wanted;
  const size_t by_rows = by_panels ? 1 : divide_up(job->rows, 4 * job->dense.rows);
  job->row_blocks = by_rows < divide_up(wanted, have) ? by_rows : divide_up(wanted, have);
  const size_t now = have * job->row_blocks;
  if (now >= wanted) return;
  const size_t finer = job->panel_blocks * divide_up(wanted, now);
  job->panel_blocks = finer < panels ? finer : panels;
}

}  // namespace

const char* Conv::prepare(const ConvSpec& spec, const ColumnInputs& columns) {
  spec_ = spec;
  if (spec.packing.is_plain()) return prepare_bytes(spec, columns);
  const size_t panels = spec.groups * divide_up(spec.outputs / spec.groups, kPanel), k4 = spec.k4();
  const uint8_t* packed = static_cast<const uint8_t*>(spec.packed);
  if (spec.packing.zeros != Zeros::none) {
    if (const char* wrong = check_zeros(packed, spec.packing, k4, panels)) return wrong;
  }
  Buffer bytes;
  int8_t* room = bytes.array<int8_t>(panels * k4 * kStepBytes);
  if (!room) return "out of memory";
  if (spec.packing.zeros == Zeros::of_panels) {
    unpack(packed, spec.packing, k4, panels, room);
    dense_ = fours_.choose(isa()->dense, room, panels, steps_of(k4));
    if (dense_ == &isa()->dense.any) dense_ = nullptr;  // the sparse one is faster
  }
  spec.packing.zeros == Zeros::none ? isa()->low_bits.unpack(packed, spec.packing, k4, panels, room)
                                    : unpack_zeros(packed, spec.packing, k4, panels, room);
  ConvSpec plain = spec;
  plain.packed = room;
  plain.packing = {};
  return prepare_bytes(plain, columns);
}

// `spec` has the weights as s8, for this call.
const char* Conv::prepare_bytes(const ConvSpec& spec, const ColumnInputs& columns) {
  if (!is_padded_with_zeros(spec)) return "w is not zero where it is padding";
  const DenseKernels& kernels = isa()->dense;
  const size_t panels = spec.groups * divide_up(spec.outputs / spec.groups, kPanel);
  if (!dense_) dense_ = sparse_of(spec_.packing);
  if (!dense_ && spec_.packing.zeros == Zeros::of_panels) dense_ = &kernels.any;
  if (!dense_) dense_ = fours_.choose(kernels, spec.bytes(), panels, spec.k4());
  const bool is_small = dense_ == &kernels.small || dense_ == &kernels.smallest;  // as fast, and stays packed
  if (spec_.packing.is_plain() && !is_small && Winograd::fits(spec) && winograd_.prepare(spec)) dense_ = &kernels.any;
  if (const char* wrong = columns_.prepare(columns, dense_->held, sums, &spec)) return wrong;
  const Dense* few = spec_.packing.is_plain() ? nullptr : few_of(spec_.packing);
  return few ? few_columns_.prepare(columns, few->held, sums, &spec) : nullptr;
}

const char* Conv::run(const Stages& stages, const Image& image, const uint8_t* x, void* y, const void* r, void* q,
                      const Parallel& parallel, const int32_t* k) const {
  if (winograd_.pays(image, spec_.window)) return winograd_.run(spec_, columns_, stages, image, x, y, r, q, parallel);
  const Window& v = spec_.window;
  const size_t out_h = positions(image.h, v.h, v.stride_h, v.pad_top, v.pad_bottom, v.dilation_h);
  const size_t out_w = positions(image.w, v.w, v.stride_w, v.pad_left, v.pad_right, v.dilation_w);
  const size_t rows = image.count * out_h * out_w, bytes = image.count * image.h * image.w * spec_.groups * spec_.channels;
  if (!rows || !spec_.outputs) return nullptr;
  const bool is_packed = !spec_.packing.is_plain();
  const Dense* few = rows <= kFewRows ? few_of(spec_.packing) : nullptr;
  const bool is_few = few && (is_packed || few->held == dense_->held);
  const Columns& columns = is_few && is_packed ? few_columns_ : columns_;
  Job job = {spec_, is_few ? *few : *dense_, fours_, columns, stages, image, x, x + bytes, y, q, r, k, out_h, out_w, rows, 1, 1};
  cut(&job, parallel.threads);
  run_queue(parallel, spec_.groups * job.panel_blocks * job.row_blocks, work, &job);
  return job.failed ? "out of memory" : nullptr;
}

}  // namespace mulshift
