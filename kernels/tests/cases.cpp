// Random cases on the instruction set of MULSHIFT_ISA, a line each. Two instruction sets are equal where they print the
// same lines; tests/test_kernel_isas.py compares them.
//
//   cases SEED COUNT
#include "cases.h"

#include <cstdio>
#include <cstdlib>

#include "draw.h"
#include "isa.h"

namespace mulshift {
namespace cases {
namespace {

struct Kind {
  const char* name;
  int share;
  void (*run)();
};

const Kind kinds[] = {
    {"conv", 5, convolution}, {"pointwise", 4, pointwise}, {"depthwise", 3, depthwise}, {"three", 4, three},
    {"five", 4, five}, {"winograd", 3, winograd}, {"few-rows", 3, few_rows}, {"deep", 1, deep},
    {"requantize", 3, requantize}, {"add", 3, add}, {"mul", 2, mul}, {"affine", 2, affine},
    {"table", 1, table}, {"reduce", 2, reduce}, {"max-pool", 2, max_pool}, {"lerp", 1, lerp},
    {"attention", 4, attention}, {"softmax", 3, softmax}, {"matmul", 2, matmul}, {"norm", 2, norm},
    {"row-quantize", 1, row_quantize}, {"rotary", 2, rotary}, {"hadamard", 3, hadamard},
};

const Kind& draw_kind() {
  int all = 0;
  for (const Kind& kind : kinds) all += kind.share;
  int at = draw(0, all - 1);
  for (const Kind& kind : kinds) {
    if ((at -= kind.share) < 0) return kind;
  }
  return kinds[0];
}

}  // namespace
}  // namespace cases
}  // namespace mulshift

int main(int argc, char** argv) {
  if (argc != 3 || !mulshift::isa()) {
    std::fprintf(stderr, argc != 3 ? "usage: cases SEED COUNT\n" : "MULSHIFT_ISA names nothing that runs here\n");
    return 2;
  }
  const int seed = std::atoi(argv[1]), count = std::atoi(argv[2]);
  for (int i = 0; i < count; ++i) {
    mulshift::cases::engine.seed(static_cast<unsigned>(seed * 1000003 + i));
    const mulshift::cases::Kind& kind = mulshift::cases::draw_kind();
    std::printf("%d %s", i, kind.name);
    kind.run();
  }
  return 0;
}
