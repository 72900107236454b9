// What random cases are drawn with: one engine, seeded anew for each case, so that every instruction set sees the same.
// No argument list has two draws: which comes first is the compiler's choice.
#ifndef MULSHIFT_TESTS_DRAW_H
#define MULSHIFT_TESTS_DRAW_H

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "rescale.h"
#include "tensor.h"

namespace mulshift {
namespace cases {

// Memory exactly as large as what it holds: a sanitizer sees a step beyond.
using Bytes = std::vector<char>;

inline std::mt19937 engine;

inline int draw(int low, int high) {
  const unsigned from = static_cast<unsigned>(low), count = static_cast<unsigned>(high) - from + 1;
  return static_cast<int>(from + static_cast<unsigned>(engine()) % count);
}
inline size_t size(int low, int high) { return static_cast<size_t>(draw(low, high)); }
inline bool one_in(int n) { return draw(1, n) == 1; }

template <class T>
T pick(std::initializer_list<T> from) {
  return from.begin()[size(0, static_cast<int>(from.size()) - 1)];
}

inline int32_t lowest(Type type) {
  return type == Type::u8 ? 0 : type == Type::s8 ? -128 : type == Type::s16 ? -32768 : INT32_MIN;
}
inline int32_t highest(Type type) {
  return type == Type::u8 ? 255 : type == Type::s8 ? 127 : type == Type::s16 ? 32767 : INT32_MAX;
}

// An element of the type, its ends more often than their share. s32: |x - zx| has to fit, so below 2^30.
inline int32_t element(Type type) {
  if (type == Type::s32) return one_in(4) ? pick({-(1 << 30), -1, 0, 1, 1 << 30}) : draw(-(1 << 30), 1 << 30);
  return one_in(8) ? pick({lowest(type), highest(type)}) : draw(lowest(type), highest(type));
}

inline void put(Type type, char* at, int32_t x) { std::memcpy(at, &x, size_of(type)); }  // little endian

inline Bytes elements(Type type, size_t count) {
  Bytes made(count * size_of(type));
  for (size_t i = 0; i < count; ++i) put(type, made.data() + i * size_of(type), element(type));
  return made;
}

inline Bytes words(const std::vector<int32_t>& from) {
  Bytes made(from.size() * sizeof(int32_t));
  if (!from.empty()) std::memcpy(made.data(), from.data(), made.size());
  return made;
}

// Zero point and clamp of an output; the zero point of s32 is 0.
inline Output output(Type type) {
  if (type == Type::s32) return {0, one_in(2) ? INT32_MIN : -70000, one_in(2) ? INT32_MAX : 70000, type};
  const int a = draw(lowest(type), highest(type)), b = draw(lowest(type), highest(type));
  const bool whole = !one_in(3);
  const int zero_point = draw(lowest(type), highest(type));
  return {zero_point, whole ? lowest(type) : std::min(a, b), whole ? highest(type) : std::max(a, b), type};
}

inline int64_t farthest(int64_t low, int64_t high, int64_t zero_point) {
  return std::max(std::abs(low - zero_point), std::abs(high - zero_point));
}

// What b and c of a case look like. `halves`: b = 1 and a small c, so that sums often end in exactly one half.
enum class Ratios { narrow, wide, halves, ends, mixed };

inline Ratios draw_ratios() {
  return pick({Ratios::narrow, Ratios::narrow, Ratios::wide, Ratios::wide, Ratios::wide, Ratios::halves, Ratios::ends,
               Ratios::mixed});
}

// b / 2^c near 2^exponent.
inline void dyadic(Ratios ratios, int exponent, int32_t* b, int32_t* c) {
  if (ratios == Ratios::mixed) ratios = pick({Ratios::narrow, Ratios::wide, Ratios::halves, Ratios::ends});
  if (ratios == Ratios::halves) {
    *b = 1;
    *c = draw(2, 12);
    return;
  }
  if (ratios == Ratios::ends) {
    *b = pick({0, 1, 1 << 30, INT32_MAX});
    *c = pick({2, 31, 32, 33, 61, 62});
    return;
  }
  const int bits = ratios == Ratios::narrow ? draw(1, 8) : draw(9, 31);
  *b = static_cast<int32_t>((engine() | (1u << 31)) >> (32 - bits));
  *c = std::clamp(bits - exponent, 2, 62);
}

inline uint64_t hash(const Bytes& bytes) {
  uint64_t h = 1469598103934665603u;
  for (const char b : bytes) h = (h ^ static_cast<uint8_t>(b)) * 1099511628211u;
  return h;
}

inline const char* name(Way way) { return way == Way::low ? "low" : way == Way::high ? "high" : "any"; }
inline const char* name(Type type) {
  switch (type) {
    case Type::u8:
      return "u8";
    case Type::s8:
      return "s8";
    case Type::s16:
      return "s16";
    case Type::s32:
      return "s32";
    default:
      return "none";
  }
}

// As `threads` threads would cut it: one task after another, from the last to the first, and each on a thread of its own.
inline Parallel forward(int threads) {
  return {[](const void*, size_t count, void (*task)(void*, size_t), void* data) {
            for (size_t i = 0; i < count; ++i) task(data, i);
          },
          nullptr, threads};
}
inline Parallel backward(int threads) {
  return {[](const void*, size_t count, void (*task)(void*, size_t), void* data) {
            for (size_t i = count; i-- > 0;) task(data, i);
          },
          nullptr, threads};
}

inline Parallel at_once(int threads) {
  return {[](const void*, size_t count, void (*task)(void*, size_t), void* data) {
            std::vector<std::thread> running;
            for (size_t i = 0; i < count; ++i) running.emplace_back(task, data, i);
            for (std::thread& thread : running) thread.join();
          },
          nullptr, threads};
}

}  // namespace cases
}  // namespace mulshift

#endif
