// Memory that a node or a thread keeps: aligned to 64 bytes, grows, never shrinks, zero when new.
#ifndef MULSHIFT_SRC_BUFFER_H
#define MULSHIFT_SRC_BUFFER_H

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace mulshift {

class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(base_); }

  // At least `bytes` of memory, or null if there is none left. What it held is lost when it grows.
  void* reserve(size_t bytes) {
    if (bytes <= size_) return data_;
    std::free(base_);
    size_ = 0;
    data_ = nullptr;
    base_ = std::malloc(bytes + kAlign);
    if (!base_) return nullptr;
    const uintptr_t start = (reinterpret_cast<uintptr_t>(base_) + kAlign - 1) / kAlign * kAlign;
    data_ = reinterpret_cast<void*>(start);
    size_ = bytes;
    std::memset(data_, 0, bytes);
    return data_;
  }

  template <class T>
  T* array(size_t count) {
    return static_cast<T*>(reserve(count * sizeof(T)));
  }

  void* data() const { return data_; }

 private:
  static constexpr size_t kAlign = 64;
  void* base_ = nullptr;
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace mulshift

#endif
