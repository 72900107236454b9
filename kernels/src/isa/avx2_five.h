// Depthwise 5x5 on AVX2, where sums of a dozen products fit 16 bits.
//
// A column of six rows is three registers, of rows (0, 3), (1, 4), (2, 5): sixteen channels of two rows each. vpmaddubsw
// multiplies a register by two weights of a channel: those of rows 0 and 3, of 1 and 4, or of the middle row alone, for the
// upper line of windows and for the lower one. Such a slot fits 16 bits as long as its weights of one sign are within 128.
// Even and odd slots add up to a sum each, of weights times x - 128: it fits where the weights are 255 together. The 128 is a
// number that each sum begins with; on its way a sum may wrap. Both are widened together.
#ifndef MULSHIFT_SRC_ISA_AVX2_FIVE_H
#define MULSHIFT_SRC_ISA_AVX2_FIVE_H

#include "../five.h"
#include "avx2_direct.h"

namespace mulshift {
namespace avx2 {

constexpr size_t kPairRows = 3;                       // registers of a column
constexpr size_t kSlots = kPairRows * kFive;          // of a window: [kernel column][register]
constexpr size_t kStarts = kSlots * 2 * 32;           // of the two sums, after the weights
constexpr size_t kFiveBytes = kStarts + 2 * 2 * 32;   // [slot or sum][upper, lower][16 channels][2 bytes]

struct FiveStep : UnpackedSums<Panel, true> {
  static constexpr size_t kColumn = kPairRows * 32;

  template <bool TWO>
  static void lay(const DirectRow* rows, size_t x, size_t count, uint8_t* out) {
    bool alike = true;
    for (size_t i = 1; i < kFive + TWO; ++i) alike = alike && rows[i].step == rows[0].step;
    alike ? lay<TWO, true>(rows, x, count, out) : lay<TWO, false>(rows, x, count, out);
  }

  // Windows beside each other share what is read of weights.
  template <size_t COUNT, size_t STRIDE, bool LOWER>
  __attribute__((always_inline)) static void sums(const uint8_t* columns, const int8_t* w, Sum* out) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i even[COUNT], odd[COUNT];
    start<COUNT, STRIDE, 0>(columns, w + 32 * LOWER, even);
    start<COUNT, STRIDE, 1>(columns, w + 32 * LOWER, odd);
    add<COUNT, STRIDE, 2, LOWER>(columns, w, even, odd);
    for (size_t i = 0; i < COUNT; ++i) {
      out[i].v[0] = _mm256_madd_epi16(_mm256_unpacklo_epi16(even[i], odd[i]), ones);
      out[i].v[1] = _mm256_madd_epi16(_mm256_unpackhi_epi16(even[i], odd[i]), ones);
    }
  }

 private:
  using Weights = int8_t[kFiveBytes];

  // ALIKE: all rows have the same step.
  template <bool TWO, bool ALIKE>
  static void lay(const DirectRow* rows, size_t x, size_t count, uint8_t* out) {
    const size_t steps[] = {rows[0].step, rows[1].step, rows[2].step, rows[3].step, rows[4].step, rows[5].step};
    const uint8_t *a = rows[0].x + x * steps[0], *b = rows[1].x + x * steps[1], *c = rows[2].x + x * steps[2],
                  *d = rows[3].x + x * steps[3], *e = rows[4].x + x * steps[4], *f = rows[5].x + x * steps[5];
    for (; count; --count, out += kColumn) {
      write(out, Panel::pairs(a, d));
      write(out + 32, Panel::pairs(b, e));
      write(out + 64, TWO ? Panel::pairs(c, f) : Panel::widened(c));
      a += steps[0];
      b += ALIKE ? steps[0] : steps[1];
      c += ALIKE ? steps[0] : steps[2];
      d += ALIKE ? steps[0] : steps[3];
      e += ALIKE ? steps[0] : steps[4];
      if (TWO) f += ALIKE ? steps[0] : steps[5];
    }
  }

  template <size_t COUNT, size_t STRIDE, size_t SLOT>
  __attribute__((always_inline)) static void start(const uint8_t* columns, const int8_t* w, __m256i* sums) {
    const __m256i weights = read(w + 64 * SLOT), first = read(w + kStarts + 64 * SLOT);
    for (size_t i = 0; i < COUNT; ++i) {
      const __m256i x = read(columns + i * STRIDE * kColumn + 32 * SLOT);
      sums[i] = _mm256_add_epi16(_mm256_maddubs_epi16(x, weights), first);
    }
  }
  template <size_t COUNT, size_t STRIDE, size_t SLOT, bool LOWER>
  __attribute__((always_inline)) static void add(const uint8_t* columns, const int8_t* w, __m256i* even, __m256i* odd) {
    if constexpr (SLOT < kSlots) {
      const __m256i x = read(columns + 32 * SLOT);
      if constexpr (COUNT == 2) {
        add_two<64 * SLOT + 32 * LOWER>(x, read(columns + STRIDE * kColumn + 32 * SLOT), w, even[0], even[1]);
      } else {
        add_one<64 * SLOT + 32 * LOWER>(x, w, even[0]);
      }
      add<COUNT, STRIDE, SLOT + 1, LOWER>(columns, w, odd, even);
    }
  }

  // Written as instructions, in this order and with offsets in them: see ThreeBy.
  template <size_t AT>
  __attribute__((always_inline)) static void add_one(__m256i x, const int8_t* w, __m256i& sum) {
    __m256i product;
    asm volatile("vpmaddubsw %c4(%3), %2, %1\n\tvpaddw %1, %0, %0"
                 : "+x"(sum), "=&x"(product)
                 : "x"(x), "r"(w), "i"(AT), "m"(*reinterpret_cast<const Weights*>(w)));
  }
  template <size_t AT>
  __attribute__((always_inline)) static void add_two(__m256i x, __m256i y, const int8_t* w, __m256i& a, __m256i& b) {
    __m256i p, q;
    asm volatile(
        "vmovdqu %c7(%6), %3\n\t"
        "vpmaddubsw %3, %4, %2\n\t"
        "vpmaddubsw %3, %5, %3\n\t"
        "vpaddw %2, %0, %0\n\t"
        "vpaddw %3, %1, %1"
        : "+x"(a), "+x"(b), "=&x"(p), "=&x"(q)
        : "x"(x), "x"(y), "r"(w), "i"(AT), "m"(*reinterpret_cast<const Weights*>(w)));
  }
};

// The weight of row 0 to 5 from the first row of the upper line on.
inline int8_t five_weight(const int8_t* w, size_t stride, size_t row, size_t lower, size_t kx, size_t ch) {
  const size_t ky = row - lower;  // wraps: no row of the kernel
  return ky < kFive ? w[(kFive * ky + kx) * stride + ch] : int8_t{0};
}

// Puts what the sums begin with behind the weights. False: they do not fit.
inline bool start_sums(int8_t* out) {
  for (size_t i = 0; i < 2 * kPanel; ++i) {  // upper, lower, channel
    for (size_t odd = 0; odd < 2; ++odd) {
      int sum = 0, magnitude = 0;
      for (size_t slot = odd; slot < kSlots; slot += 2) {
        const int8_t* w = out + (2 * kPanel * slot + i) * 2;
        const int both = w[0] + w[1];
        if ((w[0] < 0) == (w[1] < 0) && (both < -128 || both > 128)) return false;
        sum += both;
        magnitude += (w[0] < 0 ? -w[0] : w[0]) + (w[1] < 0 ? -w[1] : w[1]);
      }
      if (magnitude > 255) return false;
      const int16_t start = static_cast<int16_t>(-128 * sum);
      std::memcpy(out + kStarts + (2 * kPanel * odd + i) * 2, &start, sizeof(start));
    }
  }
  return true;
}

inline uint8_t prepare_five(const int8_t* w, size_t stride, int8_t* out, int32_t* bias) {
  for (size_t slot = 0; slot < kSlots; ++slot) {
    for (size_t i = 0; i < 2 * kPanel; ++i) {
      for (size_t below = 0; below < 2; ++below) {
        const size_t row = slot % kPairRows + below * kPairRows;
        out[(2 * kPanel * slot + i) * 2 + below] = five_weight(w, stride, row, i / kPanel, slot / kPairRows, i % kPanel);
      }
    }
  }
  if (!start_sums(out)) return kNoWay;
  for (size_t ch = 0; ch < kPanel; ++ch) {
    for (size_t tap = 0; tap < kFive * kFive; ++tap) bias[ch] += 128 * w[tap * stride + ch];
  }
  return 0;
}

constexpr DirectKernels kFives = {1, kFiveBytes, prepare_five, {Five<FiveStep>::way()}};

}  // namespace avx2
}  // namespace mulshift

#endif
