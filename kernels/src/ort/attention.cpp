// Attention(q, k, v) -> y and MaskedAttention(q, k, v, mask) -> y: scaled dot-product attention, scores in integers.
// FlatAttention and FlatMaskedAttention: the same of [B, tokens, heads * depth].
#include "../attention.h"

#include "operator.h"
#include "serial.h"

namespace mulshift {
namespace ort {
namespace {

constexpr int32_t kMostShift = 38, kOctaves = 9;
constexpr int64_t kMostColumns = INT32_MAX;  // that inference says

class AttentionKernel final : public Kernel {
 public:
  AttentionKernel(bool masked, bool flat) : masked_(masked), flat_(flat) {}

  void read(Node& node) override {
    spec_.q_zero_point = node.zero_point("q_zero_point", Type::u8);
    spec_.k_zero_point = node.zero_point("k_zero_point", Type::s8);
    spec_.v_zero_point = node.zero_point("v_zero_point", Type::s8);
    const int32_t b = node.multiplier("score_multiplier"), c = node.shift("score_shift");
    spec_.multiplier = node.multiplier("multiplier");
    spec_.shift = node.s32("shift", kMinShift, kMostShift);
    spec_.out = node.small_output();
    if (flat_) {
      heads_ = node.integer("heads", 1, kMostHeads);
      groups_ = node.integer("groups", 1, kMostHeads);
    }
    if (node.ok()) spec_.exponent = Exponent(b, c, kOctaves);
  }

  bool run(Call& call) const override {
    Tensor q = call.input(0, "q"), k = call.input(1, "k"), v = call.input(2, "v");
    AttentionShape shape;
    if (!call.ok() || (flat_ && !split_heads(call, &q, &k, &v))) return false;
    if (!find_shape(call, q.shape, k.shape, v.shape, &shape)) return false;
    Mask mask;
    if (masked_ && !find_mask(call, shape, &mask)) return false;
    Shape out = q.shape;
    if (flat_) {
      out.rank = 3;
      out.dims[2] = heads_ * v.shape.dims[3];
    } else {
      out.dims[3] = v.shape.dims[3];
    }
    void* y = call.output(0, out);
    if (!y) return false;
    const size_t products = shape.batch * shape.heads * shape.rows * shape.keys * (shape.depth + shape.width);
    const Parallel parallel = products < kSmall ? serial() : call.parallel();
    const char* wrong = attention(spec_, shape, q.as<uint8_t>(), k.as<int8_t>(), v.as<int8_t>(), mask, y, parallel);
    return wrong ? call.fail("%s", wrong) : true;
  }

 private:
  static constexpr size_t kSmall = 1 << 16;  // products below which a second thread costs more than it brings

  // The same tensors with an axis of heads.
  bool split_heads(Call& call, Tensor* q, Tensor* k, Tensor* v) const {
    Tensor* tensors[] = {q, k, v};
    const char* names[] = {"q", "k", "v"};
    for (size_t i = 0; i < 3; ++i) {
      Shape& shape = tensors[i]->shape;
      const int64_t heads = i ? groups_ : heads_;
      if (shape.rank != 3) return call.fail("%s must have 3 axes, it has %zu", names[i], shape.rank);
      if (shape.dims[2] % heads) {
        return call.fail("%s has %zu columns, which do not divide into %zu heads", names[i], shape.size(2), static_cast<size_t>(heads));
      }
      shape.rank = 4;
      shape.dims[3] = shape.dims[2] / heads;
      shape.dims[2] = heads;
    }
    return true;
  }

  static bool find_shape(Call& call, const Shape& q, const Shape& k, const Shape& v, AttentionShape* shape) {
    const Shape* shapes[] = {&q, &k, &v};
    const char* names[] = {"q", "k", "v"};
    for (size_t i = 0; i < 3; ++i) {
      if (shapes[i]->rank != 4) return call.fail("%s must have 4 axes, it has %zu", names[i], shapes[i]->rank);
    }
    *shape = {q.size(0), q.size(1), k.size(1), q.size(2), k.size(2), q.size(3), v.size(3)};
    if (k.size(0) != q.size(0) || v.size(0) != q.size(0)) return call.fail("q, k and v differ in their batch");
    if (v.size(1) != k.size(1)) return call.fail("k has %zu keys, v has %zu", k.size(1), v.size(1));
    if (v.size(2) != k.size(2)) return call.fail("k has %zu heads, v has %zu", k.size(2), v.size(2));
    if (k.size(3) != q.size(3)) return call.fail("q has %zu elements a head, k has %zu", q.size(3), k.size(3));
    if (!shape->groups || shape->heads % shape->groups) {
      return call.fail("%zu heads of q do not divide into %zu of k", shape->heads, shape->groups);
    }
    return true;
  }

  static bool find_mask(Call& call, const AttentionShape& shape, Mask* mask) {
    const Tensor given = call.input(3, "mask");
    if (!call.ok()) return false;
    const size_t wanted[4] = {shape.batch, shape.heads, shape.rows, shape.keys};
    size_t* strides[4] = {&mask->batch, &mask->head, &mask->row, &mask->key};
    if (given.shape.rank > 4) return call.fail("mask has %zu axes, more than 4", given.shape.rank);
    size_t step = 1;
    for (size_t i = 0; i < given.shape.rank; ++i) {  // from the last axis on
      const size_t size = given.shape.size(given.shape.rank - 1 - i), axis = 3 - i;
      if (size != 1 && size != wanted[axis]) return call.fail("mask does not broadcast to the scores");
      if (size != 1) *strides[axis] = step;
      step *= size;
    }
    mask->data = given.as<uint8_t>();
    return true;
  }

  static constexpr int64_t kMostHeads = INT32_MAX;

  const bool masked_, flat_;
  int64_t heads_ = 1, groups_ = 1;
  AttentionSpec spec_ = {};
};

template <bool MASKED, bool FLAT>
Kernel* make_one() {
  return new (std::nothrow) AttentionKernel(MASKED, FLAT);
}

}  // namespace

Kernel* make_attention() { return make_one<false, false>(); }
Kernel* make_masked_attention() { return make_one<true, false>(); }
Kernel* make_flat_attention() { return make_one<false, true>(); }
Kernel* make_flat_masked_attention() { return make_one<true, true>(); }

void infer_attention(const Inference& inference) {
  OpenShape made = inference.input(0);
  const OpenShape v = inference.input(2);
  if (!made.known || !v.known || made.rank != 4 || v.rank != 4) return;
  made.dims[3] = v.dims[3];
  inference.output(0, made);
}

void infer_flat_attention(const Inference& inference) {
  OpenShape made = inference.input(0);
  const OpenShape v = inference.input(2);
  const int64_t heads = inference.integer("heads", 0), groups = inference.integer("groups", 0);
  if (!made.known || !v.known || made.rank != 3 || v.rank != 3) return;
  made.dims[2] = {};
  if (heads > 0 && groups > 0 && v.dims[2].size > 0 && v.dims[2].size / groups <= kMostColumns / heads) {
    made.dims[2].size = v.dims[2].size / groups * heads;
  }
  inference.output(0, made);
}

}  // namespace ort
}  // namespace mulshift
