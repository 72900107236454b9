// Kinds of cases. Each draws one, runs it on the instruction set of MULSHIFT_ISA and prints a line of what it was and
// the hashes of its outputs.
#ifndef MULSHIFT_TESTS_CASES_H
#define MULSHIFT_TESTS_CASES_H

namespace mulshift {
namespace cases {

void convolution();
void pointwise();
void depthwise();
void three();
void five();
void winograd();
void few_rows();
void deep();

void requantize();
void add();
void mul();
void affine();

void table();
void reduce();
void max_pool();
void lerp();
void norm();
void row_quantize();
void rotary();
void hadamard();

void attention();
void softmax();
void matmul();

}  // namespace cases
}  // namespace mulshift

#endif
