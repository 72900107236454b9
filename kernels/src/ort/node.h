// A node while its kernel is made: attributes, constants, types.
//
// What is asked for and wrong is an error that names the node. Reading goes on after one, with harmless values: look at
// `ok()` before these are used, for the kernel is dropped in the end.
#ifndef MULSHIFT_SRC_ORT_NODE_H
#define MULSHIFT_SRC_ORT_NODE_H

#include "message.h"
#include "tensor.h"

namespace mulshift {
namespace ort {

struct Integers {
  size_t count = 0;
  int64_t values[kMaxRank] = {};

  int64_t operator[](size_t i) const { return values[i]; }
};

struct Text {
  char value[64] = {};
};

constexpr int64_t kAnyS32Low = INT32_MIN, kAnyS32High = INT32_MAX;
constexpr int32_t kMinShift = 2, kMaxShift = 62;

class Node {
 public:
  Node(const void* api, const KernelInfo* info, const char* op, const Type* inputs, const char* name)
      : message_(name), api_(api), info_(info), op_(op), inputs_(inputs) {}

  const char* op() const { return op_; }
  Type type(size_t input) const { return inputs_[input]; }

  bool ok() const { return message_.empty(); }
  const char* message() const { return message_.text(); }
  // Records what is wrong, printf-style, and returns false.
#if defined(__GNUC__)
  __attribute__((format(printf, 2, 3)))
#endif
  bool fail(const char* format, ...);

  // An attribute that must be there, from low to high.
  int64_t integer(const char* attribute, int64_t low, int64_t high);
  int32_t s32(const char* attribute, int64_t low = kAnyS32Low, int64_t high = kAnyS32High) {
    return static_cast<int32_t>(integer(attribute, low, high));
  }
  bool flag(const char* attribute) { return integer(attribute, 0, 1) != 0; }
  // One that may be missing.
  int64_t integer_or(const char* attribute, int64_t otherwise, int64_t low, int64_t high);
  // `count` numbers from low to high each; `otherwise` each where the attribute is missing.
  Integers integers_or(const char* attribute, size_t count, int64_t otherwise, int64_t low, int64_t high);
  // `count` numbers that must be there.
  Integers integers(const char* attribute, size_t count, int64_t low, int64_t high);
  // How many numbers an attribute that must be there has, from 1 to kMaxRank.
  size_t count(const char* attribute);
  Text text(const char* attribute);

  // b and c of a dyadic number b / 2^c.
  int32_t multiplier(const char* attribute) { return s32(attribute, 0); }
  // One side of a sum: negative where it is subtracted.
  int32_t signed_multiplier(const char* attribute) { return s32(attribute, -INT32_MAX); }
  int32_t shift(const char* attribute) { return s32(attribute, kMinShift, kMaxShift); }
  // A zero point that an element of that type can hold.
  int32_t zero_point(const char* attribute, Type type);
  // PREFIXzero_point, PREFIXqmin, PREFIXqmax, PREFIXdtype.
  Output output(const char* prefix = "");
  // The same where the zero point is added in 32 bits: an element of its type, and 0 where that has 32 bits itself.
  Output small_output(const char* prefix = "");

  // An input that must be an initializer; it lives as long as the session.
  Tensor constant(size_t input, const char* what);
  // The same, Type::none if the input is computed at run time.
  Tensor constant_or_none(size_t input, const char* what);
  // Constant b and c of any shape: every b from 0, every c from 2 to 62.
  void check_dyadic(const Tensor& b, const Tensor& c);

 private:
  bool find(const char* attribute, int64_t* value);
  bool find(const char* attribute, Integers* values);
  bool absent(const char* attribute);

  Message message_;
  const void* api_;
  const KernelInfo* info_;
  const char* op_;
  const Type* inputs_;
};

// The least and the greatest value of an element type.
int64_t lowest(Type type);
int64_t highest(Type type);

// Null, or what is wrong with them.
const char* wrong_dyadic(const int32_t* b, size_t b_count, const int32_t* c, size_t c_count);

}  // namespace ort
}  // namespace mulshift

#endif
