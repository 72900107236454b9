// Elementwise operators in 64-bit scalars, for zero points and clamps whose difference leaves int32.
#include "elementwise.h"

namespace mulshift {
namespace {

int64_t element(const Rows& rows, size_t operand, Type type, size_t row, size_t column) {
  const size_t at = row * rows.row_stride[operand] + (rows.varies[operand] ? column : 0);
  const void* data = rows.data[operand];
  switch (type) {
    case Type::u8:
      return static_cast<const uint8_t*>(data)[at];
    case Type::s8:
      return static_cast<const int8_t*>(data)[at];
    case Type::s16:
      return static_cast<const int16_t*>(data)[at];
    default:
      return static_cast<const int32_t*>(data)[at];
  }
}

void put(const Rows& rows, Type type, size_t at, int64_t value) {
  switch (type) {
    case Type::u8:
      static_cast<uint8_t*>(rows.y)[at] = static_cast<uint8_t>(value);
      return;
    case Type::s8:
      static_cast<int8_t*>(rows.y)[at] = static_cast<int8_t>(value);
      return;
    case Type::s16:
      static_cast<int16_t*>(rows.y)[at] = static_cast<int16_t>(value);
      return;
    default:
      static_cast<int32_t*>(rows.y)[at] = static_cast<int32_t>(value);
  }
}

// clamp(((sum + 2^(c-1)) >> c) + z, low, high); |sum| < 2^62.
int64_t finish(int64_t sum, int64_t c, const Output& out) {
  const int64_t y = ((sum + (int64_t{1} << (c - 1))) >> c) + out.zero_point;
  return y < out.low ? out.low : y > out.high ? out.high : y;
}

template <class F>
void each(const Rows& rows, const Output& out, const F& f) {
  for (size_t r = 0; r < rows.rows; ++r) {
    for (size_t i = 0; i < rows.n; ++i) put(rows, out.type, r * rows.n + i, f(r, i));
  }
}

void requantize(const RequantizeSpec& s, const Rows& rows) {
  each(rows, s.out, [&](size_t r, size_t i) {
    const int64_t x = element(rows, 0, s.x_type, r, i) - s.x_zero_point;
    return finish(x * element(rows, 1, Type::s32, r, i), element(rows, 2, Type::s32, r, i), s.out);
  });
}

void add(const AddSpec& s, const Rows& rows) {
  each(rows, s.out, [&](size_t r, size_t i) {
    const int64_t x = element(rows, 0, s.x_type, r, i) - s.x_zero_point;
    const int64_t y = element(rows, 1, s.y_type, r, i) - s.y_zero_point;
    return finish(x * s.x_multiplier + y * s.y_multiplier, s.shift, s.out);
  });
}

void mul(const MulSpec& s, const Rows& rows) {
  each(rows, s.out, [&](size_t r, size_t i) {
    const int64_t x = element(rows, 0, s.x_type, r, i) - s.x_zero_point;
    const int64_t y = element(rows, 1, s.y_type, r, i) - s.y_zero_point;
    return finish(x * y * s.multiplier, s.shift, s.out);
  });
}

void affine(const AffineSpec& s, const Rows& rows) {
  each(rows, s.out, [&](size_t r, size_t i) {
    const int64_t x = element(rows, 0, s.x_type, r, i) - s.x_zero_point;
    const int64_t acc = x * element(rows, 1, Type::s32, r, i) + element(rows, 2, Type::s32, r, i);
    return finish(acc * element(rows, 3, Type::s32, r, i), element(rows, 4, Type::s32, r, i), s.out);
  });
}

void scale(const ScaleSpec& s, const Rows& rows) {
  each(rows, s.out, [&](size_t r, size_t i) {
    const int64_t b = int64_t{1 << 16} * element(rows, 1, Type::s32, r, i) + element(rows, 2, Type::s32, r, i);
    return finish(element(rows, 0, Type::s16, r, i) * b, element(rows, 4, Type::s32, r, i) + 16, s.out);
  });
}

}  // namespace

const ElementwiseKernels exact_elementwise = {requantize, add, mul, affine, scale};

}  // namespace mulshift
