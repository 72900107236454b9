// ONNX Runtime's C API as this library sees it. No header of ONNX Runtime is needed, so one build serves 1.20 and
// newer.
//
// The API is `OrtApi`, a table of function pointers that is only ever appended to: the n-th pointer of a version is the
// n-th pointer of every later one. A function is named here by its slot; the declarations are those of
// onnxruntime_c_api.h. Statuses are null for success and owned by whoever receives them.
#ifndef MULSHIFT_SRC_ORT_API_H
#define MULSHIFT_SRC_ORT_API_H

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace mulshift {
namespace ort {

// The version asked for: what ONNX Runtime 1.17 and everything newer has.
constexpr uint32_t api_version = 17;

// Opaque handles, one type each so that they are not confused.
struct Status;
struct SessionOptions;
struct Domain;
struct KernelInfo;
struct KernelContext;
struct ShapeInferContext;
struct OpAttribute;
struct Value;
struct TypeAndShape;
struct TypeInfo;

struct ApiBase {
  const void* (*get_api)(uint32_t version);
  const char* (*get_version)();
};

enum ErrorCode : int { fail = 1, invalid_argument = 2 };
enum OpAttributeType : int { attribute_int = 1, attribute_ints = 2 };

template <int index, class Function>
struct Slot;

// OrtApi->slot(arguments...), typed by the slot.
template <int index, class R, class... A>
struct Slot<index, R(A...)> {
  using Function = R (*)(A...);
  R operator()(const void* api, A... arguments) const {
    Function f;
    std::memcpy(&f, static_cast<const char*>(api) + sizeof(f) * index, sizeof(f));
    return f(arguments...);
  }
};

constexpr Slot<0, Status*(ErrorCode, const char*)> CreateStatus;
constexpr Slot<26, Status*(const char*, Domain**)> CreateCustomOpDomain;
constexpr Slot<27, Status*(Domain*, const void*)> CustomOpDomain_Add;
constexpr Slot<28, Status*(SessionOptions*, Domain*)> AddCustomOpDomain;
constexpr Slot<51, Status*(Value*, void**)> GetTensorMutableData;
constexpr Slot<55, Status*(const TypeInfo*, const TypeAndShape**)> CastTypeInfoToTensorInfo;
constexpr Slot<57, Status*(TypeAndShape**)> CreateTensorTypeAndShapeInfo;
constexpr Slot<58, Status*(TypeAndShape*, int)> SetTensorElementType;
constexpr Slot<59, Status*(TypeAndShape*, const int64_t*, size_t)> SetDimensions;
constexpr Slot<60, Status*(const TypeAndShape*, int*)> GetTensorElementType;
constexpr Slot<61, Status*(const TypeAndShape*, size_t*)> GetDimensionsCount;
constexpr Slot<62, Status*(const TypeAndShape*, int64_t*, size_t)> GetDimensions;
constexpr Slot<63, Status*(const TypeAndShape*, const char**, size_t)> GetSymbolicDimensions;
constexpr Slot<65, Status*(const Value*, TypeAndShape**)> GetTensorTypeAndShape;
constexpr Slot<86, Status*(const KernelInfo*, const char*, int64_t*)> KernelInfoGetAttribute_int64;
constexpr Slot<87, Status*(const KernelInfo*, const char*, char*, size_t*)> KernelInfoGetAttribute_string;
constexpr Slot<88, Status*(const KernelContext*, size_t*)> KernelContext_GetInputCount;
constexpr Slot<90, Status*(const KernelContext*, size_t, const Value**)> KernelContext_GetInput;
constexpr Slot<91, Status*(KernelContext*, size_t, const int64_t*, size_t, Value**)> KernelContext_GetOutput;
constexpr Slot<93, void(Status*)> ReleaseStatus;
constexpr Slot<98, void(TypeInfo*)> ReleaseTypeInfo;
constexpr Slot<99, void(TypeAndShape*)> ReleaseTensorTypeAndShapeInfo;
constexpr Slot<101, void(Domain*)> ReleaseCustomOpDomain;
constexpr Slot<163, Status*(const KernelInfo*, const char*, int64_t*, size_t*)> KernelInfoGetAttributeArray_int64;
constexpr Slot<230, Status*(const KernelInfo*, size_t*)> KernelInfo_GetInputCount;
constexpr Slot<231, Status*(const KernelInfo*, size_t*)> KernelInfo_GetOutputCount;
constexpr Slot<235, Status*(const KernelInfo*, size_t, TypeInfo**)> KernelInfo_GetOutputTypeInfo;
constexpr Slot<244, Status*(const KernelInfo*, char*, size_t*)> KernelInfo_GetNodeName;
constexpr Slot<249, Status*(const KernelInfo*, size_t, int*, const Value**)> KernelInfoGetConstantInput_tensor;
constexpr Slot<267, Status*(const ShapeInferContext*, size_t*)> ShapeInferContext_GetInputCount;
constexpr Slot<268, Status*(const ShapeInferContext*, size_t, TypeAndShape**)> ShapeInferContext_GetInputTypeShape;
constexpr Slot<269, Status*(const ShapeInferContext*, const char*, const OpAttribute**)> ShapeInferContext_GetAttribute;
constexpr Slot<270, Status*(const ShapeInferContext*, size_t, const TypeAndShape*)>
    ShapeInferContext_SetOutputTypeShape;
constexpr Slot<271, Status*(TypeAndShape*, const char**, size_t)> SetSymbolicDimensions;
constexpr Slot<272, Status*(const OpAttribute*, OpAttributeType, void*, size_t, size_t*)> ReadOpAttr;
constexpr Slot<274, Status*(const KernelContext*, void (*)(void*, size_t), size_t, size_t, void*)>
    KernelContext_ParallelFor;
// From ONNX Runtime 1.24 on.
constexpr Slot<414, Status*(const Value*, int*, const int64_t**, size_t*)> GetTensorElementTypeAndShapeDataReference;

}  // namespace ort
}  // namespace mulshift

#endif
