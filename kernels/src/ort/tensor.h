// A tensor that ONNX Runtime owns.
#ifndef MULSHIFT_SRC_ORT_TENSOR_H
#define MULSHIFT_SRC_ORT_TENSOR_H

#include "../shape.h"
#include "../tensor.h"
#include "api.h"

namespace mulshift {
namespace ort {

struct Tensor {
  Type type = Type::none;  // none: there is no such tensor
  Shape shape;
  const void* data = nullptr;

  template <class T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
};

// For all of the process: shapes are copied into memory of their own before they are read, which ONNX Runtime 1.23 and
// older needs.
void copy_shapes();

// Null, or what is wrong with the value.
const char* read(const void* api, const Value* value, Tensor* tensor);

// Null, or what is wrong with the shape: its rank or a negative size.
const char* read(const void* api, const TypeAndShape* info, Type* type, Shape* shape);

// "u8" and so on.
const char* name_of(Type type);

// Drops a status; whether there was none.
bool succeeded(const void* api, Status* status);

}  // namespace ort
}  // namespace mulshift

#endif
