// Depthwise 5x5 on AVX2, where sums of a few products fit 16 bits.
//
// A column of six rows is three registers, of rows (0, 3), (1, 4), (2, 5): sixteen channels of two rows each. vpmaddubsw
// multiplies a register by two weights of a channel: of rows 0 and 3, 1 and 4, or of the middle row alone, for the upper
// line of windows and for the lower one. Two of these slots fit 16 bits as long as no two weights of one sign leave 128. Every
// GROUPS-th slot adds to one sum of x - 128 times the weights: these fit where weights are 255 together. The 128 is a number
// that each sum begins with; sums of x itself may wrap on the way. Pairs of sums are widened together.
#ifndef MULSHIFT_SRC_ISA_AVX2_FIVE_H
#define MULSHIFT_SRC_ISA_AVX2_FIVE_H

#include "../five.h"
#include "avx2_direct.h"

namespace mulshift {
namespace avx2 {

constexpr size_t kFiveRows = 3;                      // registers of a column
constexpr size_t kSlots = kFiveRows * kFive;         // of a window: [kernel column][register]
constexpr size_t kStarts = kSlots * 2 * 32;          // of the sums, after the weights
constexpr size_t kGroups = 4;                        // at most
constexpr size_t kFiveBytes = kStarts + kGroups * 2 * 32;  // [slot or group][upper, lower][16 channels][2 bytes]

template <size_t GROUPS>
struct FiveStep : UnpackedSums {
  static constexpr size_t kColumn = kFiveRows * 32;

  template <bool TWO>
  static void lay(const DirectRow* rows, size_t x, size_t count, uint8_t* out) {
    size_t step = 0;
    bool alike = true;
    for (size_t i = 0; i < kFive + TWO; ++i) {
      if (i) alike = alike && rows[i].step == step;
      step = rows[i].step;
    }
    alike ? lay<TWO, true>(rows, x, count, out) : lay<TWO, false>(rows, x, count, out);
  }

  template <size_t COUNT, size_t STRIDE, bool LOWER>
  __attribute__((always_inline)) static void sums(const uint8_t* columns, const int8_t* w, Sum* out) {
    Groups<COUNT, STRIDE, LOWER, 0>::run(columns, w, out);
    if constexpr (GROUPS > 2) {
      Sum more[COUNT];
      Groups<COUNT, STRIDE, LOWER, 2>::run(columns, w, more);
      for (size_t i = 0; i < COUNT; ++i) {
        for (size_t half = 0; half < 2; ++half) out[i].v[half] = _mm256_add_epi32(out[i].v[half], more[i].v[half]);
      }
    }
  }

 private:
  template <bool TWO, bool ALIKE>
  static void lay(const DirectRow* rows, size_t x, size_t count, uint8_t* out) {
    const size_t steps[] = {rows[0].step, rows[1].step, rows[2].step, rows[3].step, rows[4].step, rows[5].step};
    const uint8_t *a = rows[0].x + x * steps[0], *b = rows[1].x + x * steps[1], *c = rows[2].x + x * steps[2],
                  *d = rows[3].x + x * steps[3], *e = rows[4].x + x * steps[4], *f = rows[5].x + x * steps[5];
    for (; count; --count, out += kColumn) {
      write(out, pairs(twice(a), twice(d)));
      write(out + 32, pairs(twice(b), twice(e)));
      write(out + 64, TWO ? pairs(twice(c), twice(f)) : _mm256_cvtepu8_epi16(read128(c)));
      a += steps[0];
      b += ALIKE ? steps[0] : steps[1];
      c += ALIKE ? steps[0] : steps[2];
      d += ALIKE ? steps[0] : steps[3];
      e += ALIKE ? steps[0] : steps[4];
      if (TWO) f += ALIKE ? steps[0] : steps[5];
    }
  }

  // Two groups of COUNT windows.
  template <size_t COUNT, size_t STRIDE, bool LOWER, size_t GROUP>
  struct Groups {
    __attribute__((always_inline)) static void run(const uint8_t* columns, const int8_t* w, Sum* out) {
      const __m256i ones = _mm256_set1_epi16(1);
      __m256i x[COUNT], y[COUNT];
      start<GROUP>(columns, w, x);
      start<GROUP + 1>(columns, w, y);
      add<GROUP + GROUPS>(columns, w, x, y);
      for (size_t i = 0; i < COUNT; ++i) {
        out[i].v[0] = _mm256_madd_epi16(_mm256_unpacklo_epi16(x[i], y[i]), ones);
        out[i].v[1] = _mm256_madd_epi16(_mm256_unpackhi_epi16(x[i], y[i]), ones);
      }
    }

   private:
    template <size_t SLOT>
    static constexpr size_t kAt = (2 * SLOT + LOWER) * 32;

    template <size_t SLOT>
    __attribute__((always_inline)) static void start(const uint8_t* columns, const int8_t* w, __m256i* sums) {
      const __m256i weights = read(w + kAt<SLOT>), first = read(w + kStarts + kAt<SLOT>);
      for (size_t i = 0; i < COUNT; ++i) {
        sums[i] = _mm256_add_epi16(_mm256_maddubs_epi16(read(columns + i * STRIDE * kColumn + 32 * SLOT), weights), first);
      }
    }
    template <size_t SLOT>
    __attribute__((always_inline)) static void add(const uint8_t* columns, const int8_t* w, __m256i* x, __m256i* y) {
      if constexpr (SLOT < kSlots) one<SLOT>(columns, w, x);
      if constexpr (SLOT + 1 < kSlots) one<SLOT + 1>(columns, w, y);
      if constexpr (SLOT + GROUPS < kSlots) add<SLOT + GROUPS>(columns, w, x, y);
    }
    template <size_t SLOT>
    __attribute__((always_inline)) static void one(const uint8_t* columns, const int8_t* w, __m256i* sums) {
      const __m256i x = read(columns + 32 * SLOT);
      if constexpr (COUNT == 2) {
        add_two<kAt<SLOT>>(x, read(columns + STRIDE * kColumn + 32 * SLOT), w, sums[0], sums[1]);
      } else {
        add_one<kAt<SLOT>>(x, w, sums[0]);
      }
    }
  };

  using Weights = int8_t[kFiveBytes];

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

// The weight of a row of a slot, 0 to 5 from the first one of the upper line.
inline int8_t five_weight(const int8_t* w, size_t stride, size_t row, size_t lower, size_t kx, size_t ch) {
  const size_t ky = row - lower;  // wraps: no row of the kernel
  return ky < kFive ? w[(kFive * ky + kx) * stride + ch] : int8_t{0};
}

// Sums of groups of every `groups`-th slot. False: they do not fit.
inline bool start_groups(size_t groups, int8_t* out) {
  for (size_t i = 0; i < 2 * kPanel; ++i) {  // upper, lower, channel
    for (size_t group = 0; group < groups; ++group) {
      int sum = 0, magnitude = 0;
      for (size_t slot = group; slot < kSlots; slot += groups) {
        const int8_t* w = out + (2 * kPanel * slot + i) * 2;
        const int both = w[0] + w[1];
        if ((w[0] < 0) == (w[1] < 0) && (both < -128 || both > 128)) return false;
        sum += both;
        magnitude += (w[0] < 0 ? -w[0] : w[0]) + (w[1] < 0 ? -w[1] : w[1]);
      }
      if (magnitude > 255) return false;
      const int16_t start = static_cast<int16_t>(-128 * sum);
      std::memcpy(out + kStarts + (2 * kPanel * group + i) * 2, &start, sizeof(start));
    }
  }
  return true;
}

inline uint8_t prepare_five(const int8_t* w, size_t stride, int8_t* out, int32_t* bias) {
  for (size_t slot = 0; slot < kSlots; ++slot) {
    for (size_t i = 0; i < 2 * kPanel; ++i) {
      for (size_t row = slot % kFiveRows; row < 2 * kFiveRows; row += kFiveRows) {
        const size_t at = (2 * kPanel * slot + i) * 2 + row / kFiveRows;
        out[at] = five_weight(w, stride, row, i / kPanel, slot / kFiveRows, i % kPanel);
      }
    }
  }
  const uint8_t way = start_groups(2, out) ? 0 : start_groups(kGroups, out) ? 1 : kNoWay;
  if (way == kNoWay) return way;
  for (size_t ch = 0; ch < kPanel; ++ch) {
    for (size_t tap = 0; tap < kFive * kFive; ++tap) bias[ch] += 128 * w[tap * stride + ch];
  }
  return way;
}

constexpr DirectKernels kFives = {kFiveBytes, prepare_five, {Five<FiveStep<2>>::way(), Five<FiveStep<kGroups>>::way(), {}}};

}  // namespace avx2
}  // namespace mulshift

#endif
