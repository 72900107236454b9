// ConvNhwc, ConvFromNchw, DepthwiseNhwc, GemmPacked, with weights of 8, 4, 2 and 1 bits, (not depthwise) in blocks, and
// (matrices) with two of four kept; each with any of the stages Add, Table, Requantize after it, each as an accumulator alone.
// Matrices by rows too: each row takes a k of its own off c.
//
// inputs (x, w, bias, b, c, [k], [r], [table], [q_b, q_c]) -> y, [q]; accumulators (x, w, bias) -> acc. GemmPacked also with
// a table of words and a rescaling: (..., table, rescale_b, rescale_c) -> y.
#include "product.h"

#include <cstring>

#include "../conv.h"
#include "../depthwise.h"
#include "../elementwise.h"
#include "../large_pages.h"
#include "../low_bits.h"
#include "../ratios.h"
#include "../row_quantize.h"
#include "operator.h"
#include "serial.h"

namespace mulshift {
namespace ort {
namespace {

// `bits` of a weight; `layout` of w.
struct Form {
  bool is_gemm, is_planar, is_depthwise;
  int bits;
  const char* layout;
  bool has_blocks = false;
  Zeros zeros = Zeros::none;
};

enum Base : int {
  conv_nhwc,
  conv_from_nchw,
  depthwise_nhwc,
  gemm_packed,
  conv_nhwc_int4,
  conv_nhwc_int2,
  conv_nhwc_int1,
  gemm_packed_int4,
  gemm_packed_int2,
  gemm_packed_int1,
  conv_nhwc_int4_blocks,
  gemm_packed_int4_blocks,
  conv_from_nchw_int4,
  conv_from_nchw_int2,
  conv_from_nchw_int1,
  conv_from_nchw_int4_blocks,
  depthwise_nhwc_int4,
  depthwise_nhwc_int2,
  depthwise_nhwc_int1,
  conv_nhwc_sparse,
  conv_nhwc_sparse_int4,
  conv_nhwc_shared,
  conv_nhwc_shared_int4,
  gemm_packed_sparse,
  gemm_packed_sparse_int4,
  gemm_packed_shared,
  gemm_packed_shared_int4
};

constexpr Form kForms[] = {{false, false, false, 8, "k4n16"},   {false, true, false, 8, "k4n16"},
                           {false, false, true, 8, "taps"},     {true, false, false, 8, "k4n16"},
                           {false, false, false, 4, "k4n16s4"}, {false, false, false, 2, "k4n16s2"},
                           {false, false, false, 1, "k4n16s1"}, {true, false, false, 4, "k4n16s4"},
                           {true, false, false, 2, "k4n16s2"},  {true, false, false, 1, "k4n16s1"},
                           {false, false, false, 4, "k4n16s4b", true}, {true, false, false, 4, "k4n16s4b", true},
                           {false, true, false, 4, "k4n16s4"}, {false, true, false, 2, "k4n16s2"},
                           {false, true, false, 1, "k4n16s1"}, {false, true, false, 4, "k4n16s4b", true},
                           {false, false, true, 4, "taps4"},   {false, false, true, 2, "taps2"},
                           {false, false, true, 1, "taps1"},
                           {false, false, false, 8, "k8n16z", false, Zeros::of_columns},
                           {false, false, false, 4, "k8n16zs4", false, Zeros::of_columns},
                           {false, false, false, 8, "k8n16p", false, Zeros::of_panels},
                           {false, false, false, 4, "k8n16ps4", false, Zeros::of_panels},
                           {true, false, false, 8, "k8n16z", false, Zeros::of_columns},
                           {true, false, false, 4, "k8n16zs4", false, Zeros::of_columns},
                           {true, false, false, 8, "k8n16p", false, Zeros::of_panels},
                           {true, false, false, 4, "k8n16ps4", false, Zeros::of_panels}};

enum Stage : unsigned { add_stage = 1, table_stage = 2, again_stage = 4, accumulate = 8, by_rows = 16, rescale_stage = 32 };

constexpr int64_t kMost = INT32_MAX;

// [N][C][H * W] -> [N][H * W][C]; few channels.
void to_nhwc(const uint8_t* x, size_t count, size_t channels, size_t pixels, uint8_t* out) {
  for (size_t i = 0; i < count; ++i, x += channels * pixels, out += channels * pixels) {
    if (channels == 3) {
      const uint8_t *a = x, *b = x + pixels, *c = x + 2 * pixels;
      size_t p = 0;
      for (; p + 2 <= pixels; ++p) {  // one store; its fourth byte is of the next pixel
        const uint32_t pixel = a[p] | static_cast<uint32_t>(b[p]) << 8 | static_cast<uint32_t>(c[p]) << 16;
        std::memcpy(out + 3 * p, &pixel, sizeof(pixel));
      }
      for (; p < pixels; ++p) {
        out[3 * p] = a[p];
        out[3 * p + 1] = b[p];
        out[3 * p + 2] = c[p];
      }
      continue;
    }
    for (size_t ch = 0; ch < channels; ++ch) {
      for (size_t p = 0; p < pixels; ++p) out[p * channels + ch] = x[ch * pixels + p];
    }
  }
}

class Product final : public Kernel {
 public:
  Product(const Form& form, unsigned stages) : form_(form), chosen_(stages) {}

  void read(Node& node) override {
    read_shape(node);
    if (!node.ok()) return;
    const Tensor bias = node.constant(2, "bias");
    if (node.ok() && bias.shape.count() != spec_.outputs) {
      node.fail("bias has %zu elements, not one for each of %zu outputs", bias.shape.count(), spec_.outputs);
    }
    ColumnInputs columns = {spec_.outputs, spec_.groups, bias.as<int32_t>(), nullptr, nullptr, true, spec_.x_zero_point};
    if (chosen_ != accumulate) read_stages(node, &columns);
    if (!node.ok()) return;
    Buffer taps;  // depthwise weights are read once
    if (form_.is_depthwise && form_.bits < 8 && !unpack_taps(taps)) {
      node.fail("out of memory");
      return;
    }
    const char* wrong = form_.is_depthwise ? depthwise_.prepare(spec_, columns) : conv_.prepare(spec_, columns);
    if (wrong) node.fail("%s", wrong);
  }

  bool run(Call& call) const override {
    const Tensor x = call.input(0, "x");
    if (!call.ok()) return false;
    Shape out;
    Image image;
    if (!(form_.is_gemm ? find_rows(call, x.shape, &out, &image) : find_image(call, x.shape, &out, &image))) {
      return false;
    }
    const void* r = nullptr;
    const int32_t* k = nullptr;
    size_t input = kFirstOptional;
    if (stages_.by_rows && !find_shifts(call, out, input++, &k)) return false;
    if (stages_.add) {
      const Tensor residual = call.input(input++, "r");
      if (!call.ok()) return false;
      if (!same(residual.shape, out)) return call.fail("r must have the shape of the output");
      r = residual.data;
    }
    void* y = call.output(0, out);
    void* q = stages_.again ? call.output(1, out) : nullptr;
    if (!call.ok()) return false;
    const uint8_t* data = x.as<uint8_t>();
    if (form_.is_planar) {
      thread_local Buffer turned;
      uint8_t* room = turned.array<uint8_t>(x.shape.count());
      if (!room) return call.fail("out of memory");
      to_nhwc(data, image.count, spec_.groups * spec_.channels, image.h * image.w, room);
      data = room;
    }
    const Parallel parallel = work(image, out) < kSmall ? serial() : call.parallel();
    const char* wrong = form_.is_depthwise ? depthwise_.run(stages_, image, data, y, r, q, parallel)
                                                : conv_.run(stages_, image, data, y, r, q, parallel, k);
    return wrong ? call.fail("%s", wrong) : true;
  }

 private:
  static constexpr size_t kSmall = 1 << 16;  // products below which a second thread costs more than it brings
  static constexpr size_t kFirstOptional = 5;  // input

  size_t work(const Image&, const Shape& out) const {
    return out.count() * (form_.is_depthwise ? spec_.window.h * spec_.window.w : spec_.depth());
  }

  static bool same(const Shape& a, const Shape& b) {
    return a.rank == b.rank && std::memcmp(a.dims, b.dims, a.rank * sizeof(a.dims[0])) == 0;
  }

  void read_shape(Node& node) {
    spec_.x_zero_point = node.zero_point("x_zero_point", Type::u8);
    const Tensor w = node.constant(1, "w");
    const Text layout = node.text("layout");
    if (!node.ok()) return;
    if (std::strcmp(layout.value, form_.layout) != 0) {
      node.fail("w is laid out as '%s', this library reads '%s'", layout.value, form_.layout);
      return;
    }
    form_.is_gemm ? read_matrix(node, w) : read_window(node, w);
    spec_.packed = w.data;
    spec_.packing.bits = form_.bits;
    spec_.packing.zeros = form_.zeros;
    pages_.hold(w.data, w.shape.count());
  }

  void read_matrix(Node& node, const Tensor& w) {
    const Integers shape = node.integers("w_shape", 2, 1, kMost);
    if (!node.ok()) return;
    spec_.channels = static_cast<size_t>(shape[0]);
    spec_.outputs = static_cast<size_t>(shape[1]);
    check_packed(node, w);
  }

  void read_window(Node& node, const Tensor& w) {
    const Integers shape = node.integers("w_shape", 4, 1, kMost);
    const int64_t groups = node.integer("group", 1, kMost);
    const Integers strides = node.integers_or("strides", 2, 1, 1, kMost), pads = node.integers_or("pads", 4, 0, 0, kMost);
    const Integers dilations = node.integers_or("dilations", 2, 1, 1, kMost);
    if (!node.ok()) return;
    if (shape[1] * shape[2] > kMost || shape[1] * shape[2] * shape[3] > kMost) {
      node.fail("attribute 'w_shape' has more weights an output than this library can count");
      return;
    }
    const auto size = [](int64_t n) { return static_cast<size_t>(n); };
    spec_.outputs = size(shape[0]);
    spec_.channels = size(shape[1]);
    spec_.groups = size(groups);
    spec_.window = {size(shape[2]), size(shape[3]), size(strides[0]), size(strides[1]),   size(pads[0]),
                    size(pads[1]),  size(pads[2]),  size(pads[3]),    size(dilations[0]), size(dilations[1])};
    if (spec_.outputs % spec_.groups) {
      node.fail("%zu outputs do not divide into %zu groups", spec_.outputs, spec_.groups);
    } else if (form_.is_depthwise) {
      check_taps(node, w);
    } else {
      check_packed(node, w);
    }
  }

  void check_taps(Node& node, const Tensor& w) const {
    const size_t taps = spec_.window.h * spec_.window.w;
    if (spec_.groups != spec_.outputs || spec_.channels != 1) {
      node.fail("a depthwise convolution has one channel and one output a group");
    } else if (w.shape.rank != 2 || w.shape.size(0) != taps || w.shape.size(1) != taps_bytes()) {
      node.fail("w must be [%zu, %zu] for its w_shape", taps, taps_bytes());
    }
  }

  // Of the channels of a tap.
  size_t taps_bytes() const { return (spec_.outputs * static_cast<size_t>(form_.bits) + 7) / 8; }

  bool unpack_taps(Buffer& room) {
    const size_t taps = spec_.window.h * spec_.window.w, row = taps_bytes();
    int8_t* unpacked = room.array<int8_t>(taps * spec_.outputs);
    if (!unpacked) return false;
    const uint8_t* packed = static_cast<const uint8_t*>(spec_.packed);
    for (size_t tap = 0; tap < taps; ++tap) {
      for (size_t ch = 0; ch < spec_.outputs; ++ch) {
        unpacked[tap * spec_.outputs + ch] = weight_at(packed + tap * row, ch, form_.bits);
      }
    }
    spec_.packed = unpacked;
    return true;
  }

  void check_packed(Node& node, const Tensor& w) {
    if (form_.has_blocks) return read_blocks(node, w);
    if (form_.zeros != Zeros::none) return check_kept(node, w);
    const size_t rows = Packing{form_.bits}.panel_bytes(spec_.k4()) / kStepBytes;
    const size_t wanted[5] = {spec_.groups, panels(), rows, kPanel, 4};
    bool fits = w.shape.rank == 5;
    for (size_t i = 0; fits && i < 5; ++i) fits = w.shape.size(i) == wanted[i];
    if (!fits) node.fail("w must be [%zu, %zu, %zu, 16, 4] for its w_shape", wanted[0], wanted[1], wanted[2]);
  }

  void check_kept(Node& node, const Tensor& w) const {
    const Packing packing = {form_.bits, 0, form_.zeros};
    const size_t row = form_.zeros == Zeros::of_columns ? packing.chunk_bytes() : kStepBytes;
    const size_t wanted[4] = {spec_.groups, panels(), packing.panel_bytes(spec_.k4()) / row, row};
    bool fits = w.shape.rank == 4;
    for (size_t i = 0; fits && i < 4; ++i) fits = w.shape.size(i) == wanted[i];
    if (!fits) node.fail("w must be [%zu, %zu, %zu, %zu] for its w_shape", wanted[0], wanted[1], wanted[2], wanted[3]);
  }

  void read_blocks(Node& node, const Tensor& w) {
    const size_t bytes = w.shape.rank == 4 ? w.shape.size(3) : 0;
    const size_t rows = bytes > kMultiplierBytes ? (bytes - kMultiplierBytes) / kStepBytes : 0;
    if (!rows || bytes != kMultiplierBytes + rows * kStepBytes) {
      node.fail("w must be [groups, panels, blocks, 16 + 64 * rows]");
      return;
    }
    const size_t block = 2 * rows, wanted[3] = {spec_.groups, panels(), (spec_.k4() + block - 1) / block};
    bool fits = true;
    for (size_t i = 0; fits && i < 3; ++i) fits = w.shape.size(i) == wanted[i];
    if (!fits) {
      node.fail("w must be [%zu, %zu, %zu, %zu] for its w_shape", wanted[0], wanted[1], wanted[2], bytes);
      return;
    }
    spec_.packing.block = block;
  }

  size_t panels() const { return (spec_.outputs / spec_.groups + kPanel - 1) / kPanel; }

  void read_stages(Node& node, ColumnInputs* columns) {
    const Tensor b = node.constant(3, "b"), c = node.constant(4, "c");
    node.check_dyadic(b, c);
    stages_.first = node.small_output();
    if (!node.ok()) return;
    const size_t count = b.shape.count();
    if (count != c.shape.count() || (count != 1 && count != spec_.outputs)) {
      node.fail("b has %zu and c %zu elements, not one or %zu", count, c.shape.count(), spec_.outputs);
      return;
    }
    columns->b = b.as<int32_t>();
    columns->c = c.as<int32_t>();
    columns->one_ratio = count == 1;
    for (size_t i = 0; i < count; ++i) {
      if (columns->c[i] < least_c_) least_c_ = columns->c[i];
    }
    stages_.by_rows = (chosen_ & by_rows) != 0;
    if (stages_.by_rows) columns->spare = kMostRowShift;
    Output last = stages_.first;
    size_t input = kFirstOptional + stages_.by_rows;
    if (chosen_ & add_stage) last = read_add(node, input++);
    if (chosen_ & table_stage) last.type = read_table(node, input++, last.type);
    if (chosen_ & rescale_stage) read_rescale(node, input);
    if (chosen_ & again_stage) read_again(node, input, last);
  }

  Output read_add(Node& node, size_t input) {
    add_.r_type = node.type(input);
    add_.t_zero_point = stages_.first.zero_point;
    add_.r_zero_point = node.zero_point("add_y_zero_point", add_.r_type);
    add_.t_multiplier = node.signed_multiplier("add_x_multiplier");
    add_.r_multiplier = node.signed_multiplier("add_y_multiplier");
    add_.shift = node.shift("add_shift");
    add_.out = node.small_output("add_");
    if (!node.ok()) return add_.out;
    if (stages_.first.type == Type::s32) node.fail("a 32-bit value cannot be added");
    find_ways(farthest(stages_.first.low, stages_.first.high, add_.t_zero_point),
              farthest(lowest(add_.r_type), highest(add_.r_type), add_.r_zero_point), &add_);
    stages_.add = &add_;
    return add_.out;
  }

  Type read_table(Node& node, size_t input, Type index) {
    const Tensor table = node.constant(input, "table");
    if (node.ok() && (table.shape.rank != 1 || table.shape.size(0) != 256)) node.fail("table must have 256 entries");
    if (node.ok() && index != Type::u8 && index != Type::s8) node.fail("a table is read by 8-bit values");
    table_ = {node.type(input), table.data};
    stages_.table = &table_;
    return table_.type;
  }

  // Behind a table of words.
  void read_rescale(Node& node, size_t input) {
    const Tensor b = node.constant(input, "rescale_b"), c = node.constant(input + 1, "rescale_c");
    rescale_.x_zero_point = node.zero_point("rescale_x_zero_point", Type::s16);
    rescale_.out = node.small_output("rescale_");
    node.check_dyadic(b, c);
    if (!node.ok()) return;
    const size_t count = b.shape.count(), padded = (spec_.outputs + kPanel - 1) / kPanel * kPanel;
    if (count != c.shape.count() || (count != 1 && count != spec_.outputs)) {
      node.fail("rescale_b has %zu and rescale_c %zu elements, not one or %zu", count, c.shape.count(), spec_.outputs);
      return;
    }
    int32_t* room = numbers_.array<int32_t>(6 * padded);
    if (!room) {
      node.fail("out of memory");
      return;
    }
    bool scales = !rescale_.x_zero_point && fits_zero_point(rescale_.out);
    for (size_t i = 0; i < padded; ++i) {
      const size_t from = count == 1 ? 0 : i < count ? i : count - 1;
      const int32_t numbers[2] = {b.as<int32_t>()[from], c.as<int32_t>()[from]};
      room[i] = numbers[0];
      room[padded + i] = numbers[1];
      scales = scales && put_scale(numbers[0], numbers[1], room + 2 * padded + i, padded);
    }
    rescale_.b = room;
    rescale_.c = room + padded;
    for (size_t i = 0; scales && i < 4; ++i) rescale_.scale[i] = room + (2 + i) * padded;
    stages_.rescale = &rescale_;
  }

  void read_again(Node& node, size_t input, const Output& last) {
    const Tensor b = node.constant(input, "q_b"), c = node.constant(input + 1, "q_c");
    node.check_dyadic(b, c);
    again_.x_zero_point = node.zero_point("q_x_zero_point", last.type);
    again_.out = node.small_output("q_");
    if (!node.ok()) return;
    if (last.type == Type::s32 && again_.x_zero_point) {
      node.fail("attribute 'q_x_zero_point' of a 32-bit value is %d, not 0", again_.x_zero_point);
      return;
    }
    if (b.shape.count() != 1 || c.shape.count() != 1) {
      node.fail("q_b and q_c must have one element");
      return;
    }
    const int64_t most = farthest(lowest(last.type), highest(last.type), again_.x_zero_point);
    again_.ratio = find_ratio(most, *b.as<int32_t>(), *c.as<int32_t>());
    stages_.again = &again_;
  }

  static int64_t farthest(int64_t low, int64_t high, int64_t zero_point) {
    const int64_t below = zero_point - low, above = high - zero_point;
    const int64_t a = below < 0 ? -below : below, b = above < 0 ? -above : above;
    return a > b ? a : b;
  }

  // k of every row, from 0, which leaves c - k of at least 2.
  bool find_shifts(Call& call, const Shape& out, size_t input, const int32_t** found) const {
    const Tensor k = call.input(input, "k");
    if (!call.ok()) return false;
    Shape wanted = out;
    wanted.dims[out.rank - 1] = 1;
    if (!same(k.shape, wanted)) return call.fail("k must have one element for each row of x");
    *found = k.as<int32_t>();
    for (size_t i = 0; i < k.shape.count(); ++i) {
      const int32_t most = least_c_ - kMinShift;
      if ((*found)[i] < 0 || (*found)[i] > most) return call.fail("k is %d, not from 0 to %d", (*found)[i], most);
    }
    return true;
  }

  bool find_rows(Call& call, const Shape& x, Shape* out, Image* image) const {
    if (!x.rank) return call.fail("x must have at least one axis");
    if (x.size(x.rank - 1) != spec_.channels) {
      return call.fail("x has %zu elements along k, w has %zu", x.size(x.rank - 1), spec_.channels);
    }
    *out = x;
    out->dims[x.rank - 1] = static_cast<int64_t>(spec_.outputs);
    *image = {1, 1, x.count(0, x.rank - 1)};
    return true;
  }

  bool find_image(Call& call, const Shape& x, Shape* out, Image* image) const {
    if (x.rank != 4) return call.fail("x must have 4 axes, it has %zu", x.rank);
    const bool planar = form_.is_planar;
    const size_t channels = x.size(planar ? 1 : 3), wanted = spec_.groups * spec_.channels;
    if (channels != wanted) return call.fail("x has %zu channels, w has %zu", channels, wanted);
    const Window& v = spec_.window;
    *image = {x.size(0), x.size(planar ? 2 : 1), x.size(planar ? 3 : 2)};
    const size_t h = positions(image->h, v.h, v.stride_h, v.pad_top, v.pad_bottom, v.dilation_h);
    const size_t w = positions(image->w, v.w, v.stride_w, v.pad_left, v.pad_right, v.dilation_w);
    if (!h || !w) return call.fail("x of %zu by %zu is smaller than the kernel", image->h, image->w);
    out->rank = 4;
    const size_t dims[4] = {image->count, h, w, spec_.outputs};
    for (size_t i = 0; i < 4; ++i) out->dims[i] = static_cast<int64_t>(dims[i]);
    return true;
  }

  const Form form_;
  const unsigned chosen_;
  ConvSpec spec_;
  LargePages pages_;
  int32_t least_c_ = kMaxShift;
  Stages stages_ = {};
  AddStage add_ = {};
  TableStage table_ = {};
  RescaleStage rescale_ = {};
  Buffer numbers_;
  AgainStage again_ = {};
  Conv conv_;
  Depthwise depthwise_;
};

template <Base BASE, unsigned STAGES>
Kernel* make_product() {
  return new (std::nothrow) Product(kForms[BASE], STAGES);
}

void say(const Inference& inference, const OpenShape& out, size_t outputs) {
  for (size_t i = 0; i < outputs; ++i) inference.output(i, out);
}

template <size_t OUTPUTS>
void infer_rows(const Inference& inference) {
  int64_t shape[kMaxRank];
  OpenShape out = inference.input(0);
  if (!out.known || !out.rank || inference.integers("w_shape", shape) != 2) return;
  out.dims[out.rank - 1] = {shape[1], nullptr};
  say(inference, out, OUTPUTS);
}

template <bool PLANAR, size_t OUTPUTS>
void infer_image(const Inference& inference) {
  int64_t shape[kMaxRank], strides[kMaxRank] = {1, 1}, pads[kMaxRank] = {}, dilations[kMaxRank] = {1, 1};
  const OpenShape x = inference.input(0);
  if (!x.known || x.rank != 4 || inference.integers("w_shape", shape) != 4) return;
  inference.integers("strides", strides);
  inference.integers("pads", pads);
  inference.integers("dilations", dilations);
  OpenShape out;
  out.known = true;
  out.rank = 4;
  out.dims[0] = x.dims[0];
  out.dims[3] = {shape[0], nullptr};
  for (size_t i = 0; i < 2; ++i) {
    const int64_t size = x.dims[i + (PLANAR ? 2 : 1)].size;
    const int64_t span = (shape[i + 2] - 1) * dilations[i] + 1, padded = size + pads[i] + pads[i + 2];
    if (size > 0 && strides[i] > 0 && padded >= span) out.dims[i + 1] = {(padded - span) / strides[i] + 1, nullptr};
  }
  say(inference, out, OUTPUTS);
}

template <Base BASE, size_t OUTPUTS>
constexpr void (*infer_of())(const Inference&) {
  if (kForms[BASE].is_gemm) return infer_rows<OUTPUTS>;
  return infer_image<kForms[BASE].is_planar, OUTPUTS>;
}

template <Base BASE>
constexpr Types weight_type() {
  return kForms[BASE].bits == 8 && kForms[BASE].zeros == Zeros::none ? S8 : U8;
}

constexpr Types kResidual = U8 | S8 | S16, kTable = U8 | S8 | S16;

constexpr OutputType y_type(unsigned stages) {
  if (stages & rescale_stage) return said_by("rescale_dtype");
  return said_by(stages & table_stage ? "table_dtype" : stages & add_stage ? "add_dtype" : "dtype");
}

template <Base BASE, unsigned STAGES>
constexpr Operator fused(const char* name) {
  constexpr size_t outputs = STAGES & again_stage ? 2 : 1;
  Operator row = {name,    make_product<BASE, STAGES>, 5, {U8, weight_type<BASE>(), S32, S32, S32}, outputs, {y_type(STAGES), said_by("q_dtype")},
                  infer_of<BASE, outputs>()};
  if (STAGES & by_rows) row.types[row.inputs++] = S32;
  if (STAGES & add_stage) row.types[row.inputs++] = kResidual;
  if (STAGES & table_stage) row.types[row.inputs++] = STAGES & rescale_stage ? S16 : kTable;
  if (STAGES & (again_stage | rescale_stage)) {
    row.types[row.inputs++] = S32;
    row.types[row.inputs++] = S32;
  }
  return row;
}

template <Base BASE>
constexpr Operator accumulator(const char* name) {
  return {name, make_product<BASE, accumulate>, 3, {U8, weight_type<BASE>(), S32}, 1, {always(Type::s32)}, infer_of<BASE, 1>()};
}

#define MULSHIFT_PRODUCTS(BASE, NAME)                                                                 \
  fused<BASE, 0>(NAME), fused<BASE, 1>(NAME "Add"), fused<BASE, 2>(NAME "Table"),                     \
      fused<BASE, 3>(NAME "AddTable"), fused<BASE, 4>(NAME "Requantize"), fused<BASE, 5>(NAME "AddRequantize"), \
      fused<BASE, 6>(NAME "TableRequantize"), fused<BASE, 7>(NAME "AddTableRequantize"),              \
      accumulator<BASE>(NAME "Accumulate")
#define MULSHIFT_ROWS(BASE, NAME)                                                                                      \
  fused<BASE, 16>(NAME "Rows"), fused<BASE, 17>(NAME "RowsAdd"), fused<BASE, 18>(NAME "RowsTable"),                    \
      fused<BASE, 19>(NAME "RowsAddTable"), fused<BASE, 20>(NAME "RowsRequantize"),                                    \
      fused<BASE, 21>(NAME "RowsAddRequantize"), fused<BASE, 22>(NAME "RowsTableRequantize"),                          \
      fused<BASE, 23>(NAME "RowsAddTableRequantize")

}  // namespace

const Operator products[kProducts] = {
    MULSHIFT_PRODUCTS(conv_nhwc, "ConvNhwc"), MULSHIFT_PRODUCTS(conv_from_nchw, "ConvFromNchw"),
    MULSHIFT_PRODUCTS(depthwise_nhwc, "DepthwiseNhwc"), MULSHIFT_PRODUCTS(gemm_packed, "GemmPacked"),
    MULSHIFT_PRODUCTS(conv_nhwc_int4, "ConvNhwcInt4"), MULSHIFT_PRODUCTS(conv_nhwc_int2, "ConvNhwcInt2"),
    MULSHIFT_PRODUCTS(conv_nhwc_int1, "ConvNhwcInt1"), MULSHIFT_PRODUCTS(gemm_packed_int4, "GemmPackedInt4"),
    MULSHIFT_PRODUCTS(gemm_packed_int2, "GemmPackedInt2"), MULSHIFT_PRODUCTS(gemm_packed_int1, "GemmPackedInt1"),
    MULSHIFT_PRODUCTS(conv_nhwc_int4_blocks, "ConvNhwcInt4Blocks"),
    MULSHIFT_PRODUCTS(gemm_packed_int4_blocks, "GemmPackedInt4Blocks"),
    MULSHIFT_PRODUCTS(conv_from_nchw_int4, "ConvFromNchwInt4"), MULSHIFT_PRODUCTS(conv_from_nchw_int2, "ConvFromNchwInt2"),
    MULSHIFT_PRODUCTS(conv_from_nchw_int1, "ConvFromNchwInt1"),
    MULSHIFT_PRODUCTS(conv_from_nchw_int4_blocks, "ConvFromNchwInt4Blocks"),
    MULSHIFT_PRODUCTS(depthwise_nhwc_int4, "DepthwiseNhwcInt4"),
    MULSHIFT_PRODUCTS(depthwise_nhwc_int2, "DepthwiseNhwcInt2"),
    MULSHIFT_PRODUCTS(depthwise_nhwc_int1, "DepthwiseNhwcInt1"),
    MULSHIFT_PRODUCTS(conv_nhwc_sparse, "ConvNhwcSparse"), MULSHIFT_PRODUCTS(conv_nhwc_sparse_int4, "ConvNhwcSparseInt4"),
    MULSHIFT_PRODUCTS(conv_nhwc_shared, "ConvNhwcShared"), MULSHIFT_PRODUCTS(conv_nhwc_shared_int4, "ConvNhwcSharedInt4"),
    MULSHIFT_PRODUCTS(gemm_packed_sparse, "GemmPackedSparse"), MULSHIFT_PRODUCTS(gemm_packed_sparse_int4, "GemmPackedSparseInt4"),
    MULSHIFT_PRODUCTS(gemm_packed_shared, "GemmPackedShared"), MULSHIFT_PRODUCTS(gemm_packed_shared_int4, "GemmPackedSharedInt4"),
    fused<gemm_packed, 34>("GemmPackedTableRescale"), MULSHIFT_ROWS(gemm_packed, "GemmPacked"), MULSHIFT_ROWS(gemm_packed_int4, "GemmPackedInt4"),
    MULSHIFT_ROWS(gemm_packed_int2, "GemmPackedInt2"), MULSHIFT_ROWS(gemm_packed_int1, "GemmPackedInt1"),
    MULSHIFT_ROWS(gemm_packed_int4_blocks, "GemmPackedInt4Blocks"), MULSHIFT_ROWS(gemm_packed_sparse, "GemmPackedSparse"),
    MULSHIFT_ROWS(gemm_packed_sparse_int4, "GemmPackedSparseInt4"), MULSHIFT_ROWS(gemm_packed_shared, "GemmPackedShared"),
    MULSHIFT_ROWS(gemm_packed_shared_int4, "GemmPackedSharedInt4")};

}  // namespace ort
}  // namespace mulshift
