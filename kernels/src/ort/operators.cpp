// The operators that have kernels, a row each. A new one is a file beside this, with its make_... function, and a row.
#include "elementwise.h"
#include "operator.h"

namespace mulshift {
namespace ort {

Kernel* make_requantize();

namespace {

constexpr OutputType kDtype = said_by("dtype");

// Name, kernel, number and types of inputs, number and types of outputs, shapes of outputs.
const Operator rows[] = {
    {"Requantize", make_requantize, 3, {U8 | S8 | S16 | S32, S32, S32}, 1, {kDtype}, infer_with_constants},
};

}  // namespace

Operators operators() { return {rows, sizeof(rows) / sizeof(rows[0])}; }

}  // namespace ort
}  // namespace mulshift
