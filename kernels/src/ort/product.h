// The operators of product.cpp: twenty bases, each in eight combinations of stages and as an accumulator.
#ifndef MULSHIFT_SRC_ORT_PRODUCT_H
#define MULSHIFT_SRC_ORT_PRODUCT_H

#include "operator.h"

namespace mulshift {
namespace ort {

constexpr size_t kProducts = 20 * 9;
extern const Operator products[kProducts];

}  // namespace ort
}  // namespace mulshift

#endif
