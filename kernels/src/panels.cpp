#include "panels.h"

#include "isa.h"
#include "pack.h"
#include "parts.h"

namespace mulshift {

namespace {
constexpr size_t kPartBytes = 32 * 1024;  // of one panel: about the first-level cache
}

bool Panels::reserve(size_t k, size_t n) {
  k4_ = (k + 3) / 4;
  panels_ = whole_panels(n) / kPanel;
  data_ = packed_.reserve(panels_ * k4_ * kPanel * 4 + 1);
  return data_ != nullptr;
}

bool Panels::expand(const Dense& dense) {
  if (dense.prepare) return prepare(dense);
  const size_t step = kPanel * 4 * (dense.expand ? dense.expanded_bytes : 1);
  part_ = kPartBytes / step;
  part_bytes_ = part_ * step;
  stride_ = k4_ * step;
  if (!dense.expand) return true;
  void* room = expanded_.reserve(panels_ * stride_ + 1);
  if (!room) return false;
  dense.expand(static_cast<const int8_t*>(data_), k4_, panels_, room);
  data_ = room;
  return true;
}

// Each part of a panel by itself: the first part of all panels, then the second, ...
bool Panels::prepare(const Dense& dense) {
  part_ = k4_ < kPartSteps ? k4_ + !k4_ : kPartSteps;
  stride_ = dense.prepared_bytes(part_);
  part_bytes_ = panels_ * stride_;
  const size_t parts = k4_ ? divide_up(k4_, part_) : 1;
  char* room = expanded_.array<char>(parts * part_bytes_ + 1);
  if (!room) return false;
  const int8_t* from = static_cast<const int8_t*>(data_);
  for (size_t i = 0; i < panels_; ++i) {
    for (size_t part = 0; part < parts; ++part) {
      dense.prepare(from, steps(part), room + part * part_bytes_ + i * stride_);
      from += steps(part) * kPanel * 4;
    }
  }
  data_ = room;
  return true;
}

bool Panels::pack(const Dense& dense, const int8_t* x, size_t stride, size_t k, size_t n) {
  if (!reserve(k, n)) return false;
  isa()->pack.rows(x, stride, k, n, static_cast<int8_t*>(packed_.data()));
  return expand(dense);
}

bool Panels::pack_transposed(const Dense& dense, const int8_t* x, size_t stride, size_t k, size_t n) {
  if (!reserve(k, n)) return false;
  isa()->pack.columns(x, stride, k, n, static_cast<int8_t*>(packed_.data()));
  return expand(dense);
}

const int32_t* Panels::bias(const Dense& dense, int32_t folded, size_t k4, size_t n) {
  const size_t width = whole_panels(n);
  int32_t* made = bias_.array<int32_t>(2 * width + 1);
  if (!made) return nullptr;
  int32_t* nothing = made + width;
  for (size_t i = 0; i < width; ++i) made[i] = nothing[i] = 0;
  if (!folded) return made;
  char* ones = ones_.array<char>(4 * k4 * dense.element + 1);
  if (!ones) return nullptr;
  for (size_t i = 0; i < 4 * k4 * dense.element; ++i) ones[i] = i % dense.element == 0;  // little endian
  multiply(dense, ones, 0, 1, k4, n, nothing, made);
  for (size_t i = 0; i < width; ++i) {  // modulo 2^32, see dense.h
    made[i] = static_cast<int32_t>(-static_cast<uint32_t>(folded) * static_cast<uint32_t>(made[i]));
  }
  return made;
}

void Panels::multiply(const Dense& dense, const void* a, size_t a_stride, size_t rows, size_t k4, size_t n,
                      const int32_t* init, int32_t* acc) const {
  Product product = {a, a_stride, data_, stride_, k4, n, rows, init, 0};
  for (size_t part = 0, done = 0; done < k4 || !done; ++part, done += part_) {
    product.k4 = k4 - done < part_ ? k4 - done : part_;
    product.prepared_k4 = steps(part);
    product.a = static_cast<const char*>(a) + 4 * done * dense.element;
    product.b = static_cast<const char*>(data_) + part * part_bytes_;
    dense.multiply(product, acc, whole_panels(n));
    product.init = acc;
    product.init_stride = whole_panels(n);
  }
}

}  // namespace mulshift
