// The most 8-bit products with 32-bit sums that one core can do here: the dot product instruction alone, on registers.
//
// Prints one JSON object: isa, gops (10^9 operations a second; a multiplication and an addition are two). Exit status 2
// and a word on standard error where none of the instructions is there.
//
// AVX-512 VNNI: vpdpbusd on zmm, 64 products. AVX2: vpmaddwd and vpaddd on 16-bit operands, 16 products, for
// vpmaddubsw saturates; the best of three orders counts. NEON: sdot, 16 products.
#include <algorithm>
#include <chrono>
#include <cstdio>

namespace {

constexpr long kLoops = 200000;
constexpr int kRuns = 100;

template <class Loop>
double gops(double products, Loop loop) {
  double best = 1e9;
  for (int i = 0; i < kRuns; ++i) {
    const auto start = std::chrono::steady_clock::now();
    loop();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return 2.0 * products * static_cast<double>(kLoops) / best * 1e-9;
}

void print(const char* isa, double value) { std::printf("{\"isa\": \"%s\", \"gops\": %.1f}\n", isa, value); }

}  // namespace

#if defined(__x86_64__)

#define DOT(d) "vpdpbusd %%zmm30, %%zmm31, %%zmm" #d "\n"
#define MUL(d) "vpmaddwd %%ymm12, %%ymm13, %%ymm" #d "\n"
#define ADD(d, s) "vpaddd %%ymm" #s ", %%ymm" #d ", %%ymm" #d "\n"
#define YMM                                                                                                       \
  "ymm0", "ymm1", "ymm2", "ymm3", "ymm4", "ymm5", "ymm6", "ymm7", "ymm8", "ymm9", "ymm10", "ymm11", "ymm12", "ymm13", \
      "ymm14", "ymm15"

namespace {

__attribute__((target("avx512f,avx512vnni"))) void dot_zmm() {
  for (long i = 0; i < kLoops; ++i) {
    asm volatile(DOT(0) DOT(1) DOT(2) DOT(3) DOT(4) DOT(5) DOT(6) DOT(7) DOT(8) DOT(9) DOT(10) DOT(11) DOT(12) DOT(13)
                     DOT(14) DOT(15) DOT(16) DOT(17) DOT(18) DOT(19) DOT(20) DOT(21) DOT(22) DOT(23)::
                         : "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", "zmm10",
                           "zmm11", "zmm12", "zmm13", "zmm14", "zmm15", "zmm16", "zmm17", "zmm18", "zmm19", "zmm20",
                           "zmm21", "zmm22", "zmm23");
  }
}

__attribute__((target("avx2"))) void one_by_one() {
  for (long i = 0; i < kLoops; ++i) {
    asm volatile(MUL(14) ADD(0, 14) MUL(15) ADD(1, 15) MUL(14) ADD(2, 14) MUL(15) ADD(3, 15) MUL(14) ADD(4, 14) MUL(15)
                     ADD(5, 15) MUL(14) ADD(6, 14) MUL(15) ADD(7, 15) MUL(14) ADD(8, 14) MUL(15) ADD(9, 15) MUL(14)
                         ADD(10, 14) MUL(15) ADD(11, 15)::: YMM);
  }
}

__attribute__((target("avx2"))) void two_by_two() {
  for (long i = 0; i < kLoops; ++i) {
    asm volatile(MUL(14) MUL(15) ADD(0, 14) ADD(1, 15) MUL(14) MUL(15) ADD(2, 14) ADD(3, 15) MUL(14) MUL(15) ADD(4, 14)
                     ADD(5, 15) MUL(14) MUL(15) ADD(6, 14) ADD(7, 15) MUL(14) MUL(15) ADD(8, 14) ADD(9, 15) MUL(14)
                         MUL(15) ADD(10, 14) ADD(11, 15)::: YMM);
  }
}

__attribute__((target("avx2"))) void four_by_four() {
  for (long i = 0; i < kLoops; ++i) {
    asm volatile(MUL(8) MUL(9) MUL(10) MUL(11) ADD(0, 8) ADD(1, 9) ADD(2, 10) ADD(3, 11) MUL(8) MUL(9) MUL(10) MUL(11)
                     ADD(4, 8) ADD(5, 9) ADD(6, 10) ADD(7, 11) MUL(8) MUL(9) MUL(10) MUL(11) ADD(0, 8) ADD(1, 9)
                         ADD(2, 10) ADD(3, 11)::: YMM);
  }
}

}  // namespace

int main() {
  if (__builtin_cpu_supports("avx512vnni")) {
    print("AVX-512 VNNI, vpdpbusd", gops(24 * 64, dot_zmm));
    return 0;
  }
  if (__builtin_cpu_supports("avx2")) {
    const double pairs = std::max({gops(12 * 16, one_by_one), gops(12 * 16, two_by_two), gops(12 * 16, four_by_four)});
    print("AVX2, vpmaddwd and vpaddd", pairs);
    return 0;
  }
  std::fputs("no AVX2\n", stderr);
  return 2;
}

#elif defined(__aarch64__)

#if defined(__linux__)
#include <sys/auxv.h>
static bool has_dot() { return (getauxval(AT_HWCAP) & (1UL << 20)) != 0; }  // HWCAP_ASIMDDP
#else
static bool has_dot() { return true; }
#endif

#define SDOT(d) "sdot v" #d ".4s, v30.16b, v31.16b\n"

static void dot_neon() {
  for (long i = 0; i < kLoops; ++i) {
    asm volatile(".arch_extension dotprod\n" SDOT(0) SDOT(1) SDOT(2) SDOT(3) SDOT(4) SDOT(5) SDOT(6) SDOT(7) SDOT(8)
                     SDOT(9) SDOT(10) SDOT(11) SDOT(12) SDOT(13) SDOT(14) SDOT(15) SDOT(16) SDOT(17) SDOT(18) SDOT(19)
                         SDOT(20) SDOT(21) SDOT(22) SDOT(23)::: "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8",
                 "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22",
                 "v23");
  }
}

int main() {
  if (has_dot()) {
    print("NEON, sdot", gops(24 * 16, dot_neon));
    return 0;
  }
  std::fputs("no NEON dot product\n", stderr);
  return 2;
}

#else

int main() {
  std::fputs("no instruction known for this machine\n", stderr);
  return 2;
}

#endif
