#include "tensor.h"

#include <atomic>

namespace mulshift {
namespace ort {

bool succeeded(const void* api, Status* status) {
  if (!status) return true;
  ReleaseStatus(api, status);
  return false;
}

const char* read(const void* api, const TypeAndShape* info, Type* type, Shape* shape) {
  int element = 0;
  if (!succeeded(api, GetTensorElementType(api, info, &element))) return "has no element type";
  *type = static_cast<Type>(element);
  if (!succeeded(api, GetDimensionsCount(api, info, &shape->rank))) return "has no shape";
  if (shape->rank > kMaxRank) return "has more than 8 axes";
  if (!succeeded(api, GetDimensions(api, info, shape->dims, shape->rank))) return "has no shape";
  return nullptr;
}

namespace {

// Sessions are made, by any thread, after their ONNX Runtime was registered.
std::atomic<bool> copies_shapes{false};

const char* read_copy(const void* api, const Value* value, Tensor* tensor) {
  TypeAndShape* info = nullptr;
  if (!succeeded(api, GetTensorTypeAndShape(api, value, &info))) return "is no tensor";
  const char* wrong = read(api, info, &tensor->type, &tensor->shape);
  ReleaseTensorTypeAndShapeInfo(api, info);
  return wrong;
}

const char* read_reference(const void* api, const Value* value, Tensor* tensor) {
  int element = 0;
  const int64_t* dims = nullptr;
  size_t rank = 0;
  if (!succeeded(api, GetTensorElementTypeAndShapeDataReference(api, value, &element, &dims, &rank))) return "is no tensor";
  if (rank > kMaxRank) return "has more than 8 axes";
  tensor->type = static_cast<Type>(element);
  tensor->shape.rank = rank;
  for (size_t i = 0; i < rank; ++i) tensor->shape.dims[i] = dims[i];
  return nullptr;
}

}  // namespace

void copy_shapes() { copies_shapes = true; }

const char* read(const void* api, const Value* value, Tensor* tensor) {
  if (const char* wrong = copies_shapes ? read_copy(api, value, tensor) : read_reference(api, value, tensor)) return wrong;
  void* data = nullptr;
  if (!succeeded(api, GetTensorMutableData(api, const_cast<Value*>(value), &data))) return "has no data";
  tensor->data = data;
  return nullptr;
}

const char* name_of(Type type) {
  switch (type) {
    case Type::u8:
      return "u8";
    case Type::s8:
      return "s8";
    case Type::s16:
      return "s16";
    case Type::s32:
      return "s32";
    case Type::s64:
      return "s64";
    case Type::boolean:
      return "bool";
    case Type::none:
      break;
  }
  return "another type";
}

}  // namespace ort
}  // namespace mulshift
