// The small decoder of radiance fields, fused: basis -> Fourier encoding -> MLP -> sigmoid, forward and backward.
//
//     f = B a                                    appearance features a to D numbers (optional)
//     x = [f, d, sin f.., cos f.., sin d.., cos d..]      frequencies 1, 2, 4, ...
//     rgb = sigmoid(W3 relu(W2 relu(W1 x + b1) + b2) + b3)
//
// Composed from whole-tensor operators, every arrow above is a trip through memory for hundreds of floats per sample.
// Here a block of samples goes through all of them while its activations stay in cache: one register-tiled matrix
// product (`Tile`) serves forward, data gradient and weight gradient alike, reading its left operand with free
// strides and its right operand in rows padded to whole registers.
//
// Weight gradients are sums over samples. The samples are cut into chunks whose number depends on nothing but their
// count; each chunk adds up its own copy and `decoder_reduce` adds the copies in order: bit-identical on any number
// of threads. Frequencies beyond the first come from the double-angle formulas, so a sample costs D + 3 sines.
//
// Host only: GPUs want tensor cores, hence another shape of loop altogether.
#pragma once
#include <cmath>
#include <cstring>
#include <vector>

#include "common.h"
#include "encoding.h"
#include "product.h"

namespace fields {

constexpr int kDecoderBlock = 96;   // samples per block: their activations fit the second-level cache

template <class T> struct Decoder {
    const T* features;         // (n, width_features)
    const T* directions;       // (n, 3) unit
    const T* basis;            // (width_basis, padded width_features), or null: features are f
    const T* basis_t;          // (width_features, padded width_basis)
    const T* weight[4];        // (out, padded in)
    const T* weight_t[4];      // (in, padded out)
    const T* bias[4];          // (padded out)
    const T* grad;             // (n, 3) cotangent of the output
    T* output;                 // (n, 3)
    T* saved;                  // (n, saved_width): f and the hidden activations, padded; null when not training
    T* grad_features;          // (n, width_features)
    T* grad_directions;        // (n, 3)
    T* grad_parameters;        // (chunks, parameters): basis, then weight and bias of each layer, padded
    int64_t n;                 // samples
    int64_t saved_width;       // numbers per row of saved
    int64_t parameters;        // numbers per row of grad_parameters
    int64_t chunk;             // samples per chunk of the backward pass
    int64_t width[5];          // of the MLP's input and of each layer's output
    int32_t layers;            // of the MLP
    int32_t width_features;    // of a
    int32_t width_basis;       // D
    int32_t frequencies_f;     // of f
    int32_t frequencies_d;     // of d

};

// ---------------------------------------------------------------------------------------------- encoding

// Writes sin and cos of v, 2v, 4v ...: component-major, as `(v[:, None] * frequencies).flatten()` orders them.
template <class T> inline void encode(const T* v, int64_t width, int frequencies, T* sines, T* cosines) {
    if (!frequencies) return;
    T s[256], c[256];
    for (int64_t begin = 0; begin < width; begin += 256) {
        const int64_t count = width - begin < 256 ? width - begin : 256;
        for (int64_t i = 0; i < count; ++i) sincos_(v[begin + i], s[i], c[i]);
        for (int f = 0; f < frequencies; ++f)
            for (int64_t i = 0; i < count; ++i) {
                sines[(begin + i) * frequencies + f] = s[i];
                cosines[(begin + i) * frequencies + f] = c[i];
                const T twice = 2 * s[i] * c[i];
                c[i] = 1 - 2 * s[i] * s[i];
                s[i] = twice;
            }
    }
}

template <class T>
inline void encode_backward(int64_t width, int frequencies, const T* sines, const T* cosines, const T* grad_sines,
                            const T* grad_cosines, T* grad) {
    for (int64_t i = 0; i < width; ++i) {
        T g = 0, scale = 1;
        for (int f = 0; f < frequencies; ++f, scale *= 2) {
            const int64_t k = i * frequencies + f;
            g += scale * (grad_sines[k] * cosines[k] - grad_cosines[k] * sines[k]);
        }
        grad[i] += g;
    }
}

// The rows of the MLP's input.
template <class T> struct Input : EncodedRow {
    explicit Input(const Decoder<T>& k) : EncodedRow(k.width_basis, k.frequencies_f, k.frequencies_d) {}
    void fill(const Decoder<T>& k, const T* f, const T* direction, T* x) const {
        std::memcpy(x, f, sizeof(T) * k.width_basis);
        std::memcpy(x + d, direction, sizeof(T) * 3);
        encode(f, k.width_basis, k.frequencies_f, x + sin_f, x + cos_f);
        encode(direction, 3, k.frequencies_d, x + sin_d, x + cos_d);
    }
};

// ---------------------------------------------------------------------------------------------- forward

template <class T> struct DecoderForward : Decoder<T> {
    void operator()(int64_t item) const {  // one block of samples
        const int64_t first = item * kDecoderBlock, rows = std::min<int64_t>(kDecoderBlock, this->n - first);
        const Input<T> input(*this);
        int64_t widest = padded(this->width[0]);
        for (int l = 1; l <= this->layers; ++l) widest = std::max(widest, padded(this->width[l]));
        const int64_t fs = this->saved ? this->saved_width : padded(this->width_basis);
        T* memory = scratch<T>(kDecoderBlock * (2 * widest + padded(this->width_basis)));
        T *x = memory, *y = memory + kDecoderBlock * widest;
        T* f = this->saved ? this->saved + first * fs : y + kDecoderBlock * widest;
        const T* a = this->features + first * this->width_features;
        if (this->basis)
            product(rows, padded(this->width_basis), int64_t(this->width_features), a, int64_t(this->width_features),
                    int64_t(1), this->basis_t, padded(this->width_basis), f, fs, false);
        else
            for (int64_t r = 0; r < rows; ++r)
                std::memcpy(f + r * fs, a + r * this->width_features, sizeof(T) * this->width_basis);
        int64_t xs = widest;
        for (int64_t r = 0; r < rows; ++r) input.fill(*this, f + r * fs, this->directions + 3 * (first + r), x + r * xs);

        int64_t saved_at = padded(this->width_basis);
        for (int l = 0; l < this->layers; ++l) {
            const int64_t out = padded(this->width[l + 1]);
            const bool last = l + 1 == this->layers, keep = this->saved && !last;
            T* z = keep ? this->saved + first * this->saved_width + saved_at : y;
            const int64_t zs = keep ? this->saved_width : widest;
            product(rows, out, this->width[l], x, xs, int64_t(1), this->weight_t[l], out, z, zs, false);
            for (int64_t r = 0; r < rows; ++r)
                for (int64_t j = 0; j < out; ++j) {
                    const T v = z[r * zs + j] + this->bias[l][j];
                    z[r * zs + j] = !last && v < 0 ? T(0) : v;  // a NaN stays one
                }
            saved_at += out;
            if (keep) x = z, xs = zs;
            else std::swap(x, y), xs = zs;
        }
        const int64_t out = this->width[this->layers];
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t j = 0; j < out; ++j) this->output[(first + r) * out + j] = 1 / (1 + exp_(-x[r * xs + j]));
    }
};

// ---------------------------------------------------------------------------------------------- backward

template <class T> struct DecoderBackward : Decoder<T> {
    void operator()(int64_t item) const {  // one chunk of samples
        const int64_t end = std::min(this->n, (item + 1) * this->chunk);
        for (int64_t first = item * this->chunk; first < end; first += kDecoderBlock)
            block(first, std::min<int64_t>(kDecoderBlock, end - first), this->grad_parameters + item * this->parameters);
    }

    void block(int64_t first, int64_t rows, T* grad_parameters) const {
        const Input<T> input(*this);
        const int64_t D = padded(this->width_basis), F = padded(this->width_features), in = padded(this->width[0]);
        int64_t widest = std::max(in, F);
        for (int l = 1; l <= this->layers; ++l) widest = std::max(widest, padded(this->width[l]));
        T* memory = scratch<T>(kDecoderBlock * (2 * widest + in + D + F));
        T *g = memory, *below = g + kDecoderBlock * widest, *x = below + kDecoderBlock * widest;
        T *gf = x + kDecoderBlock * in, *a = gf + kDecoderBlock * D;
        const T* f = this->saved + first * this->saved_width;
        for (int64_t r = 0; r < rows; ++r)
            input.fill(*this, f + r * this->saved_width, this->directions + 3 * (first + r), x + r * in);

        const int64_t out = this->width[this->layers];
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t j = 0; j < out; ++j) {
                const T rgb = this->output[(first + r) * out + j];
                g[r * widest + j] = this->grad[(first + r) * out + j] * rgb * (1 - rgb);
            }

        int64_t saved_at = D, parameter = this->parameters;
        for (int l = 0; l < this->layers; ++l) saved_at += padded(this->width[l + 1]);
        saved_at -= padded(out);
        for (int l = this->layers - 1; l >= 0; --l) {
            const int64_t o = this->width[l + 1], op = padded(o), ip = padded(this->width[l]);
            T* grad_bias = grad_parameters + (parameter -= op);
            T* grad_weight = grad_parameters + (parameter -= o * ip);
            if (l) saved_at -= ip;
            const T* h = l ? this->saved + first * this->saved_width + saved_at : x;
            const int64_t hs = l ? this->saved_width : in;
            for (int64_t r = 0; r < rows; ++r)
                for (int64_t j = 0; j < o; ++j) grad_bias[j] += g[r * widest + j];
            product(o, ip, rows, g, int64_t(1), widest, h, hs, grad_weight, ip, true);
            product(rows, ip, o, g, widest, int64_t(1), this->weight[l], ip, below, widest, false);
            if (l)
                for (int64_t r = 0; r < rows; ++r)
                    for (int64_t j = 0; j < ip; ++j)
                        if (!(h[r * hs + j] > 0)) below[r * widest + j] = 0;
            std::swap(g, below);
        }

        for (int64_t r = 0; r < rows; ++r) {
            const T *gx = g + r * widest, *xr = x + r * in;
            std::memcpy(gf + r * D, gx, sizeof(T) * this->width_basis);
            encode_backward(int64_t(this->width_basis), this->frequencies_f, xr + input.sin_f, xr + input.cos_f,
                            gx + input.sin_f, gx + input.cos_f, gf + r * D);
            T* gd = this->grad_directions + 3 * (first + r);
            std::memcpy(gd, gx + input.d, sizeof(T) * 3);
            encode_backward(int64_t(3), this->frequencies_d, xr + input.sin_d, xr + input.cos_d, gx + input.sin_d,
                            gx + input.cos_d, gd);
        }
        const int64_t wf = this->width_features;
        if (!this->basis) {
            for (int64_t r = 0; r < rows; ++r)
                std::memcpy(this->grad_features + (first + r) * wf, gf + r * D, sizeof(T) * wf);
            return;
        }
        for (int64_t r = 0; r < rows; ++r)
            std::memcpy(a + r * F, this->features + (first + r) * wf, sizeof(T) * wf);
        product(int64_t(this->width_basis), F, rows, gf, int64_t(1), D, a, F, grad_parameters, F, true);
        product(rows, F, int64_t(this->width_basis), gf, D, int64_t(1), this->basis, F, below, widest, false);
        for (int64_t r = 0; r < rows; ++r)
            std::memcpy(this->grad_features + (first + r) * wf, below + r * widest, sizeof(T) * wf);
    }
};

// The sum of the chunks' copies of the weight gradients, in the order of the chunks. Item: 1024 parameters.
template <class T> struct DecoderReduce {
    const T* copies;           // (chunks, parameters)
    T* total;                  // (parameters)
    int64_t chunks;            // copies
    int64_t parameters;        // of one copy
    void operator()(int64_t item) const {
        const int64_t begin = item * 1024, end = std::min(begin + 1024, parameters);
        for (int64_t c = 0; c < chunks; ++c)
            for (int64_t p = begin; p < end; ++p) total[p] = (c ? total[p] : T(0)) + copies[c * parameters + p];
    }
};

}  // namespace fields

FIELDS_KERNEL(decoder_forward, fields::DecoderForward, Decoder)
FIELDS_KERNEL(decoder_backward, fields::DecoderBackward, Decoder)
FIELDS_KERNEL(decoder_reduce, fields::DecoderReduce, DecoderReduce)
