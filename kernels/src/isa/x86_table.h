// 256 entries by vpshufb (AVX2), which takes four bits of an index and gives 0 for a negative one.
//
// Rows of 16 entries: T0..T15. For x of 0 to 127 the entry is the exclusive or of S0[x], S1[x - 16], S2[x - 32] ...
// where S0 = T0 and Sk = Tk ^ T(k-1): those up to k = x >> 4 leave Tk, later ones have a negative index. Subtracting 16
// keeps the low four bits and saturates, so a negative index stays negative. The upper half is the same on x - 128.
#ifndef MULSHIFT_SRC_ISA_X86_TABLE_H
#define MULSHIFT_SRC_ISA_X86_TABLE_H

#include <immintrin.h>

#include "../table.h"

namespace mulshift {

// A template, so that each instruction set has its own: V only tells them apart.
template <class V>
void table_bytes(const uint8_t* x, size_t n, const uint8_t* table, uint8_t* y) {
  __m256i steps[16];
  for (int k = 0; k < 16; ++k) {
    const __m128i row = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table + 16 * k));
    const __m128i before = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table + (k % 8 ? 16 * (k - 1) : 0)));
    steps[k] = _mm256_broadcastsi128_si256(k % 8 ? _mm_xor_si128(row, before) : row);
  }
  const __m256i sixteen = _mm256_set1_epi8(16), top = _mm256_set1_epi8(-128);
  size_t i = 0;
  for (; i + 32 <= n; i += 32) {
    __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i)), high = _mm256_xor_si256(low, top);
    __m256i entry = _mm256_xor_si256(_mm256_shuffle_epi8(steps[0], low), _mm256_shuffle_epi8(steps[8], high));
    for (int k = 1; k < 8; ++k) {
      low = _mm256_subs_epi8(low, sixteen);
      high = _mm256_subs_epi8(high, sixteen);
      entry = _mm256_xor_si256(entry, _mm256_shuffle_epi8(steps[k], low));
      entry = _mm256_xor_si256(entry, _mm256_shuffle_epi8(steps[8 + k], high));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + i), entry);
  }
  Table<V>::bytes(x + i, n - i, table, y + i);
}

// Words: their lower and their upper bytes are two tables.
template <class V>
void table_words(const uint8_t* x, size_t n, const int16_t* table, int16_t* y) {
  if (n < 64) return Table<V>::words(x, n, table, y);  // not worth the steps
  __m256i steps[2][16];
  const __m256i low_bytes = _mm256_set1_epi16(255);
  for (int k = 0; k < 16; ++k) {
    const __m256i row = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(table + 16 * k));
    const __m256i both = _mm256_packus_epi16(_mm256_and_si256(row, low_bytes), _mm256_srli_epi16(row, 8));
    steps[0][k] = _mm256_permute4x64_epi64(both, 0x88);
    steps[1][k] = _mm256_permute4x64_epi64(both, 0xdd);
  }
  for (auto& plane : steps) {
    for (int k = 15; k > 0; --k) {
      if (k % 8) plane[k] = _mm256_xor_si256(plane[k], plane[k - 1]);
    }
  }
  const __m256i sixteen = _mm256_set1_epi8(16), top = _mm256_set1_epi8(-128);
  size_t i = 0;
  for (; i + 32 <= n; i += 32) {
    __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i)), high = _mm256_xor_si256(low, top);
    __m256i lower = _mm256_xor_si256(_mm256_shuffle_epi8(steps[0][0], low), _mm256_shuffle_epi8(steps[0][8], high));
    __m256i upper = _mm256_xor_si256(_mm256_shuffle_epi8(steps[1][0], low), _mm256_shuffle_epi8(steps[1][8], high));
    for (int k = 1; k < 8; ++k) {
      low = _mm256_subs_epi8(low, sixteen);
      high = _mm256_subs_epi8(high, sixteen);
      lower = _mm256_xor_si256(lower, _mm256_shuffle_epi8(steps[0][k], low));
      upper = _mm256_xor_si256(upper, _mm256_shuffle_epi8(steps[1][k], low));
      lower = _mm256_xor_si256(lower, _mm256_shuffle_epi8(steps[0][8 + k], high));
      upper = _mm256_xor_si256(upper, _mm256_shuffle_epi8(steps[1][8 + k], high));
    }
    const __m256i first = _mm256_unpacklo_epi8(lower, upper), second = _mm256_unpackhi_epi8(lower, upper);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + i), _mm256_permute2x128_si256(first, second, 0x20));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + i + 16), _mm256_permute2x128_si256(first, second, 0x31));
  }
  Table<V>::words(x + i, n - i, table, y + i);
}

}  // namespace mulshift

#endif
