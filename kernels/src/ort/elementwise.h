// What the elementwise operators share: broadcasting, and when 32 bits are enough.
#ifndef MULSHIFT_SRC_ORT_ELEMENTWISE_H
#define MULSHIFT_SRC_ORT_ELEMENTWISE_H

#include <initializer_list>

#include "../broadcast.h"
#include "operator.h"

namespace mulshift {
namespace ort {

// The greatest |x - zero_point| of an element of that type.
int64_t farthest(Type type, int32_t zero_point);

// Whether acc * b + 2^(c-1) and what follows fit int32 for every |acc| <= bound, b and c.
bool is_narrow(int64_t bound, int64_t b, int64_t c, const Output& out);
bool is_narrow(int64_t bound, const Tensor& b, const Tensor& c, const Output& out);

// b and c computed at run time; false after a report.
bool check_dyadic(Call& call, const Tensor& b, const Tensor& c);

// Calls kernel(spec, rows) over the broadcast operands into output 0.
template <class Spec>
bool run_elementwise(Call& call, std::initializer_list<Tensor> operands, const Spec& spec,
                     void (*kernel)(const Spec& spec, const Rows& rows)) {
  struct Task {
    const Spec* spec;
    void (*kernel)(const Spec& spec, const Rows& rows);
    static void run(const void* self, const Rows& rows) {
      const Task& task = *static_cast<const Task*>(self);
      task.kernel(*task.spec, rows);
    }
  };
  Shape shapes[kMaxOperands], result;
  Elements elements;
  Loops loops;
  size_t n = 0;
  for (const Tensor& operand : operands) {
    shapes[n] = operand.shape;
    elements.types[n] = operand.type;
    elements.data[n++] = operand.data;
  }
  if (!make_loops(shapes, n, &result, &loops)) return call.fail("the shapes of its inputs do not broadcast");
  elements.y_type = spec.out.type;
  elements.y = call.output(0, result);
  if (!elements.y) return false;
  const Task task{&spec, kernel};
  for_rows(loops, elements, Task::run, &task, call.parallel());
  return true;
}

// Output 0 is as inputs 0 (and 1) broadcast; b and c, or what else is constant, may be scalars.
void infer_with_constants(const Inference& inference);
void infer_of_two(const Inference& inference);

}  // namespace ort
}  // namespace mulshift

#endif
