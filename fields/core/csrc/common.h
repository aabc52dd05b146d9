// The vocabulary every kernel is written in.
//
// A kernel is a struct: its members are the arguments, `operator()(i)` does item i. The same text is compiled by
// the C++ compiler of the machine for CPUs and by NVRTC for GPUs, so it uses no standard header, no exception, no
// allocation. `FIELDS_KERNEL(name, Struct, ...)` gives the struct two exported entry points, `name_f32` and
// `name_f64`. The Python side reads the members from this very text (fields/core/_kernels.py), hence one member
// per line, and types from: T, int64_t, int32_t, uint8_t, float, double, pointers to these, fixed arrays of these, and
// other such structs.
//
// On a CPU one thread does an item. On a GPU it may be a team of neighbouring threads, its lanes, of a size (a power of
// two up to 32) that the launch chooses; a kernel written for teams goes through its work in strides of `kTeam`
// from `lane()` on, and joins the parts by `team_sum` and `team_scan`. A CPU's team is one thread.
//
// A GPU module holds one kernel, compiled for its use by macros (fields/core/_nvrtc.py sets them):
//     FIELDS_TEAM        threads of a team
//     FIELDS_CHANNELS    channels of the modes of a factorised grid, and FIELDS_SUMMED, whether they are added up
//     FIELDS_ALIGNED     1: rows of channels begin at whole registers of four
//     FIELDS_STORED      type of stored factors, where narrower than the arithmetic: half_t, bfloat_t
//     FIELDS_SUM         int64_t: gradients are summed in fixed point, so that their order does not matter
//     FIELDS_OUTPUT      type of results, where narrower: half_t
#pragma once

#ifdef __CUDACC__
#define FIELDS_FN __device__ __forceinline__
#define FIELDS_CALL __device__ __forceinline__
#define FIELDS_INLINE
typedef long long int64_t;
typedef unsigned long long uint64_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef unsigned char uint8_t;
#else
#include <cstdint>
#define FIELDS_FN inline __attribute__((always_inline))
#define FIELDS_CALL inline __attribute__((noinline))  // large, and called rarely enough: compiled once
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
FIELDS_FN void sincos_(float x, float& s, float& c) { sincosf(x, &s, &c); }
FIELDS_FN void sincos_(double x, double& s, double& c) { sincos(x, &s, &c); }
FIELDS_FN float infinity(float) { return __int_as_float(0x7f800000); }
FIELDS_FN double infinity(double) { return __longlong_as_double(0x7ff0000000000000LL); }
FIELDS_FN void add_to(float* p, float v) { atomicAdd(p, v); }
FIELDS_FN void add_to(double* p, double v) { atomicAdd(p, v); }
FIELDS_FN void add_to(int64_t* p, int64_t v) { atomicAdd(reinterpret_cast<uint64_t*>(p), uint64_t(v)); }
FIELDS_FN int64_t nearest(double x) { return __double2ll_rn(x); }
FIELDS_FN void prefetch(const void*) {}  // other threads run meanwhile
#else
FIELDS_FN void prefetch(const void* p) { __builtin_prefetch(p); }
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
// Sine and cosine to about one unit in the last place for |x| < 1e5: the quadrant is removed in double, the rest is
// the classical single-precision polynomials on [-pi/4, pi/4]. Free of branches, so loops over it vectorise.
FIELDS_FN void sincos_(float x, float& s, float& c) {
    const double k = __builtin_floor(double(x) * 0.63661977236758134 + 0.5);
    const float r = float(double(x) - k * 1.5707963267948966), z = r * r;
    const int32_t q = int32_t(k);
    const float sp = r + r * z * (-1.6666654611e-1f + z * (8.3321608736e-3f - z * 1.9515295891e-4f));
    const float cp = 1 - 0.5f * z + z * z * (4.166664568298827e-2f + z * (-1.388731625493765e-3f + z * 2.443315711809948e-5f));
    const float a = q & 1 ? cp : sp, b = q & 1 ? sp : cp;
    s = q & 2 ? -a : a;
    c = (q + 1) & 2 ? -b : b;
}
FIELDS_FN void sincos_(double x, double& s, double& c) { s = __builtin_sin(x), c = __builtin_cos(x); }
FIELDS_FN float infinity(float) { return __builtin_inff(); }
FIELDS_FN double infinity(double) { return __builtin_inf(); }
// On CPUs every output element has one owner, so adding needs no atomic and the order of sums never changes.
template <class T> FIELDS_FN void add_to(T* p, T v) { *p += v; }
#endif

template <class T> FIELDS_FN T softplus(T x) { return x > 20 ? x : log1p_(exp_(x)); }  // as torch's

// Numbers narrower than the arithmetic, which only a GPU stores.
struct half_t { unsigned short bits; };
struct bfloat_t { unsigned short bits; };
FIELDS_FN float widen(float x) { return x; }
FIELDS_FN double widen(double x) { return x; }
FIELDS_FN void narrow(float x, float& to) { to = x; }
FIELDS_FN void narrow(double x, double& to) { to = x; }
#ifdef __CUDA_ARCH__
FIELDS_FN float widen(half_t x) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
    return wide;
}
FIELDS_FN void narrow(float x, half_t& to) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(x)); }
#endif
#ifdef __CUDACC__
FIELDS_FN float widen(bfloat_t x) { return __int_as_float(int32_t(uint32_t(x.bits) << 16)); }
#endif
#ifndef FIELDS_STORED
#define FIELDS_STORED T
#endif
#ifndef FIELDS_SUM
#define FIELDS_SUM T
#endif
#ifndef FIELDS_OUTPUT
#define FIELDS_OUTPUT T
#endif
template <class T> using StoredAs = FIELDS_STORED;
template <class T> using SumOf = FIELDS_SUM;
template <class T> using OutputAs = FIELDS_OUTPUT;

// Teams.
#ifdef __CUDACC__
#ifndef FIELDS_TEAM
#define FIELDS_TEAM 1
#endif
constexpr int kTeam = FIELDS_TEAM;
FIELDS_FN int lane() { return int(threadIdx.x) % kTeam; }
FIELDS_FN uint32_t team_mask() {  // of this team among the 32 threads that run in step
    return kTeam == 32 ? 0xffffffffu : ((1u << (kTeam % 32)) - 1u) << (int(threadIdx.x) % 32 / kTeam * kTeam);
}
template <class T> FIELDS_FN T from_before(T v, int lanes) { return __shfl_up_sync(team_mask(), v, lanes, kTeam); }
template <class T> FIELDS_FN T from_last(T v) { return __shfl_sync(team_mask(), v, kTeam - 1, kTeam); }
FIELDS_FN void team_wait() { __syncwarp(team_mask()); }
#else
constexpr int kTeam = 1;
FIELDS_FN int lane() { return 0; }
FIELDS_FN void team_wait() {}
#endif

// The sum of the values of a team's lanes, for every lane the same.
template <class T> FIELDS_FN T team_sum(T v) {
#ifdef __CUDACC__
    for (int d = kTeam / 2; d > 0; d /= 2) v += __shfl_xor_sync(team_mask(), v, d, kTeam);
#endif
    return v;
}

// What lies before a lane, joined in order: `carry`, then the values of the lanes before it. Afterwards `carry` is the
// join of all. `join` must be associative.
template <class V, class Join> FIELDS_FN V team_scan(V own, V& carry, Join join) {
#ifdef __CUDACC__
    if (kTeam > 1) {
        V total = own;
        for (int d = 1; d < kTeam; d *= 2) {
            const V other = from_before(total, d);
            if (lane() >= d) total = join(other, total);
        }
        const V other = from_before(total, 1), before = lane() ? join(carry, other) : carry;
        carry = join(carry, from_last(total));
        return before;
    }
#endif
    const V before = carry;
    carry = join(carry, own);
    return before;
}

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

// FIELDS_KERNEL(name, Struct, Args, ...): `Args` names the struct whose members are the arguments (Struct itself or
// its base), further parameters follow T in the template arguments of Struct. A GPU module names its kernel itself.
#ifdef __CUDACC__
#define FIELDS_KERNEL(name, Struct, Args, ...)
#define FIELDS_ENTRY(name, type)                                                              \
    extern "C" __global__ void __launch_bounds__(128) name(const type kernel, int64_t n) {    \
        const int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / fields::kTeam;   \
        if (i < n) kernel(i);                                                                 \
    }
#else
#define FIELDS_ENTRY(name, type)                                                                        \
    extern "C" __attribute__((visibility("default"))) void name(const void* kernel, int64_t n,          \
                                                                int64_t grain, int32_t threads) {       \
        fields::parallel_for(n, grain, threads, *static_cast<const type*>(kernel));                     \
    }
#define FIELDS_KERNEL(name, Struct, Args, ...)                                                           \
    namespace fields { namespace kernel { typedef Struct<float, ##__VA_ARGS__> name##_float; } }         \
    FIELDS_ENTRY(name##_f32, fields::kernel::name##_float)                                               \
    namespace fields { namespace kernel { typedef Struct<double, ##__VA_ARGS__> name##_double; } }       \
    FIELDS_ENTRY(name##_f64, fields::kernel::name##_double)
#endif
