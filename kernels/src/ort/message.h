// What is wrong with a node: "NODE: what". The first one said stays.
#ifndef MULSHIFT_SRC_ORT_MESSAGE_H
#define MULSHIFT_SRC_ORT_MESSAGE_H

#include <cstdarg>
#include <cstdio>

namespace mulshift {
namespace ort {

class Message {
 public:
  explicit Message(const char* node) : node_(node) {}

  bool empty() const { return text_[0] == 0; }
  const char* text() const { return text_; }

  void set(const char* format, va_list arguments) {
    if (!empty()) return;
    const int used = std::snprintf(text_, sizeof(text_), "%.700s: ", node_);
    if (used > 0) std::vsnprintf(text_ + used, sizeof(text_) - static_cast<size_t>(used), format, arguments);
  }

 private:
  const char* node_;
  char text_[1024] = {};
};

}  // namespace ort
}  // namespace mulshift

#endif
