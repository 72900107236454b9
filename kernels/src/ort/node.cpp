#include "node.h"

#include <cinttypes>

namespace mulshift {
namespace ort {

int64_t lowest(Type type) {
  switch (type) {
    case Type::s8:
      return INT8_MIN;
    case Type::s16:
      return INT16_MIN;
    case Type::s32:
      return INT32_MIN;
    case Type::s64:
      return INT64_MIN;
    default:
      return 0;
  }
}

int64_t highest(Type type) {
  switch (type) {
    case Type::u8:
      return UINT8_MAX;
    case Type::s8:
      return INT8_MAX;
    case Type::s16:
      return INT16_MAX;
    case Type::s32:
      return INT32_MAX;
    case Type::s64:
      return INT64_MAX;
    default:
      return 0;
  }
}

const char* wrong_dyadic(const int32_t* b, size_t b_count, const int32_t* c, size_t c_count) {
  for (size_t i = 0; i < b_count; ++i) {
    if (b[i] < 0) return "a multiplier b is negative";
  }
  for (size_t i = 0; i < c_count; ++i) {
    if (c[i] < kMinShift || c[i] > kMaxShift) return "a shift c is not from 2 to 62";
  }
  return nullptr;
}

bool Node::fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  message_.set(format, arguments);
  va_end(arguments);
  return false;
}

bool Node::find(const char* attribute, int64_t* value) {
  return succeeded(api_, KernelInfoGetAttribute_int64(api_, info_, attribute, value));
}

bool Node::find(const char* attribute, Integers* values) {
  size_t count = 0;
  if (!succeeded(api_, KernelInfoGetAttributeArray_int64(api_, info_, attribute, nullptr, &count))) return false;
  values->count = count;
  if (count > kMaxRank) return true;
  return succeeded(api_, KernelInfoGetAttributeArray_int64(api_, info_, attribute, values->values, &count));
}

// Of the types that this library reads; an attribute of another type is as good as missing.
bool Node::absent(const char* attribute) {
  int64_t value;
  Integers values;
  size_t size = 0;
  return !find(attribute, &value) && !find(attribute, &values) &&
         !succeeded(api_, KernelInfoGetAttribute_string(api_, info_, attribute, nullptr, &size));
}

int64_t Node::integer(const char* attribute, int64_t low, int64_t high) {
  int64_t value = low;
  if (!find(attribute, &value)) {
    fail("attribute '%s' is missing or no integer", attribute);
    return low;
  }
  if (value < low || value > high) {
    fail("attribute '%s' is %" PRId64 ", not from %" PRId64 " to %" PRId64, attribute, value, low, high);
    return low;
  }
  return value;
}

int64_t Node::integer_or(const char* attribute, int64_t otherwise, int64_t low, int64_t high) {
  return absent(attribute) ? otherwise : integer(attribute, low, high);
}

Integers Node::integers(const char* attribute, size_t count, int64_t low, int64_t high) {
  Integers made;
  if (!find(attribute, &made)) fail("attribute '%s' is missing or no list of integers", attribute);
  if (ok() && made.count != count) fail("attribute '%s' has %zu numbers, not %zu", attribute, made.count, count);
  for (size_t i = 0; i < count && ok(); ++i) {
    if (made[i] < low || made[i] > high) {
      fail("attribute '%s' has %" PRId64 ", not from %" PRId64 " to %" PRId64, attribute, made[i], low, high);
    }
  }
  if (ok()) return made;
  Integers harmless;
  harmless.count = count;
  for (int64_t& v : harmless.values) v = low;
  return harmless;
}

Integers Node::integers_or(const char* attribute, size_t count, int64_t otherwise, int64_t low, int64_t high) {
  if (!absent(attribute)) return integers(attribute, count, low, high);
  Integers made;
  made.count = count;
  for (int64_t& v : made.values) v = otherwise;
  return made;
}

size_t Node::count(const char* attribute) {
  Integers made;
  if (!find(attribute, &made)) fail("attribute '%s' is missing or no list of integers", attribute);
  if (made.count >= 1 && made.count <= kMaxRank) return made.count;
  fail("attribute '%s' has %zu numbers, not 1 to %zu", attribute, made.count, kMaxRank);
  return 1;
}

Text Node::text(const char* attribute) {
  Text made;
  size_t size = sizeof(made.value);
  if (!succeeded(api_, KernelInfoGetAttribute_string(api_, info_, attribute, made.value, &size))) {
    fail("attribute '%s' is missing or no short text", attribute);
    made = Text();
  }
  return made;
}

int32_t Node::zero_point(const char* attribute, Type type) { return s32(attribute, lowest(type), highest(type)); }

Output Node::output(const char* prefix) {
  char name[64];
  const auto full = [&](const char* attribute) {
    std::snprintf(name, sizeof(name), "%s%s", prefix, attribute);
    return name;
  };
  Output out;
  out.type = static_cast<Type>(s32(full("dtype")));
  if (out.type != Type::u8 && out.type != Type::s8 && out.type != Type::s16 && out.type != Type::s32) {
    fail("attribute '%s' is %d, no type of u8, s8, s16, s32", name, static_cast<int>(out.type));
    out.type = Type::s32;
  }
  out.zero_point = s32(full("zero_point"));
  out.low = s32(full("qmin"), lowest(out.type), highest(out.type));
  out.high = s32(full("qmax"), lowest(out.type), highest(out.type));
  if (out.low > out.high) fail("qmin %d is above qmax %d", out.low, out.high);
  return out;
}

Output Node::small_output(const char* prefix) {
  const Output out = output(prefix);
  const bool wide = out.type == Type::s32;
  const int64_t low = wide ? 0 : lowest(out.type), high = wide ? 0 : highest(out.type);
  if (ok() && (out.zero_point < low || out.zero_point > high)) {
    fail("attribute '%szero_point' is %d, not from %d to %d", prefix, out.zero_point, static_cast<int>(low),
         static_cast<int>(high));
  }
  return out;
}

Tensor Node::constant_or_none(size_t input, const char* what) {
  Tensor made;
  int is_constant = 0;
  const Value* value = nullptr;
  if (!succeeded(api_, KernelInfoGetConstantInput_tensor(api_, info_, input, &is_constant, &value))) return made;
  if (!is_constant || !value) return made;
  const char* wrong = read(api_, value, &made);
  if (wrong) {
    fail("%s %s", what, wrong);
    return Tensor();
  }
  return made;
}

Tensor Node::constant(size_t input, const char* what) {
  Tensor made = constant_or_none(input, what);
  if (made.type == Type::none) fail("%s must be a constant (an initializer)", what);
  return made;
}

void Node::check_dyadic(const Tensor& b, const Tensor& c) {
  if (!ok()) return;
  const char* wrong =
      wrong_dyadic(b.as<int32_t>(), b.data ? b.shape.count() : 0, c.as<int32_t>(), c.data ? c.shape.count() : 0);
  if (wrong) fail("%s", wrong);
}

}  // namespace ort
}  // namespace mulshift
