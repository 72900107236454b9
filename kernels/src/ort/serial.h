// One task after another on the calling thread, for calls too small for a second one.
#ifndef MULSHIFT_SRC_ORT_SERIAL_H
#define MULSHIFT_SRC_ORT_SERIAL_H

#include "../tensor.h"

namespace mulshift {
namespace ort {

inline Parallel serial() {
  return {[](const void*, size_t count, void (*task)(void*, size_t), void* data) {
            for (size_t i = 0; i < count; ++i) task(data, i);
          },
          nullptr, 1};
}

}  // namespace ort
}  // namespace mulshift

#endif
