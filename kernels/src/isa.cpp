// Which table of kernels this process uses.
#include "isa.h"

#include <cstdlib>
#include <cstring>

#include "mulshift/kernels.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace mulshift {
namespace {

struct Choice {
  const Isa* isa;
  bool (*runs)();
};

bool always() { return true; }

#if defined(MULSHIFT_AVX2)
bool runs_avx2() {
  __builtin_cpu_init();  // not every compiler's runtime has done so by now
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
}
#endif
#if defined(MULSHIFT_EMULATED)
bool runs_avx512vnni() { return true; }
#elif defined(MULSHIFT_AVX512VNNI)
bool runs_avx512vnni() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}
#endif
#if defined(MULSHIFT_NEONDOT)
bool runs_neondot() {
#if defined(__linux__)
  constexpr unsigned long asimddp = 1ul << 20;  // HWCAP_ASIMDDP of the Linux ABI
  return getauxval(AT_HWCAP) & asimddp;
#else
  return true;  // every 64-bit Arm of Apple and of Windows on Arm
#endif
}
#endif

// The best first.
const Choice choices[] = {
#if defined(MULSHIFT_AVX512VNNI)
    {&avx512vnni_isa, runs_avx512vnni},
#endif
#if defined(MULSHIFT_AVX2)
    {&avx2_isa, runs_avx2},
#endif
#if defined(MULSHIFT_NEONDOT)
    {&neondot_isa, runs_neondot},
#endif
    {&portable_isa, always},
};

const Isa* choose() {
  const char* name = std::getenv("MULSHIFT_ISA");
  for (const Choice& choice : choices) {
    if (name && name[0] && std::strcmp(name, choice.isa->name) != 0) continue;
    if (choice.runs()) return choice.isa;
  }
  return nullptr;
}

}  // namespace

const Isa* isa() {
  static const Isa* const chosen = choose();
  return chosen;
}

}  // namespace mulshift

extern "C" const char* mulshift_isa(void) {
  const mulshift::Isa* isa = mulshift::isa();
  return isa ? isa->name : nullptr;
}

extern "C" const char* mulshift_runnable_isa(size_t i) {
  for (const mulshift::Choice& choice : mulshift::choices) {
    if (choice.runs() && i-- == 0) return choice.isa->name;
  }
  return nullptr;
}
