// numpy's broadcasting as nested loops over as few axes as possible, and those loops on several threads.
#ifndef MULSHIFT_SRC_BROADCAST_H
#define MULSHIFT_SRC_BROADCAST_H

#include "shape.h"
#include "tensor.h"

namespace mulshift {

constexpr size_t kMaxOperands = 5;

// y[rows][n] from operands whose element (i, j) lies at data + i * row_stride + (varies ? j : 0), counted in elements.
struct Rows {
  size_t rows, n;
  const void* data[kMaxOperands];
  size_t row_stride[kMaxOperands];
  bool varies[kMaxOperands];
  void* y;
};

// Loops from the outermost to the innermost; strides in elements, 0 where an operand is repeated. The innermost strides
// are 0 or 1, since tensors are row-major.
struct Loops {
  size_t operands = 0, axes = 0;  // at least one axis
  size_t size[kMaxRank];
  size_t stride[kMaxOperands][kMaxRank];
};

// The shape of the result and the loops over it; false if the shapes do not fit one another.
bool make_loops(const Shape* shapes, size_t operands, Shape* result, Loops* loops);

// Cuts y, row-major of size_of(y_type), into Rows and runs task(context, rows) on each, in any order.
struct Elements {
  const void* data[kMaxOperands];
  Type types[kMaxOperands];
  void* y;
  Type y_type;
};
void for_rows(const Loops& loops, const Elements& elements, void (*task)(const void* context, const Rows& rows),
              const void* context, const Parallel& parallel);

// Runs task(context, first, last) over [0, count) in equal pieces of about `least` or more.
void for_ranges(size_t count, size_t least, void (*task)(const void* context, size_t first, size_t last),
                const void* context, const Parallel& parallel);

}  // namespace mulshift

#endif
