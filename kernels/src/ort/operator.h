// What one operator is to ONNX Runtime: a row of the table in operators.cpp, and the kernel that the row makes for a
// node.
#ifndef MULSHIFT_SRC_ORT_OPERATOR_H
#define MULSHIFT_SRC_ORT_OPERATOR_H

#include <new>

#include "call.h"
#include "inference.h"
#include "node.h"

namespace mulshift {
namespace ort {

constexpr size_t kMaxInputs = 10, kMaxOutputs = 2, kNameLength = 1024;

// A node of a session. It is run by several threads at once, so running it changes nothing in it.
class Kernel {
 public:
  virtual ~Kernel() = default;

  // Takes what is needed of the node; wrong nodes are reported to it.
  virtual void read(Node& node) = 0;

  // False after a report to `call`.
  virtual bool run(Call& call) const = 0;

  char name[kNameLength];
  const void* api;
};

template <class K>
Kernel* make() {
  return new (std::nothrow) K;
}

// A set of element types.
using Types = uint32_t;
constexpr Types only(Type type) { return Types{1} << static_cast<int>(type); }
constexpr Types U8 = only(Type::u8), S8 = only(Type::s8), S16 = only(Type::s16), S32 = only(Type::s32),
                S64 = only(Type::s64), BOOL = only(Type::boolean);

// The element type of an output.
struct OutputType {
  const char* attribute;  // the attribute that says it, or null
  int input;              // the input that has it too, or -1
  Type type;              // if neither
};
constexpr OutputType said_by(const char* attribute) { return {attribute, -1, Type::none}; }
constexpr OutputType as_input(int input) { return {nullptr, input, Type::none}; }
constexpr OutputType always(Type type) { return {nullptr, -1, type}; }

struct Operator {
  const char* name;
  Kernel* (*make)();
  size_t inputs;
  Types types[kMaxInputs];  // of each input
  size_t outputs;
  OutputType output_types[kMaxOutputs];
  void (*infer)(const Inference& inference);  // shapes of the outputs
};

// All operators: operators.cpp.
size_t operator_count();
const Operator& operator_at(size_t i);

}  // namespace ort
}  // namespace mulshift

#endif
