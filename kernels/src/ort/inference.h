// Types and shapes of outputs while a model is loaded.
//
// ONNX Runtime takes an element type that an attribute says only together with a shape. Where the shape is not known,
// it takes both from the graph's value_info, and refuses the model if there is none.
#ifndef MULSHIFT_SRC_ORT_INFERENCE_H
#define MULSHIFT_SRC_ORT_INFERENCE_H

#include "../shape.h"
#include "../tensor.h"
#include "api.h"

namespace mulshift {
namespace ort {

// A size; where it is not known (-1) the name of it, or null.
struct Dim {
  int64_t size = -1;
  const char* name = nullptr;
};

struct OpenShape {
  bool known = false;  // at least the rank
  size_t rank = 0;
  Dim dims[kMaxRank];
};

class Inference {
 public:
  Inference(const void* api, ShapeInferContext* context, const Type* outputs)
      : api_(api), context_(context), outputs_(outputs) {}

  size_t inputs() const;
  Type type(size_t input) const;
  // ONNX Runtime does not tell a scalar from an unknown rank here: neither is `known`.
  OpenShape input(size_t i) const;
  int64_t integer(const char* attribute, int64_t otherwise) const;
  // At most kMaxRank numbers into `values`; how many there are, 0 if the attribute is missing or one leaves int32: such a
  // node is refused when its kernel is made.
  size_t integers(const char* attribute, int64_t* values) const;
  // Says nothing where the shape is not known.
  void output(size_t i, const OpenShape& shape) const;

 private:
  const void* api_;
  ShapeInferContext* context_;
  const Type* outputs_;
};

// numpy's broadcasting; unknown as soon as one of them is.
OpenShape broadcast(const OpenShape& a, const OpenShape& b);

}  // namespace ort
}  // namespace mulshift

#endif
