// Small matrix products that stay in registers, for the host: operands of some tens of rows in rows of whole registers.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "common.h"

namespace fields {

constexpr int kPad = 16;  // rows of right operands are whole multiples of this many numbers

inline int64_t padded(int64_t n) { return (n + kPad - 1) / kPad * kPad; }

#if defined(__AVX512F__)
constexpr int kRegister = 64, kTileColumns = 4;
#elif defined(__AVX2__)
constexpr int kRegister = 32, kTileColumns = 2;
#else
constexpr int kRegister = 16, kTileColumns = 2;
#endif
template <class T> struct Register {
    typedef T type __attribute__((vector_size(kRegister)));
    typedef T in_memory __attribute__((vector_size(kRegister), aligned(alignof(T)), may_alias));
};

// C (rows x 16k) = or += A (rows x depth) B (depth x 16k). A(m, k) is a[m * ar + k * ac].
template <class T, int ROWS, int COLUMNS>
inline void tile(int64_t depth, const T* a, int64_t ar, int64_t ac, const T* b, int64_t bs, T* c, int64_t cs, bool add) {
    typedef typename Register<T>::type V;
    typedef typename Register<T>::in_memory M;
    constexpr int W = kRegister / sizeof(T);
    V sum[ROWS][COLUMNS];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
        for (int j = 0; j < COLUMNS; ++j) sum[r][j] = add ? V(*reinterpret_cast<M*>(c + r * cs + j * W)) : V{};
    for (int64_t k = 0; k < depth; ++k) {
        V right[COLUMNS];
#pragma GCC unroll 4
        for (int j = 0; j < COLUMNS; ++j) right[j] = *reinterpret_cast<const M*>(b + k * bs + j * W);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
            const T left = a[r * ar + k * ac];
#pragma GCC unroll 4
            for (int j = 0; j < COLUMNS; ++j) sum[r][j] += left * right[j];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
        for (int j = 0; j < COLUMNS; ++j) *reinterpret_cast<M*>(c + r * cs + j * W) = sum[r][j];
}

template <class T, int COLUMNS>
inline void column(int64_t rows, int64_t depth, const T* a, int64_t ar, int64_t ac, const T* b, int64_t bs, T* c,
                   int64_t cs, bool add) {
    int64_t r = 0;
    for (; r + 6 <= rows; r += 6) tile<T, 6, COLUMNS>(depth, a + r * ar, ar, ac, b, bs, c + r * cs, cs, add);
    for (; r + 2 <= rows; r += 2) tile<T, 2, COLUMNS>(depth, a + r * ar, ar, ac, b, bs, c + r * cs, cs, add);
    for (; r < rows; ++r) tile<T, 1, COLUMNS>(depth, a + r * ar, ar, ac, b, bs, c + r * cs, cs, add);
}

template <class T>
inline void product(int64_t rows, int64_t columns, int64_t depth, const T* a, int64_t ar, int64_t ac, const T* b,
                    int64_t bs, T* c, int64_t cs, bool add) {
    constexpr int W = kRegister / sizeof(T), wide = kTileColumns * W;
    int64_t j = 0;
    for (; j + wide <= columns; j += wide) column<T, kTileColumns>(rows, depth, a, ar, ac, b + j, bs, c + j, cs, add);
    for (; j < columns; j += W) column<T, 1>(rows, depth, a, ar, ac, b + j, bs, c + j, cs, add);
}

// C (m x n registers) += A (m x depth) B (n x depth) transposed: rows of A and B against each other, lane by lane; the sum over
// lanes is left to the end (`sum_lanes`). depth is whole registers, and C's row cs of them.
template <class T, int ROWS, int COLUMNS>
inline void dots(int64_t depth, const T* a, int64_t as, const T* b, int64_t bs, T* c, int64_t cs) {
    typedef typename Register<T>::type V;
    typedef typename Register<T>::in_memory M;
    constexpr int W = kRegister / sizeof(T);
    V sum[ROWS][COLUMNS];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
        for (int j = 0; j < COLUMNS; ++j) sum[r][j] = *reinterpret_cast<M*>(c + (r * cs + j) * W);
    for (int64_t k = 0; k < depth; k += W) {
        V right[COLUMNS];
#pragma GCC unroll 4
        for (int j = 0; j < COLUMNS; ++j) right[j] = *reinterpret_cast<const M*>(b + j * bs + k);
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; ++r) {
            const V left = *reinterpret_cast<const M*>(a + r * as + k);
#pragma GCC unroll 4
            for (int j = 0; j < COLUMNS; ++j) sum[r][j] += left * right[j];
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
        for (int j = 0; j < COLUMNS; ++j) *reinterpret_cast<M*>(c + (r * cs + j) * W) = sum[r][j];
}

template <class T>
inline void product_of_rows(int64_t rows, int64_t columns, int64_t depth, const T* a, int64_t as, const T* b, int64_t bs, T* c,
                            int64_t cs) {
    constexpr int W = kRegister / sizeof(T);
    int64_t r = 0;
    for (; r + 3 <= rows; r += 3) {
        int64_t j = 0;
        for (; j + 3 <= columns; j += 3) dots<T, 3, 3>(depth, a + r * as, as, b + j * bs, bs, c + (r * cs + j) * W, cs);
        for (; j < columns; ++j) dots<T, 3, 1>(depth, a + r * as, as, b + j * bs, bs, c + (r * cs + j) * W, cs);
    }
    for (; r < rows; ++r)
        for (int64_t j = 0; j < columns; ++j) dots<T, 1, 1>(depth, a + r * as, as, b + j * bs, bs, c + (r * cs + j) * W, cs);
}

// total[i] = the sum over the lanes of register i.
template <class T> inline void sum_lanes(int64_t count, const T* registers, T* total) {
    constexpr int W = kRegister / sizeof(T);
    for (int64_t i = 0; i < count; ++i) {
        T lane[W];
        std::memcpy(lane, registers + i * W, sizeof(lane));
#pragma GCC unroll 4
        for (int half = W / 2; half; half /= 2)
            for (int w = 0; w < half; ++w) lane[w] += lane[w + half];
        total[i] = lane[0];
    }
}

template <class T> T* scratch(int64_t numbers) {  // of this thread, kept between calls
    static thread_local std::vector<T> memory;
    if (int64_t(memory.size()) < numbers) memory.resize(numbers);
    std::fill(memory.begin(), memory.begin() + numbers, T(0));
    return memory.data();
}

}  // namespace fields
