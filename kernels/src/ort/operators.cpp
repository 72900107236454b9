// The operators that have kernels, a row each. A new one is a file beside this, with its make_... function, and a row.
#include "elementwise.h"
#include "operator.h"
#include "product.h"

namespace mulshift {
namespace ort {

Kernel* make_add();
Kernel* make_affine();
Kernel* make_layer_norm();
Kernel* make_layer_norm_row_quantize();
Kernel* make_attention();
Kernel* make_flat_attention();
Kernel* make_flat_masked_attention();
Kernel* make_hadamard();
Kernel* make_lerp();
Kernel* make_masked_attention();
Kernel* make_matmul();
Kernel* make_max_pool();
Kernel* make_mul();
Kernel* make_reduce_mean();
Kernel* make_requantize();
Kernel* make_rms_norm();
Kernel* make_rms_norm_row_quantize();
Kernel* make_row_quantize();
Kernel* make_rotary();
Kernel* make_slice_pad();
Kernel* make_softmax();
Kernel* make_table();

void infer_attention(const Inference& inference);
void infer_flat_attention(const Inference& inference);
void infer_lerp(const Inference& inference);
void infer_matmul(const Inference& inference);
void infer_max_pool(const Inference& inference);
void infer_reduce_mean(const Inference& inference);
void infer_row_quantize(const Inference& inference);
void infer_same(const Inference& inference);
void infer_slice_pad(const Inference& inference);

namespace {

constexpr OutputType kDtype = said_by("dtype");
constexpr Types kSmall = U8 | S8 | S16;
constexpr OutputType kRows[] = {always(Type::u8), always(Type::s32)};

// Name, kernel, number and types of inputs, number and types of outputs, shapes of outputs.
const Operator rows[] = {
    {"Add", make_add, 2, {kSmall, kSmall}, 1, {kDtype}, infer_of_two},
    {"Affine", make_affine, 5, {kSmall, S32, S32, S32, S32}, 1, {kDtype}, infer_with_constants},
    {"LayerNorm", make_layer_norm, 3, {kSmall, S32, S32}, 1, {kDtype}, infer_same},
    {"LayerNormRowQuantize", make_layer_norm_row_quantize, 3, {kSmall, S32, S32}, 2, {kRows[0], kRows[1]}, infer_row_quantize},
    {"Attention", make_attention, 3, {U8, S8, S8}, 1, {kDtype}, infer_attention},
    {"FlatAttention", make_flat_attention, 3, {U8, S8, S8}, 1, {kDtype}, infer_flat_attention},
    {"FlatMaskedAttention", make_flat_masked_attention, 4, {U8, S8, S8, BOOL}, 1, {kDtype}, infer_flat_attention},
    {"Hadamard", make_hadamard, 2, {kSmall, S8}, 1, {kDtype}, infer_same},
    {"Lerp", make_lerp, 5, {kSmall | S32, S64, S64, S32, S32}, 1, {always(Type::s32)}, infer_lerp},
    {"MaskedAttention", make_masked_attention, 4, {U8, S8, S8, BOOL}, 1, {kDtype}, infer_attention},
    {"MatMul", make_matmul, 4, {U8, S8, S32, S32}, 1, {kDtype}, infer_matmul},
    {"MaxPoolNhwc", make_max_pool, 1, {U8 | S8}, 1, {as_input(0)}, infer_max_pool},
    {"Mul", make_mul, 2, {kSmall, kSmall}, 1, {kDtype}, infer_of_two},
    {"ReduceMean", make_reduce_mean, 2, {kSmall, S64}, 1, {kDtype}, infer_reduce_mean},
    {"Requantize", make_requantize, 3, {kSmall | S32, S32, S32}, 1, {kDtype}, infer_with_constants},
    {"RmsNorm", make_rms_norm, 3, {kSmall, S32, S32}, 1, {kDtype}, infer_same},
    {"RmsNormRowQuantize", make_rms_norm_row_quantize, 3, {kSmall, S32, S32}, 2, {kRows[0], kRows[1]}, infer_row_quantize},
    {"RowQuantize", make_row_quantize, 1, {kSmall}, 2, {kRows[0], kRows[1]}, infer_row_quantize},
    {"RotaryEmbedding", make_rotary, 3, {kSmall, S16, S16}, 1, {kDtype}, infer_same},
    {"SlicePad", make_slice_pad, 1, {U8 | S8}, 1, {as_input(0)}, infer_slice_pad},
    {"Softmax", make_softmax, 1, {kSmall | S32}, 1, {kDtype}, infer_same},
    {"Table", make_table, 2, {kSmall, kSmall}, 1, {as_input(1)}, infer_same},
};

constexpr size_t kCount = sizeof(rows) / sizeof(rows[0]);

}  // namespace

size_t operator_count() { return kCount + kProducts; }

const Operator& operator_at(size_t i) { return i < kCount ? rows[i] : products[i - kCount]; }

}  // namespace ort
}  // namespace mulshift
