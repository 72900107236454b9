#include "elementwise.h"

namespace mulshift {
namespace ort {

int64_t farthest(Type type, int32_t zero_point) {
  const int64_t below = zero_point - lowest(type), above = highest(type) - zero_point;
  return below > above ? below : above;
}

bool is_narrow(int64_t bound, int64_t b, int64_t c, const Output& out) {
  constexpr int64_t limit = int64_t{1} << 31, z_limit = int64_t{1} << 30;
  if (c > 31 || bound >= limit || out.zero_point <= -z_limit || out.zero_point >= z_limit) return false;
  return bound * b + (int64_t{1} << (c - 1)) < limit;
}

bool is_narrow(int64_t bound, const Tensor& b, const Tensor& c, const Output& out) {
  const size_t bs = b.shape.count(), cs = c.shape.count();
  if (bs == cs) {
    for (size_t i = 0; i < bs; ++i) {
      if (!is_narrow(bound, b.as<int32_t>()[i], c.as<int32_t>()[i], out)) return false;
    }
    return true;
  }
  int64_t most_b = 0, most_c = kMinShift;
  for (size_t i = 0; i < bs; ++i) most_b = b.as<int32_t>()[i] > most_b ? b.as<int32_t>()[i] : most_b;
  for (size_t i = 0; i < cs; ++i) most_c = c.as<int32_t>()[i] > most_c ? c.as<int32_t>()[i] : most_c;
  return is_narrow(bound, most_b, most_c, out);
}

bool check_dyadic(Call& call, const Tensor& b, const Tensor& c) {
  const char* wrong = wrong_dyadic(b.as<int32_t>(), b.shape.count(), c.as<int32_t>(), c.shape.count());
  return wrong ? call.fail("%s", wrong) : true;
}

void infer_with_constants(const Inference& inference) {
  OpenShape made = inference.input(0);
  for (size_t i = 1; i < inference.inputs(); ++i) {
    const OpenShape other = inference.input(i);
    if (other.known) made = broadcast(made, other);
  }
  inference.output(0, made);
}

void infer_of_two(const Inference& inference) {
  inference.output(0, broadcast(inference.input(0), inference.input(1)));
}

}  // namespace ort
}  // namespace mulshift
