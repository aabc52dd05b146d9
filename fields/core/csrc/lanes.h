// A block of channels as one SIMD value.
//
// On CPUs a vector extension of the compiler (one AVX-512 register of floats, and several narrower registers where
// that is what there is); left to themselves, loops over 16 channels are unrolled into scalar code before the
// vectoriser sees them. On GPUs a thread holds four channels, the widest load there is.
#pragma once
#include "common.h"

namespace fields {

#ifdef __CUDACC__
constexpr int kLanes = 4;
template <class T> struct Lanes {
    T x[kLanes];
    FIELDS_FN T& operator[](int i) { return x[i]; }
    FIELDS_FN T operator[](int i) const { return x[i]; }
    FIELDS_FN Lanes& operator+=(Lanes o) { for (int i = 0; i < kLanes; ++i) x[i] += o.x[i]; return *this; }
    friend FIELDS_FN Lanes operator+(Lanes a, Lanes b) { return a += b; }
    friend FIELDS_FN Lanes operator*(Lanes a, Lanes b) { for (int i = 0; i < kLanes; ++i) a.x[i] *= b.x[i]; return a; }
    friend FIELDS_FN Lanes operator*(T a, Lanes b) { for (int i = 0; i < kLanes; ++i) b.x[i] *= a; return b; }
};
#else
constexpr int kLanes = 16;
template <class T> struct VectorOf {
    typedef T type __attribute__((vector_size(kLanes * sizeof(T))));
};
template <class T> using Lanes = typename VectorOf<T>::type;
#endif

// Reading, writing and adding `count` channels. Callers pass 16 and 8 as constants, which makes these single
// instructions on CPUs.
#ifdef __CUDACC__
#ifndef FIELDS_ALIGNED
#define FIELDS_ALIGNED 0
#endif
template <class S> struct alignas(kLanes * sizeof(S)) Quad {  // the compiler moves it in one instruction
    S x[kLanes];
};
template <class T, class S> FIELDS_FN Lanes<T> load_lanes(const S* p, int count) {
    Lanes<T> v = {};
    if (FIELDS_ALIGNED) {
        const Quad<S> q = *reinterpret_cast<const Quad<S>*>(p);
        for (int b = 0; b < kLanes; ++b) v[b] = widen(q.x[b]);
    } else {
        for (int b = 0; b < count; ++b) v[b] = widen(p[b]);
    }
    return v;
}
template <class T, class V> FIELDS_FN void store_lanes(T* p, V v, int count) {
    if (FIELDS_ALIGNED) {
        Quad<T> q;
        for (int b = 0; b < kLanes; ++b) q.x[b] = v[b];
        *reinterpret_cast<Quad<T>*>(p) = q;
    } else {
        for (int b = 0; b < count; ++b) p[b] = v[b];
    }
}
FIELDS_FN void add_lanes(float* p, Lanes<float> v, int count, const double*) {
    // Samples that nothing depends on are common, and adding nothing to one place over and over takes long.
    if (v[0] == 0 && v[1] == 0 && v[2] == 0 && v[3] == 0) return;
#if FIELDS_ALIGNED && __CUDA_ARCH__ >= 900
    atomicAdd(reinterpret_cast<float4*>(p), make_float4(v[0], v[1], v[2], v[3]));
#else
    for (int b = 0; b < count; ++b) add_to(p + b, v[b]);
#endif
}
FIELDS_FN void add_lanes(double* p, Lanes<double> v, int count, const double*) {
    for (int b = 0; b < count; ++b) add_to(p + b, v[b]);
}
template <class V> FIELDS_FN void add_lanes(int64_t* p, V v, int count, const double* scale) {
    for (int b = 0; b < count; ++b) add_to(p + b, nearest(double(v[b]) * *scale));
}
#else
template <class T> FIELDS_FN Lanes<T> load_lanes(const T* p, int count) {
#if __has_builtin(__builtin_shufflevector)
    if (count == kLanes / 2) {  // widened in registers: through memory the wide load would wait for the narrow store
        typedef T Half __attribute__((vector_size(kLanes / 2 * sizeof(T))));
        Half half;
        __builtin_memcpy(&half, p, sizeof(half));
        return __builtin_shufflevector(half, Half{}, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    }
#endif
    Lanes<T> v = {};
    __builtin_memcpy(&v, p, sizeof(T) * count);
    return v;
}
template <class T, class V> FIELDS_FN void store_lanes(T* p, V v, int count) {
    __builtin_memcpy(p, &v, sizeof(T) * count);
}
template <class T, class V> FIELDS_FN void add_lanes(T* p, V v, int count, const double*) {
    store_lanes(p, V(load_lanes<T>(p, count) + v), count);
}
#endif
template <class T, class V> FIELDS_FN T sum_lanes(V v) {
    T total = v[0];
    for (int b = 1; b < kLanes; ++b) total += v[b];
    return total;
}

// The same for S = T and S = Dual<T>, where a null tangent stands for zero.
template <class T, class A> FIELDS_FN Lanes<T> load_lanes(const A* v, const T*, int64_t at, int count, T) {
    return load_lanes<T>(v + at, count);
}
template <class T, class A> FIELDS_FN Dual<Lanes<T>> load_lanes(const A* v, const T* d, int64_t at, int count, Dual<T>) {
    return {load_lanes<T>(v + at, count), d ? load_lanes<T>(d + at, count) : Lanes<T>{}};
}
template <class T> FIELDS_FN Lanes<T> splat(T x) {
#ifdef __CUDACC__
    return {x, x, x, x};
#else
    return Lanes<T>{} + x;  // one instruction; a loop over the lanes is sixteen
#endif
}
FIELDS_FN auto fill_lanes(float x) { return splat(x); }
FIELDS_FN auto fill_lanes(double x) { return splat(x); }
template <class T> FIELDS_FN Dual<Lanes<T>> fill_lanes(Dual<T> x) { return {splat(x.v), splat(x.d)}; }

}  // namespace fields
