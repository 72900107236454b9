#include "inference.h"

#include <atomic>
#include <cstdio>
#include <cstring>

#include "tensor.h"

namespace mulshift {
namespace ort {

size_t Inference::inputs() const {
  size_t count = 0;
  return succeeded(api_, ShapeInferContext_GetInputCount(api_, context_, &count)) ? count : 0;
}

Type Inference::type(size_t input) const {
  TypeAndShape* info = nullptr;  // stays ONNX Runtime's
  Type type = Type::none;
  Shape shape;
  if (!succeeded(api_, ShapeInferContext_GetInputTypeShape(api_, context_, input, &info))) return Type::none;
  read(api_, info, &type, &shape);
  return type;
}

OpenShape Inference::input(size_t i) const {
  OpenShape made;
  TypeAndShape* info = nullptr;  // stays ONNX Runtime's
  Type type;
  Shape shape;
  if (!succeeded(api_, ShapeInferContext_GetInputTypeShape(api_, context_, i, &info))) return made;
  if (read(api_, info, &type, &shape) || shape.rank == 0) return made;
  const char* names[kMaxRank] = {};
  if (!succeeded(api_, GetSymbolicDimensions(api_, info, names, shape.rank))) return made;
  made.known = true;
  made.rank = shape.rank;
  for (size_t axis = 0; axis < shape.rank; ++axis) {
    made.dims[axis].size = shape.dims[axis];
    if (shape.dims[axis] < 0 && names[axis] && names[axis][0]) made.dims[axis].name = names[axis];
  }
  return made;
}

int64_t Inference::integer(const char* attribute, int64_t otherwise) const {
  const OpAttribute* found = nullptr;
  int64_t value = otherwise;
  size_t bytes = 0;
  if (!succeeded(api_, ShapeInferContext_GetAttribute(api_, context_, attribute, &found)) || !found) return otherwise;
  if (!succeeded(api_, ReadOpAttr(api_, found, attribute_int, &value, sizeof(value), &bytes))) return otherwise;
  return value;
}

size_t Inference::integers(const char* attribute, int64_t* values) const {
  const OpAttribute* found = nullptr;
  size_t bytes = 0;
  int64_t read[kMaxRank];
  if (!succeeded(api_, ShapeInferContext_GetAttribute(api_, context_, attribute, &found)) || !found) return 0;
  if (!succeeded(api_, ReadOpAttr(api_, found, attribute_ints, read, sizeof(read), &bytes))) return 0;
  const size_t count = bytes / sizeof(*read);
  for (size_t i = 0; i < count; ++i) {
    if (read[i] < INT32_MIN || read[i] > INT32_MAX) return 0;
  }
  std::memcpy(values, read, bytes);
  return count;
}

void Inference::output(size_t i, const OpenShape& shape) const {
  static std::atomic<unsigned> unnamed{0};  // ONNX Runtime takes sizes of one name as equal, so each needs its own
  TypeAndShape* info = nullptr;
  if (!shape.known || outputs_[i] == Type::none) return;
  if (!succeeded(api_, CreateTensorTypeAndShapeInfo(api_, &info))) return;
  int64_t dims[kMaxRank] = {};
  const char* names[kMaxRank] = {};
  char made[kMaxRank][32];
  for (size_t axis = 0; axis < shape.rank; ++axis) {
    const Dim& dim = shape.dims[axis];
    dims[axis] = dim.size;
    names[axis] = "";
    if (dim.size >= 0) continue;
    dims[axis] = -1;
    names[axis] = dim.name;
    if (dim.name) continue;
    std::snprintf(made[axis], sizeof(made[axis]), "mulshift_unnamed_%u", unnamed++);
    names[axis] = made[axis];
  }
  const bool set = succeeded(api_, SetTensorElementType(api_, info, static_cast<int>(outputs_[i]))) &&
                   succeeded(api_, SetDimensions(api_, info, dims, shape.rank)) &&
                   succeeded(api_, SetSymbolicDimensions(api_, info, names, shape.rank));
  if (set) succeeded(api_, ShapeInferContext_SetOutputTypeShape(api_, context_, i, info));
  ReleaseTensorTypeAndShapeInfo(api_, info);
}

OpenShape broadcast(const OpenShape& a, const OpenShape& b) {
  OpenShape made;
  if (!a.known || !b.known) return made;
  made.known = true;
  made.rank = a.rank > b.rank ? a.rank : b.rank;
  for (size_t i = 0; i < made.rank; ++i) {  // from the last axis on
    Dim x, y;
    x.size = y.size = 1;
    if (i < a.rank) x = a.dims[a.rank - 1 - i];
    if (i < b.rank) y = b.dims[b.rank - 1 - i];
    Dim& dim = made.dims[made.rank - 1 - i];
    if (x.size == 1) {
      dim = y;
    } else if (y.size == 1 || x.size > 1) {
      dim = x;
    } else if (y.size > 1 || (x.size == y.size && x.name && y.name && !std::strcmp(x.name, y.name))) {
      dim = y;
    } else if (x.size == 0 || y.size == 0) {
      dim.size = 0;
    }
  }
  return made;
}

}  // namespace ort
}  // namespace mulshift
