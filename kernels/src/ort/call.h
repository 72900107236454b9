// One run of a node: inputs, outputs, threads.
#ifndef MULSHIFT_SRC_ORT_CALL_H
#define MULSHIFT_SRC_ORT_CALL_H

#include "message.h"
#include "tensor.h"

namespace mulshift {
namespace ort {

class Call {
 public:
  Call(const void* api, KernelContext* context, const char* node) : message_(node), api_(api), context_(context) {}

  bool ok() const { return message_.empty(); }
  const char* message() const { return message_.text(); }
  // Records what is wrong, printf-style, and returns false.
#if defined(__GNUC__)
  __attribute__((format(printf, 2, 3)))
#endif
  bool fail(const char* format, ...);

  // Its element type is the one that the kernel was made for. Type::none after a failure.
  Tensor input(size_t i, const char* what);

  // Memory for an output of that shape and of the element type that the node was made with; null after a failure.
  void* output(size_t i, const Shape& shape);

  // On the threads of the session.
  Parallel parallel() const;

 private:
  static void run(const void* self, size_t count, void (*task)(void*, size_t), void* data);

  Message message_;
  const void* api_;
  KernelContext* context_;
};

}  // namespace ort
}  // namespace mulshift

#endif
