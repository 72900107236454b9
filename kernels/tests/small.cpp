// Tables, sums, pooling and interpolation: the kernels of an instruction set alone.
#include <cstdio>

#include "cases.h"
#include "draw.h"
#include "isa.h"
#include "lerp.h"
#include "pool.h"
#include "reduce.h"
#include "table.h"

namespace mulshift {
namespace cases {
namespace {

void print(const Bytes& y) { std::printf(": %016llx\n", static_cast<unsigned long long>(hash(y))); }

}  // namespace

void table() {
  const size_t n = size(0, 300);
  const Type type = pick({Type::u8, Type::s16}), index = pick({Type::u8, Type::s16});
  const Bytes x = elements(index, n), entries = elements(type, index == Type::u8 ? 256 : 65536);
  Bytes y(n * size_of(type));
  const uint8_t* from = reinterpret_cast<const uint8_t*>(x.data());
  const uint16_t* wide = reinterpret_cast<const uint16_t*>(x.data());
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(entries.data());
  const int16_t* words = reinterpret_cast<const int16_t*>(entries.data());
  if (type == Type::u8) {
    uint8_t* to = reinterpret_cast<uint8_t*>(y.data());
    index == Type::u8 ? isa()->table.bytes(from, n, bytes, to) : isa()->table.wide_bytes(wide, n, bytes, to);
  } else {
    int16_t* to = reinterpret_cast<int16_t*>(y.data());
    index == Type::u8 ? isa()->table.words(from, n, words, to) : isa()->table.wide_words(wide, n, words, to);
  }
  std::printf(" %s by %s of %zu", name(type), name(index), n);
  print(y);
}

void reduce() {
  const Type type = pick({Type::u8, Type::s8, Type::s16});
  const size_t rows = size(1, 40), stride = one_in(4) ? size(60, 140) : size(1, 70);
  const Bytes x = elements(type, rows * stride);
  Bytes y;
  const bool along = one_in(3);
  if (along) {
    const int32_t sum = isa()->reduce.row(x.data(), type, rows * stride);
    y.resize(sizeof(sum));
    std::memcpy(y.data(), &sum, sizeof(sum));
  } else {
    y.resize(stride * sizeof(int32_t));
    for (size_t first = 0; first < stride; first += kSumColumns) {
      const size_t columns = std::min(kSumColumns, stride - first);
      isa()->reduce.columns(x.data(), type, rows, stride, first, columns, reinterpret_cast<int32_t*>(y.data()) + first);
    }
  }
  std::printf(" %s of %s %zux%zu", along ? "all" : "columns", name(type), rows, stride);
  print(y);
}

void max_pool() {
  const size_t channels = one_in(2) ? size(1, 80) : pick<size_t>({7, 8, 9, 31, 32, 33, 64});
  const size_t rows = size(1, 4), columns = size(1, 4), column_step = channels * size(1, 2);
  const size_t row_step = columns * column_step * size(1, 2);
  const bool is_unsigned = one_in(2);
  const size_t last = (rows - 1) * row_step + (columns - 1) * column_step + channels;
  const Bytes x = elements(is_unsigned ? Type::u8 : Type::s8, last);
  Bytes y(channels);
  if (is_unsigned) {
    isa()->pool.max_u8(reinterpret_cast<const uint8_t*>(x.data()), rows, columns, row_step, column_step, channels,
                       reinterpret_cast<uint8_t*>(y.data()));
  } else {
    isa()->pool.max_s8(reinterpret_cast<const int8_t*>(x.data()), rows, columns, row_step, column_step, channels,
                       reinterpret_cast<int8_t*>(y.data()));
  }
  std::printf(" %s %zux%zu of %zu channels", is_unsigned ? "u8" : "s8", rows, columns, channels);
  print(y);
}

void lerp() {
  const Type type = pick({Type::u8, Type::s8, Type::s16, Type::s32});
  const size_t n = size(0, 80);
  Bytes x0 = elements(type, n), x1 = elements(type, n);
  if (type == Type::s32) {  // both products and their sum fit
    for (size_t i = 0; i < n; ++i) {
      put(type, x0.data() + 4 * i, draw(-(1 << 20), 1 << 20));
      put(type, x1.data() + 4 * i, draw(-(1 << 20), 1 << 20));
    }
  }
  const int32_t w1 = draw(0, 1 << 9), zero_point = type == Type::s32 ? 0 : element(type);
  Bytes y(n * sizeof(int32_t));
  isa()->lerp.row({type, x0.data(), x1.data(), zero_point, (1 << 9) - w1, w1}, n, reinterpret_cast<int32_t*>(y.data()));
  std::printf(" %s of %zu", name(type), n);
  print(y);
}

}  // namespace cases
}  // namespace mulshift
