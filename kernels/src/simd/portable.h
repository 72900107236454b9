// Sixteen int32 lanes in plain C++: the definition that every other simd/*.h must equal, lane by lane.
//
// `V` holds sixteen int32, `Wide` the same sixteen as int64. Kernels are templates over V, so each is written once.
// Ranges are the caller's: 32-bit sums and products must fit (wrap-around is undefined here and proven absent).
#ifndef MULSHIFT_SRC_SIMD_PORTABLE_H
#define MULSHIFT_SRC_SIMD_PORTABLE_H

#include <cstdint>
#include <cstring>

namespace mulshift {
namespace portable {

struct V {
  static constexpr int lanes = 16;
  int32_t v[16];

  struct Wide {
    int64_t v[16];
  };

  static V set1(int32_t x) {
    V r;
    for (int32_t& lane : r.v) lane = x;
    return r;
  }
  static V load(const int32_t* p) {
    V r;
    std::memcpy(r.v, p, sizeof(r.v));
    return r;
  }
  static V load(const uint8_t* p) { return widen(p); }
  static V load(const int8_t* p) { return widen(p); }
  static V load(const int16_t* p) { return widen(p); }

  // The lanes must lie in the range of the element stored.
  void store(int32_t* p) const { std::memcpy(p, v, sizeof(v)); }
  void store(uint8_t* p) const { narrow(p); }
  void store(int8_t* p) const { narrow(p); }
  void store(int16_t* p) const { narrow(p); }

  // clamp(x + zero_point, low, high) as bytes, any int32 x with x + zero_point in int32; 0 <= low <= high <= 255.
  struct Bytes {
    int32_t zero_point, low, high;
    Bytes(int32_t zero_point_, int32_t low_, int32_t high_) : zero_point(zero_point_), low(low_), high(high_) {}
    void store(V x, uint8_t* p) const {
      for (int i = 0; i < 16; ++i) {
        const int32_t y = x.v[i] + zero_point;
        p[i] = static_cast<uint8_t>(y < low ? low : y > high ? high : y);
      }
    }
    void store(V x, V y, uint8_t* p, uint8_t* q) const {
      store(x, p);
      store(y, q);
    }
  };

  // clamp(x, low, high) as 16-bit numbers; -2^15 <= low <= high < 2^15. `load` may bring lanes in an order of its own, in
  // which the others take and make them.
  struct Words {
    int32_t low, high;
    Words(int32_t low_, int32_t high_) : low(low_), high(high_) {}
    static V load(const int32_t* p) { return V::load(p); }
    void store(V x, int16_t* p) const { clamped(x).store(p); }
    // Lanes of two: x, then r above it.
    V pair(V x, const int16_t* r) const {
      x = clamped(x);
      for (int i = 0; i < 16; ++i) {
        x.v[i] = static_cast<int32_t>((static_cast<uint32_t>(x.v[i]) & 0xffff) | static_cast<uint32_t>(r[i]) << 16);
      }
      return x;
    }

   private:
    V clamped(V x) const { return x.max(set1(low)).min(set1(high)); }
  };

  V operator+(V o) const { return each(o, [](int32_t a, int32_t b) { return a + b; }); }
  V operator-(V o) const { return each(o, [](int32_t a, int32_t b) { return a - b; }); }
  // The low 32 bits of the product; it must fit int32.
  V operator*(V o) const { return each(o, [](int32_t a, int32_t b) { return a * b; }); }
  V min(V o) const { return each(o, [](int32_t a, int32_t b) { return a < b ? a : b; }); }
  V max(V o) const { return each(o, [](int32_t a, int32_t b) { return a > b ? a : b; }); }
  // Arithmetic shift right, each lane by its own count, 0 to 31.
  V shift_right(V counts) const { return each(counts, [](int32_t a, int32_t c) { return a >> c; }); }
  // x * 2^count, which must fit.
  V shift_left(int32_t count) const { return each(set1(count), [](int32_t a, int32_t c) { return a * (1 << c); }); }
  // 2^count, count 0 to 30.
  static V power(V counts) { return counts.each(counts, [](int32_t, int32_t c) { return int32_t{1} << c; }); }

  // out: [16][2] = (a, b) of each lane.
  static void interleave(const uint8_t* a, const uint8_t* b, int16_t* out) {
    for (int i = 0; i < 16; ++i) {
      out[2 * i] = a[i];
      out[2 * i + 1] = b[i];
    }
  }
  // out: [16][4] = (a, b, c, d) of each lane.
  static void interleave(const int8_t* a, const int8_t* b, const int8_t* c, const int8_t* d, int8_t* out) {
    for (int i = 0; i < 16; ++i) {
      out[4 * i] = a[i];
      out[4 * i + 1] = b[i];
      out[4 * i + 2] = c[i];
      out[4 * i + 3] = d[i];
    }
  }
  // out = field * scale - half of sixteen bytes, where a field is `mask` bits from `shift` on; scale: 1 or 2.
  static void fields(const uint8_t* x, int shift, int mask, int scale, int half, int8_t* out) {
    for (int i = 0; i < 16; ++i) out[i] = static_cast<int8_t>((x[i] >> shift & mask) * scale - half);
  }
  // y = x * m of sixteen bytes, four of each of four multipliers; products fit s8.
  static void multiply_fours(const int8_t* x, const uint8_t* m, int8_t* y) {
    for (int i = 0; i < 16; ++i) y[i] = static_cast<int8_t>(x[i] * m[i / 4]);
  }
  // y = x[place] of sixteen bytes, for eight places from 0 to 15.
  static void choose(const uint8_t* x, const uint8_t* places, uint8_t* y) {
    for (int i = 0; i < 8; ++i) y[i] = x[places[i] % 16];
  }
  // Four rows of four words of 4 bytes; column i goes to out + i * stride.
  static void transpose(const int8_t* a, const int8_t* b, const int8_t* c, const int8_t* d, int8_t* out, int stride) {
    for (int i = 0; i < 4; ++i) {
      std::memcpy(out + i * stride, a + 4 * i, 4);
      std::memcpy(out + i * stride + 4, b + 4 * i, 4);
      std::memcpy(out + i * stride + 8, c + 4 * i, 4);
      std::memcpy(out + i * stride + 12, d + 4 * i, 4);
    }
  }
  // sum + x[..][0] * w[..][0] + x[..][1] * w[..][1] modulo 2^32; x, w: [16][2].
  static V multiply_pairs(V sum, const int16_t* x, const int16_t* w) {
    for (int i = 0; i < 16; ++i) {
      const uint32_t first = static_cast<uint32_t>(x[2 * i] * w[2 * i]);
      const uint32_t second = static_cast<uint32_t>(x[2 * i + 1] * w[2 * i + 1]);
      sum.v[i] = static_cast<int32_t>(static_cast<uint32_t>(sum.v[i]) + first + second);
    }
    return sum;
  }
  // The same with one pair x for all lanes; x: [2], w: [16][2].
  static V multiply_pair(V sum, const int16_t* x, const int16_t* w) {
    int16_t pairs[32];
    for (int i = 0; i < 32; ++i) pairs[i] = x[i % 2];
    return multiply_pairs(sum, pairs, w);
  }
  // x0 * w0 + x1 * w1 of lanes of two; it must fit.
  static V multiply_pairs(V x, V w) {
    return x.each(w, [](int32_t a, int32_t b) {
      return int32_t{static_cast<int16_t>(a)} * static_cast<int16_t>(b) + (a >> 16) * (b >> 16);
    });
  }

  // Floor of (a mod 2^16) * b / 2^16; 0 <= b < 2^16.
  static V high16(V a, V b) {
    return a.each(b, [](int32_t x, int32_t y) {
      return static_cast<int32_t>((static_cast<uint32_t>(x) & 0xffff) * static_cast<uint32_t>(y) >> 16);
    });
  }
  // The greatest lane, and the sum of all; it must fit int32.
  int32_t greatest() const {
    int32_t most = v[0];
    for (const int32_t lane : v) most = lane > most ? lane : most;
    return most;
  }
  int32_t sum() const {
    int32_t all = 0;
    for (const int32_t lane : v) all += lane;
    return all;
  }

  // Floor of a * b / 2^32, and of (a * b + c * d) / 2^32; the sum must fit 64 bits.
  static V high(V a, V b) {
    return a.each(b, [](int32_t x, int32_t y) { return static_cast<int32_t>((int64_t{x} * y) >> 32); });
  }
  static V high(V a, V b, V c, V d) {
    V r;
    for (int i = 0; i < 16; ++i) {
      r.v[i] = static_cast<int32_t>((int64_t{a.v[i]} * b.v[i] + int64_t{c.v[i]} * d.v[i]) >> 32);
    }
    return r;
  }

  // Exact 64-bit products.
  static Wide multiply(V a, V b) {
    Wide r;
    for (int i = 0; i < 16; ++i) r.v[i] = int64_t{a.v[i]} * b.v[i];
    return r;
  }
  static Wide add(Wide a, Wide b) {
    for (int i = 0; i < 16; ++i) a.v[i] += b.v[i];
    return a;
  }
  // (x + 2^(c-1)) >> c, each lane by its own c, 2 to 62, clamped to [low, high]; |x| < 2^62.
  static V round_shift(Wide x, V c, V low, V high) {
    V r;
    for (int i = 0; i < 16; ++i) {
      const int64_t y = (x.v[i] + (int64_t{1} << (c.v[i] - 1))) >> c.v[i];
      r.v[i] = y < low.v[i] ? low.v[i] : y > high.v[i] ? high.v[i] : static_cast<int32_t>(y);
    }
    return r;
  }

 private:
  template <class T>
  static V widen(const T* p) {
    V r;
    for (int i = 0; i < 16; ++i) r.v[i] = p[i];
    return r;
  }
  template <class T>
  void narrow(T* p) const {
    for (int i = 0; i < 16; ++i) p[i] = static_cast<T>(v[i]);
  }
  template <class F>
  V each(V o, F f) const {
    V r;
    for (int i = 0; i < 16; ++i) r.v[i] = f(v[i], o.v[i]);
    return r;
  }
};

}  // namespace portable
}  // namespace mulshift

#endif
