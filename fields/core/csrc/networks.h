// Many small networks of one shape at once, each with weights of its own: neural reflectances, a few hundred numbers each.
//
//     h = leaky(W1 x + b1),  h = leaky(W2 h + b2),  ...,  y = Wn h + bn
//
// As batched matrix products of 21 rows these run at a tenth of what a core can do: operands are too small for a library's
// tiles, and activations of all networks take trips through memory. Here a block of samples goes through one network with its
// activations in the first-level cache, sample beside sample in a register, so that every product has whole registers to do.
//
// Host only: on a GPU the products are torch's.
#pragma once
#include "common.h"
#include "product.h"

namespace fields {

constexpr int kNetworkBlock = 128;   // samples per block: their activations fit the first-level cache
constexpr int kNetworkDepth = 8;     // layers, at most

template <class T> struct Networks {
    const T* inputs;           // (samples, width[0]), of each network or of all
    const T* weights;          // (networks, parameters): of each layer (out, in), then (out)
    const T* grad;             // (networks, samples, width[layers]) cotangent of the outputs
    T* outputs;                // (networks, samples, width[layers])
    T* grad_weights;           // (networks, parameters)
    int64_t samples;           // of each network
    int64_t parameters;        // of each network
    int64_t stride;            // numbers from one network's inputs to the next one's: 0 where all have the same
    int64_t width[9];          // of the inputs and of each layer's outputs
    int32_t layers;            // of each network
    T slope;                   // of what is negative

};

// A block's activations, a row of kNetworkBlock samples for each unit: the inputs, then each layer's outputs. Samples beyond the last are zero.
template <class T> struct Activations {
    const Networks<T>& k;
    T* row[kNetworkDepth + 1];

    Activations(const Networks<T>& k_, T* memory) : k(k_) {
        for (int l = 0; l <= k.layers; ++l) row[l] = memory, memory += k.width[l] * kNetworkBlock;
    }
    static int64_t numbers(const Networks<T>& k) {
        int64_t all = 0;
        for (int l = 0; l <= k.layers; ++l) all += k.width[l] * kNetworkBlock;
        return all;
    }
    void run(int64_t network, int64_t first, int64_t count) {
        const int64_t in = k.width[0];
        const T* x = k.inputs + network * k.stride + first * in;
        for (int64_t i = 0; i < in; ++i) {
            for (int64_t s = 0; s < count; ++s) row[0][i * kNetworkBlock + s] = x[s * in + i];
            for (int64_t s = count; s < kNetworkBlock; ++s) row[0][i * kNetworkBlock + s] = 0;
        }
        const T* w = k.weights + network * k.parameters;
        for (int l = 0; l < k.layers; ++l) {
            const int64_t below = k.width[l], above = k.width[l + 1];
            const T* bias = w + above * below;
            T* y = row[l + 1];
            for (int64_t o = 0; o < above; ++o) std::fill(y + o * kNetworkBlock, y + (o + 1) * kNetworkBlock, bias[o]);
            product(above, int64_t(kNetworkBlock), below, w, below, int64_t(1), row[l], int64_t(kNetworkBlock), y,
                    int64_t(kNetworkBlock), true);
            if (l + 1 < k.layers)
                for (int64_t j = 0; j < above * kNetworkBlock; ++j) y[j] = y[j] < 0 ? k.slope * y[j] : y[j];
            w = bias + above;
        }
    }
};

// Item: a block of one network's samples.
template <class T> struct NetworksForward : Networks<T> {
    void operator()(int64_t item) const {
        const int64_t blocks = (this->samples + kNetworkBlock - 1) / kNetworkBlock;
        const int64_t network = item / blocks, first = item % blocks * kNetworkBlock;
        const int64_t count = std::min<int64_t>(kNetworkBlock, this->samples - first), out = this->width[this->layers];
        Activations<T> a(*this, scratch<T>(Activations<T>::numbers(*this)));
        a.run(network, first, count);
        T* y = this->outputs + (network * this->samples + first) * out;
        for (int64_t s = 0; s < count; ++s)
            for (int64_t o = 0; o < out; ++o) y[s * out + o] = a.row[this->layers][o * kNetworkBlock + s];
    }
};

// Item: a network. Its activations are made again: that is cheaper than keeping them.
template <class T> struct NetworksBackward : Networks<T> {
    static constexpr int kLane = kRegister / sizeof(T);
    void operator()(int64_t network) const {
        const int64_t numbers = Activations<T>::numbers(*this), out = this->width[this->layers];
        int64_t widest = 0;
        for (int l = 0; l <= this->layers; ++l) widest = std::max(widest, this->width[l]);
        T* memory = scratch<T>(numbers + (2 * widest + 1) * kNetworkBlock + this->parameters * kLane);
        Activations<T> a(*this, memory);
        T *g = memory + numbers, *below = g + widest * kNetworkBlock, *ones = below + widest * kNetworkBlock, *sums = ones + kNetworkBlock;
        std::fill(ones, ones + kNetworkBlock, T(1));
        const T* weights = this->weights + network * this->parameters;
        for (int64_t first = 0; first < this->samples; first += kNetworkBlock) {
            const int64_t count = std::min<int64_t>(kNetworkBlock, this->samples - first);
            a.run(network, first, count);
            const T* given = this->grad + (network * this->samples + first) * out;
            for (int64_t o = 0; o < out; ++o) {
                for (int64_t s = 0; s < count; ++s) g[o * kNetworkBlock + s] = given[s * out + o];
                for (int64_t s = count; s < kNetworkBlock; ++s) g[o * kNetworkBlock + s] = 0;
            }
            int64_t at = this->parameters;
            for (int l = this->layers - 1; l >= 0; --l) {
                const int64_t i = this->width[l], o = this->width[l + 1];
                at -= o * i + o;
                product_of_rows(o, int64_t(1), int64_t(kNetworkBlock), g, int64_t(kNetworkBlock), ones, int64_t(kNetworkBlock),
                                sums + (at + o * i) * kLane, int64_t(1));
                product_of_rows(o, i, int64_t(kNetworkBlock), g, int64_t(kNetworkBlock), a.row[l], int64_t(kNetworkBlock),
                                sums + at * kLane, i);
                if (!l) break;
                product(i, int64_t(kNetworkBlock), o, weights + at, int64_t(1), i, g, int64_t(kNetworkBlock), below,
                        int64_t(kNetworkBlock), false);
                for (int64_t j = 0; j < i * kNetworkBlock; ++j) below[j] = a.row[l][j] > 0 ? below[j] : this->slope * below[j];
                std::swap(g, below);
            }
        }
        sum_lanes(this->parameters, sums, this->grad_weights + network * this->parameters);
    }
};

}  // namespace fields

FIELDS_KERNEL(networks_forward, fields::NetworksForward, Networks)
FIELDS_KERNEL(networks_backward, fields::NetworksBackward, Networks)
