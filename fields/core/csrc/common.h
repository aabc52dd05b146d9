// The vocabulary every kernel is written in.
//
// A kernel is a struct: its members are the arguments, `operator()(i)` does item i. The same text is compiled by
// the C++ compiler of the machine for CPUs and by NVRTC for GPUs, so it uses no standard header, no exception, no
// allocation. `FIELDS_KERNEL(name, Struct, ...)` gives the struct two exported entry points, `name_f32` and
// `name_f64`. The Python side reads the members from this very text (fields/core/_backend.py), hence one member
// per line, and types from: T, int64_t, int32_t, uint8_t, float, double, pointers to these, fixed arrays of these.
#pragma once

#ifdef __CUDACC__
#define FIELDS_FN __device__ __forceinline__
#define FIELDS_INLINE
typedef long long int64_t;
typedef unsigned long long uint64_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef unsigned char uint8_t;
#else
#include <cstdint>
#define FIELDS_FN inline __attribute__((always_inline))
#define FIELDS_INLINE __attribute__((always_inline))
#endif

namespace fields {

template <class T> FIELDS_FN T minimum(T a, T b) { return b < a ? b : a; }  // NaN in `a` stays: comparisons fail
template <class T> FIELDS_FN T maximum(T a, T b) { return a < b ? b : a; }
template <class T> FIELDS_FN T clamp(T x, T lo, T hi) { return minimum(maximum(x, lo), hi); }

#ifdef __CUDACC__
FIELDS_FN float exp_(float x) { return expf(x); }
FIELDS_FN double exp_(double x) { return exp(x); }
FIELDS_FN float log1p_(float x) { return log1pf(x); }
FIELDS_FN double log1p_(double x) { return log1p(x); }
FIELDS_FN float floor_(float x) { return floorf(x); }
FIELDS_FN double floor_(double x) { return floor(x); }
FIELDS_FN float abs_(float x) { return fabsf(x); }
FIELDS_FN double abs_(double x) { return fabs(x); }
FIELDS_FN float sqrt_(float x) { return sqrtf(x); }
FIELDS_FN double sqrt_(double x) { return sqrt(x); }
FIELDS_FN float infinity(float) { return __int_as_float(0x7f800000); }
FIELDS_FN double infinity(double) { return __longlong_as_double(0x7ff0000000000000LL); }
FIELDS_FN void add_to(float* p, float v) { atomicAdd(p, v); }
#if __CUDA_ARCH__ >= 600
FIELDS_FN void add_to(double* p, double v) { atomicAdd(p, v); }
#endif
#else
FIELDS_FN float exp_(float x) { return __builtin_expf(x); }
FIELDS_FN double exp_(double x) { return __builtin_exp(x); }
FIELDS_FN float log1p_(float x) { return __builtin_log1pf(x); }
FIELDS_FN double log1p_(double x) { return __builtin_log1p(x); }
FIELDS_FN float floor_(float x) { return __builtin_floorf(x); }
FIELDS_FN double floor_(double x) { return __builtin_floor(x); }
FIELDS_FN float abs_(float x) { return __builtin_fabsf(x); }
FIELDS_FN double abs_(double x) { return __builtin_fabs(x); }
FIELDS_FN float sqrt_(float x) { return __builtin_sqrtf(x); }
FIELDS_FN double sqrt_(double x) { return __builtin_sqrt(x); }
FIELDS_FN float infinity(float) { return __builtin_inff(); }
FIELDS_FN double infinity(double) { return __builtin_inf(); }
// On CPUs every output element has one owner, so adding needs no atomic and the order of sums never changes.
template <class T> FIELDS_FN void add_to(T* p, T v) { *p += v; }
#endif

// A value with its derivative along one direction. Running a backward kernel on duals is how the samplers get
// their second derivatives: forward over reverse, with no second set of formulas to keep right.
template <class T> struct Dual {
    T v;
    T d;
};
template <class T> FIELDS_FN Dual<T> operator+(Dual<T> a, Dual<T> b) { return {a.v + b.v, a.d + b.d}; }
template <class T> FIELDS_FN Dual<T>& operator+=(Dual<T>& a, Dual<T> b) { return a = a + b; }
template <class A, class B> FIELDS_FN auto operator*(Dual<A> a, Dual<B> b) -> Dual<decltype(a.v * b.v)> {
    return {a.v * b.v, a.v * b.d + a.d * b.v};  // scalar and lanes mix
}

}  // namespace fields

#ifdef __CUDACC__
#define FIELDS_ENTRY(name, type)                                             \
    extern "C" __global__ void name(const type kernel, int64_t n) {          \
        const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;    \
        if (i < n) kernel(i);                                                \
    }
#else
#define FIELDS_ENTRY(name, type)                                                                        \
    extern "C" __attribute__((visibility("default"))) void name(const void* kernel, int64_t n,          \
                                                                int64_t grain, int32_t threads) {       \
        fields::parallel_for(n, grain, threads, *static_cast<const type*>(kernel));                     \
    }
#endif
// FIELDS_KERNEL(name, Struct, Args, ...): `Args` names the struct whose members are the arguments (Struct itself or
// its base), further parameters follow T in the template arguments of Struct.
// Both scalar types by default; FIELDS_FLOAT and FIELDS_DOUBLE select one, because compiling takes a while.
#if !defined(FIELDS_FLOAT) && !defined(FIELDS_DOUBLE)
#define FIELDS_FLOAT
#define FIELDS_DOUBLE
#endif
#ifdef FIELDS_FLOAT
#define FIELDS_KERNEL_F32(name, Struct, ...)                                                                 \
    namespace fields { namespace kernel { typedef Struct<float, ##__VA_ARGS__> name##_float; } }             \
    FIELDS_ENTRY(name##_f32, fields::kernel::name##_float)
#else
#define FIELDS_KERNEL_F32(name, Struct, ...)
#endif
#ifdef FIELDS_DOUBLE
#define FIELDS_KERNEL_F64(name, Struct, ...)                                                                 \
    namespace fields { namespace kernel { typedef Struct<double, ##__VA_ARGS__> name##_double; } }           \
    FIELDS_ENTRY(name##_f64, fields::kernel::name##_double)
#else
#define FIELDS_KERNEL_F64(name, Struct, ...)
#endif
#define FIELDS_KERNEL(name, Struct, Args, ...)             \
    FIELDS_KERNEL_F32(name, Struct, ##__VA_ARGS__)         \
    FIELDS_KERNEL_F64(name, Struct, ##__VA_ARGS__)
