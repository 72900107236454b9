#include "call.h"

#include <thread>

namespace mulshift {
namespace ort {

bool Call::fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  message_.set(format, arguments);
  va_end(arguments);
  return false;
}

Tensor Call::input(size_t i, const char* what) {
  Tensor made;
  const Value* value = nullptr;
  if (!succeeded(api_, KernelContext_GetInput(api_, context_, i, &value)) || !value) {
    fail("%s is missing", what);
    return made;
  }
  const char* wrong = read(api_, value, &made);
  if (!wrong) return made;
  fail("%s %s", what, wrong);
  return Tensor();
}

void* Call::output(size_t i, const Shape& shape) {
  Value* value = nullptr;
  void* data = nullptr;
  if (!succeeded(api_, KernelContext_GetOutput(api_, context_, i, shape.dims, shape.rank, &value)) || !value ||
      !succeeded(api_, GetTensorMutableData(api_, value, &data))) {
    fail("output %zu cannot be made", i);
    return nullptr;
  }
  static char nothing;  // an empty tensor may have no memory
  return data ? data : &nothing;
}

void Call::run(const void* self, size_t count, void (*task)(void*, size_t), void* data) {
  const Call& call = *static_cast<const Call*>(self);
  if (count > 1 && succeeded(call.api_, KernelContext_ParallelFor(call.api_, call.context_, task, count, 0, data))) {
    return;
  }
  for (size_t i = 0; i < count; ++i) task(data, i);
}

// How many threads the session has is not in the API: what the machine has, an upper bound.
Parallel Call::parallel() const {
  static const unsigned threads = std::thread::hardware_concurrency();
  return {run, this, threads ? static_cast<int>(threads) : 1};
}

}  // namespace ort
}  // namespace mulshift
