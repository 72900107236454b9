/* The C ABI of the kernel library: plain pointers and fixed-width integers, callable from any language.
 *
 * No function allocates, throws, keeps state (but mulshift_register_only) or touches memory outside what its comment says. Pointers need the
 * alignment of their element type only. Arguments outside the stated ranges are the caller's error. */
#ifndef MULSHIFT_KERNELS_H
#define MULSHIFT_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(MULSHIFT_BUILDING)
#define MULSHIFT_API __declspec(dllexport)
#elif defined(_WIN32)
#define MULSHIFT_API __declspec(dllimport)
#else
#define MULSHIFT_API __attribute__((visibility("default")))
#endif

/* Raised whenever a function below changes its meaning or its arguments. */
#define MULSHIFT_ABI_VERSION 1

#ifdef __cplusplus
extern "C" {
#endif

/* MULSHIFT_ABI_VERSION of the library that was loaded. */
MULSHIFT_API int32_t mulshift_abi_version(void);

/* The instruction set whose kernels this process uses: the best that the machine runs, or the one that the environment
 * variable MULSHIFT_ISA names. NULL if it names one that is unknown or that this machine cannot run. */
MULSHIFT_API const char* mulshift_isa(void);

/* The i-th instruction set that this machine runs, the best first; NULL where there is none. */
MULSHIFT_API const char* mulshift_runnable_isa(size_t i);

/* Which operators RegisterCustomOps registers when this thread calls it: ",Add,Table," these, NULL all, which is what it
 * begins with. ONNX Runtime takes memory and time for each in every session. `names` must stay valid until the next call. */
MULSHIFT_API void mulshift_register_only(const char* names);

/* 1 if the library has the operator of that name, else 0. */
MULSHIFT_API int32_t mulshift_has_operator(const char* name);

/* y[i][j] = clamp(((acc[i][j] * b[j] + 2^(c[j]-1)) >> c[j]) + zero_point, qmin, qmax), rounding half up, once.
 *
 * acc, y: [rows][channels], row-major; y may be acc itself.  b, c: [channels], 0 <= b < 2^31, 2 <= c <= 62.
 * qmin <= qmax; zero_point any int32. */
MULSHIFT_API void mulshift_requantize_half_up_s32_s32(const int32_t* acc, size_t rows, size_t channels,
                                                      const int32_t* b, const int32_t* c, int32_t zero_point,
                                                      int32_t qmin, int32_t qmax, int32_t* y);

#ifdef __cplusplus
}
#endif

#endif
