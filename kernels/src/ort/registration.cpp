// RegisterCustomOps: what ONNX Runtime calls in a library given to `register_custom_ops_library`.
//
// Each operator is registered once for every combination of its input types, all under one name: so ONNX Runtime
// itself refuses a node of other types, and an output that has the type of an input needs no inference. That takes about
// 50 KB and 0.1 ms for each operator in every session: `mulshift.session` registers those of its model only.
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "../isa.h"
#include "custom_op.h"
#include "mulshift/kernels.h"
#include "operator.h"

namespace mulshift {
namespace ort {
namespace {

constexpr const char* kDomain = "mulshift";

// One operator for one combination of input types. ONNX Runtime hands the base back to each callback.
struct Entry : CustomOp {
  const void* api = nullptr;
  const Operator* row = nullptr;
  Type types[kMaxInputs] = {};
};

const Entry& entry_of(const CustomOp* op) { return *static_cast<const Entry*>(op); }

Status* error(const void* api, const char* message) { return CreateStatus(api, invalid_argument, message); }

// none where an attribute says it.
Type fixed_type(const Entry& entry, size_t output) {
  const OutputType& rule = entry.row->output_types[output];
  if (rule.attribute) return Type::none;
  return rule.input >= 0 ? entry.types[rule.input] : rule.type;
}

Type declared_type(const void* api, const KernelInfo* info, size_t output) {
  TypeInfo* owner = nullptr;
  const TypeAndShape* tensor = nullptr;
  int type = 0;
  if (!succeeded(api, KernelInfo_GetOutputTypeInfo(api, info, output, &owner))) return Type::none;
  if (!succeeded(api, CastTypeInfoToTensorInfo(api, owner, &tensor)) || !tensor ||
      !succeeded(api, GetTensorElementType(api, tensor, &type))) {
    type = 0;
  }
  ReleaseTypeInfo(api, owner);
  return static_cast<Type>(type);
}

// What a kernel writes is what ONNX Runtime has made room for.
void check_outputs(const void* api, const KernelInfo* info, const Entry& entry, Node& node) {
  size_t count = 0;
  if (!succeeded(api, KernelInfo_GetOutputCount(api, info, &count)) || count != entry.row->outputs) {
    node.fail("%s has %zu outputs, not %zu", entry.row->name, entry.row->outputs, count);
    return;
  }
  for (size_t i = 0; i < count; ++i) {
    const OutputType& rule = entry.row->output_types[i];
    const Type made = rule.attribute ? static_cast<Type>(node.s32(rule.attribute)) : fixed_type(entry, i);
    const Type declared = declared_type(api, info, i);
    if (node.ok() && made != declared) {
      node.fail("output %zu is %s, but the graph declares %s", i, name_of(made), name_of(declared));
    }
  }
}

Status* create_kernel(const CustomOp* op, const void* api, const KernelInfo* info, void** made) {
  const Entry& entry = entry_of(op);
  Kernel* kernel = entry.row->make();
  if (!kernel) return error(api, "out of memory");
  size_t size = sizeof(kernel->name);
  if (!succeeded(api, KernelInfo_GetNodeName(api, info, kernel->name, &size)) || !kernel->name[0]) {
    std::snprintf(kernel->name, sizeof(kernel->name), "%s", entry.row->name);
  }
  kernel->api = api;
  Node node(api, info, entry.row->name, entry.types, kernel->name);
  if (!isa()) node.fail("MULSHIFT_ISA names no instruction set that this machine runs");
  check_outputs(api, info, entry, node);
  if (node.ok()) kernel->read(node);
  if (node.ok()) {
    *made = kernel;
    return nullptr;
  }
  Status* status = error(api, node.message());
  delete kernel;
  return status;
}

Status* run_kernel(void* made, KernelContext* context) {
  const Kernel& kernel = *static_cast<const Kernel*>(made);
  Call call(kernel.api, context, kernel.name);
  if (kernel.run(call) && call.ok()) return nullptr;
  return error(kernel.api, call.message());
}

// ONNX Runtime asks the first entry of the name, whatever the types, and neither reads nor releases a status from here.
Status* infer(const CustomOp* op, ShapeInferContext* context) {
  const Entry& entry = entry_of(op);
  Type outputs[kMaxOutputs];
  const Inference reader(entry.api, context, outputs);
  for (size_t i = 0; i < entry.row->outputs; ++i) {
    const OutputType& rule = entry.row->output_types[i];
    if (rule.attribute) {
      outputs[i] = static_cast<Type>(reader.integer(rule.attribute, 0));
    } else {
      outputs[i] = rule.input >= 0 ? reader.type(static_cast<size_t>(rule.input)) : rule.type;
    }
  }
  entry.row->infer(reader);
  return nullptr;
}

void fill(Entry& entry) {
  entry.version = api_version;
  entry.get_name = [](const CustomOp* op) { return entry_of(op).row->name; };
  entry.get_execution_provider_type = [](const CustomOp*) -> const char* { return nullptr; };
  entry.get_input_type_count = [](const CustomOp* op) { return entry_of(op).row->inputs; };
  entry.get_input_type = [](const CustomOp* op, size_t i) { return static_cast<int>(entry_of(op).types[i]); };
  entry.get_input_characteristic = [](const CustomOp*, size_t) -> int { return required; };
  entry.get_input_memory_type = [](const CustomOp*, size_t) { return 0; };
  entry.get_output_type_count = [](const CustomOp* op) { return entry_of(op).row->outputs; };
  // Undefined means any; ONNX Runtime allows that for optional outputs whatever the inputs are.
  entry.get_output_type = [](const CustomOp* op, size_t i) { return static_cast<int>(fixed_type(entry_of(op), i)); };
  entry.get_output_characteristic = [](const CustomOp* op, size_t i) -> int {
    return fixed_type(entry_of(op), i) == Type::none ? optional : required;
  };
  const auto one = [](const CustomOp*) { return 1; };
  entry.get_variadic_input_min_arity = entry.get_variadic_input_homogeneity = one;
  entry.get_variadic_output_min_arity = entry.get_variadic_output_homogeneity = one;
  entry.get_start_version = one;
  entry.get_end_version = [](const CustomOp*) { return INT32_MAX; };
  entry.create_kernel_v2 = create_kernel;
  entry.kernel_compute_v2 = run_kernel;
  entry.kernel_destroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  if (entry.row->infer) entry.infer_output_shape = infer;
}

size_t combinations(const Operator& row) {
  size_t n = 1;
  for (size_t i = 0; i < row.inputs; ++i) n *= static_cast<size_t>(__builtin_popcount(row.types[i]));
  return n;
}

// The n-th type of a set.
Type pick(Types types, size_t n) {
  int code = 0;
  for (;; ++code) {
    if (types >> code & 1 && n-- == 0) break;
  }
  return static_cast<Type>(code);
}

thread_local const char* names_wanted = nullptr;  // mulshift_register_only

bool is_wanted(const char* names, const char* name) {
  const size_t length = std::strlen(name);
  for (const char* at = names; at && (at = std::strstr(at, name)); at += length) {
    if (at != names && at[-1] == ',' && at[length] == ',') return true;
  }
  return !names;
}

// A domain and its operators live as long as the library: sessions keep pointers to them. One for each ONNX Runtime in the
// process and each set of names that was wanted.
struct Library {
  const void* api;
  char* names;  // null: all operators
  Domain* domain;
  Entry* entries;
  Library* next;

  bool is(const void* api_, const char* names_) const {
    return api == api_ && (names && names_ ? !std::strcmp(names, names_) : names == names_);
  }
};

Status* add_operators(Library& library) {
  size_t used = 0;
  for (size_t r = 0; r < operator_count(); ++r) {
    const Operator& row = operator_at(r);
    if (!is_wanted(library.names, row.name)) continue;
    for (size_t n = 0; n < combinations(row); ++n) {
      Entry& entry = library.entries[used++];
      entry.api = library.api;
      entry.row = &row;
      size_t rest = n;
      for (size_t i = 0; i < row.inputs; ++i) {
        const size_t choices = static_cast<size_t>(__builtin_popcount(row.types[i]));
        entry.types[i] = pick(row.types[i], rest % choices);
        rest /= choices;
      }
      fill(entry);
      if (Status* wrong = CustomOpDomain_Add(library.api, library.domain, static_cast<CustomOp*>(&entry))) return wrong;
    }
  }
  return nullptr;
}

void drop(Library* library) {
  if (!library) return;
  if (library->domain) ReleaseCustomOpDomain(library->api, library->domain);
  delete[] library->entries;
  delete[] library->names;
  delete library;
}

Status* make_library(const void* api, const char* names, Library** made) {
  const size_t length = names ? std::strlen(names) + 1 : 0;
  size_t count = 0;
  for (size_t r = 0; r < operator_count(); ++r) {
    if (is_wanted(names, operator_at(r).name)) count += combinations(operator_at(r));
  }
  char* copy = names ? new (std::nothrow) char[length] : nullptr;
  Library* library = new (std::nothrow) Library{api, copy, nullptr, new (std::nothrow) Entry[count], nullptr};
  if (!library || !library->entries || (names && !copy)) {
    if (!library) delete[] copy;
    drop(library);
    return error(api, "mulshift: out of memory");
  }
  if (names) std::memcpy(copy, names, length);
  Status* wrong = CreateCustomOpDomain(api, kDomain, &library->domain);
  if (!wrong) wrong = add_operators(*library);
  wrong ? drop(library) : static_cast<void>(*made = library);
  return wrong;
}

Status* library_of(const void* api, const char* names, Library** found) {
  static std::mutex mutex;
  static Library* first = nullptr;
  const std::lock_guard<std::mutex> guard(mutex);
  for (*found = first; *found; *found = (*found)->next) {
    if ((*found)->is(api, names)) return nullptr;
  }
  Status* wrong = make_library(api, names, found);
  if (wrong) return wrong;
  (*found)->next = first;
  first = *found;
  return nullptr;
}

// 31 of "1.31.1".
int minor_version(const ApiBase* base) {
  const char* dot = std::strchr(base->get_version(), '.');
  return dot ? std::atoi(dot + 1) : 0;
}

}  // namespace
}  // namespace ort
}  // namespace mulshift

extern "C" void mulshift_register_only(const char* names) { mulshift::ort::names_wanted = names; }

extern "C" int32_t mulshift_has_operator(const char* name) {
  for (size_t i = 0; i < mulshift::ort::operator_count(); ++i) {
    if (!std::strcmp(mulshift::ort::operator_at(i).name, name)) return 1;
  }
  return 0;
}

extern "C" MULSHIFT_API mulshift::ort::Status* RegisterCustomOps(mulshift::ort::SessionOptions* options,
                                                                 const mulshift::ort::ApiBase* base) {
  using namespace mulshift::ort;
  const void* api = base->get_api(api_version);
  if (!api) return error(base->get_api(1), "mulshift: the kernels need ONNX Runtime 1.17 or newer");
  if (minor_version(base) < 24) copy_shapes();
  Library* library = nullptr;
  if (Status* wrong = library_of(api, names_wanted, &library)) return wrong;
  return AddCustomOpDomain(api, options, library->domain);
}
