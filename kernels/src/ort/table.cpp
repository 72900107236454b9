// Table(x, table) -> y: an entry by the bits of x, 256 entries for 8 bits and 65,536 for 16.
#include "../table.h"

#include "../broadcast.h"
#include "../isa.h"
#include "operator.h"

namespace mulshift {
namespace ort {
namespace {

constexpr size_t kPiece = 16384;

struct Lookup {
  const Tensor *x, *table;
  void* y;

  static void run(const void* self, size_t first, size_t last) {
    const Lookup& job = *static_cast<const Lookup*>(self);
    const TableKernels& kernels = isa()->table;
    const bool words = job.table->type == Type::s16;
    if (job.x->type == Type::s16) {
      const uint16_t* x = job.x->as<uint16_t>();
      if (words) return look_up(x, first, last, job.table->as<int16_t>(), static_cast<int16_t*>(job.y));
      return look_up(x, first, last, job.table->as<uint8_t>(), static_cast<uint8_t*>(job.y));
    }
    const uint8_t* x = job.x->as<uint8_t>() + first;
    if (words) {
      return kernels.words(x, last - first, job.table->as<int16_t>(), static_cast<int16_t*>(job.y) + first);
    }
    kernels.bytes(x, last - first, job.table->as<uint8_t>(), static_cast<uint8_t*>(job.y) + first);
  }

 private:
  template <class T>
  static void look_up(const uint16_t* x, size_t first, size_t last, const T* table, T* y) {
    for (size_t i = first; i < last; ++i) y[i] = table[x[i]];
  }
};

class TableKernel final : public Kernel {
 public:
  void read(Node& node) override {
    entries_ = node.type(0) == Type::s16 ? 65536 : 256;
    const Tensor table = node.constant_or_none(1, "table");
    if (table.data && !is_table(table)) node.fail("table must have %zu elements along one axis", entries_);
  }

  bool run(Call& call) const override {
    const Tensor x = call.input(0, "x"), table = call.input(1, "table");
    if (!call.ok()) return false;
    if (!is_table(table)) return call.fail("table must have %zu elements along one axis", entries_);
    const Lookup job{&x, &table, call.output(0, x.shape)};
    if (!job.y) return false;
    for_ranges(x.shape.count(), kPiece, Lookup::run, &job, call.parallel());
    return true;
  }

 private:
  bool is_table(const Tensor& table) const { return table.shape.rank == 1 && table.shape.size(0) == entries_; }

  size_t entries_ = 256;
};

}  // namespace

Kernel* make_table() { return make<TableKernel>(); }

void infer_same(const Inference& inference) { inference.output(0, inference.input(0)); }

}  // namespace ort
}  // namespace mulshift
