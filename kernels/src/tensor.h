// What kernels are told about tensors: element types, a rescaling, and how to run tasks in parallel.
#ifndef MULSHIFT_SRC_TENSOR_H
#define MULSHIFT_SRC_TENSOR_H

#include <cstddef>
#include <cstdint>

namespace mulshift {

// Element types by their ONNX codes (TensorProto.DataType).
enum class Type : int32_t { none = 0, u8 = 2, s8 = 3, s16 = 5, s32 = 6, s64 = 7, boolean = 9 };

inline size_t size_of(Type type) {
  switch (type) {
    case Type::u8:
    case Type::s8:
    case Type::boolean:
      return 1;
    case Type::s16:
      return 2;
    case Type::s32:
      return 4;
    case Type::s64:
      return 8;
    case Type::none:
      break;
  }
  return 0;
}

// The end of an integer operator: y = clamp(rounded + zero_point, low, high), stored as `type`.
struct Output {
  int32_t zero_point = 0, low = 0, high = 0;
  Type type = Type::none;
};

// Runs task(data, i) for i in [0, count), in any order and on any thread, and returns when all are done.
struct Parallel {
  void (*run)(const void* self, size_t count, void (*task)(void* data, size_t i), void* data);
  const void* self;
  int threads = 1;  // how many may run at once, to choose the size of a task
};

}  // namespace mulshift

#endif
