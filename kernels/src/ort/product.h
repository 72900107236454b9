// The operators of product.cpp: bases, each in eight combinations of stages and as an accumulator; matrices by rows too, one
// with a rescaling.
#ifndef MULSHIFT_SRC_ORT_PRODUCT_H
#define MULSHIFT_SRC_ORT_PRODUCT_H

#include "operator.h"

namespace mulshift {
namespace ort {

constexpr size_t kProducts = 27 * 9 + 9 * 8 + 1;
extern const Operator products[kProducts];

}  // namespace ort
}  // namespace mulshift

#endif
