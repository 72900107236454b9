// What the elementwise operators share: broadcasting, and when 32 bits are enough.
#ifndef MULSHIFT_SRC_ORT_ELEMENTWISE_H
#define MULSHIFT_SRC_ORT_ELEMENTWISE_H

#include <initializer_list>

#include "../broadcast.h"
#include "../buffer.h"
#include "../ratios.h"
#include "operator.h"

namespace mulshift {
namespace ort {

// The greatest |x - zero_point| of an element of that type.
int64_t farthest(Type type, int32_t zero_point);

// b and c of a node as the kernels take them: constants in the fastest way, others as they come.
class Dyadics {
 public:
  // Of inputs `b_input` and `b_input + 1`, for accumulators of at most `bound`.
  void read(Node& node, size_t b_input, int64_t bound, const Output& out);
  // The operands b and c; false after a report.
  bool get(Call& call, Tensor* b, Tensor* c) const;

  const Ratio& ratio() const { return ratio_; }
  // The way for these operands: of the constants, or Way::low where computed ones allow it.
  Way way(const Tensor& b, const Tensor& c) const;

 private:
  size_t input_ = 0;
  Ratio ratio_;
  int64_t bound_ = INT32_MAX;
  bool constant_ = false, near_ = false;
  Shape shape_;
  Buffer b_, c_;
};

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
