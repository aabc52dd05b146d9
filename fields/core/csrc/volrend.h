// Volume rendering of packed samples: item is one ray, whose samples are `count` in a row from `begin`. A team takes as
// many of them at a time as it has lanes; what a sample needs of those before it (behind it, in the gradients) is a scan.
//
// With the opacities a, transmittance is T_i = prod_{j<i} (1 - a_j) and the weight w_i = T_i a_i. Gradients are suffix
// sums, gathered while walking back along the ray. For opacities they are arranged so that nothing is ever divided by
// 1 - a: with S_i = sum_{j>i} (gw_j a_j + gT_j) prod_{i<k<j} (1 - a_k), which obeys a recursion,
//
//     dL/da_i = T_i (gw_i - S_i)          exact where an opacity is 1, and everything behind it is dark.
#pragma once
#include "common.h"

namespace fields {

template <class T> struct Weights {
    const T* sigmas;           // (n) densities; null when opacities are given
    const T* t_starts;         // (n)
    const T* t_ends;           // (n)
    const T* given;            // (n) opacities; null when densities are given
    const int64_t* packed;     // (rays, 2) begin and count
    T* weights;                // (n)
    T* trans;                  // (n) transmittance up to the sample
    T* alphas;                 // (n)
    const T* grad_weights;     // (n)
    const T* grad_trans;       // (n) or null
    const T* grad_alphas;      // (n) or null
    T* grad_sigmas;            // (n) of sigmas, or of the given opacities
    T* grad_lengths;           // (n) of t_ends - t_starts, or null
};

template <class T> struct WeightsForward : Weights<T> {
    FIELDS_FN void operator()(int64_t ray) const {
        const int64_t begin = this->packed[2 * ray], count = this->packed[2 * ray + 1];
        T transmittance = 1, depth = 0;
        for (int64_t k = lane(); k - lane() < count; k += kTeam) {
            const int64_t i = begin + k;
            const bool mine = k < count;
            T a = 0, t;
            if (this->given) {
                if (mine) a = this->given[i];
                t = team_scan(1 - a, transmittance, [](T x, T y) FIELDS_INLINE { return x * y; });
            } else {
                const T tau = mine ? this->sigmas[i] * (this->t_ends[i] - this->t_starts[i]) : T(0);
                a = 1 - exp_(-tau);
                t = exp_(-team_scan(tau, depth, [](T x, T y) FIELDS_INLINE { return x + y; }));
            }
            if (!mine) continue;
            this->trans[i] = t;
            this->alphas[i] = a;
            this->weights[i] = t * a;
        }
    }
};

// x -> add + times * x: what a sample does to S on its way to the front of the ray.
template <class T> struct Affine {
    T add;
    T times;
    friend FIELDS_FN Affine after(Affine first, Affine then) {
        return {then.add + then.times * first.add, then.times * first.times};
    }
};
#ifdef __CUDACC__
template <class T> FIELDS_FN Affine<T> from_before(Affine<T> v, int lanes) {
    return {from_before(v.add, lanes), from_before(v.times, lanes)};
}
template <class T> FIELDS_FN Affine<T> from_last(Affine<T> v) { return {from_last(v.add), from_last(v.times)}; }
#endif

template <class T> struct WeightsBackward : Weights<T> {
    FIELDS_FN void operator()(int64_t ray) const {
        const int64_t begin = this->packed[2 * ray], count = this->packed[2 * ray + 1];
        Affine<T> front = {0, 1};  // for opacities, S is where this takes zero
        T behind = 0;              // for densities, the sum of gw w + gT T of the samples behind
        for (int64_t k = lane(); k - lane() < count; k += kTeam) {
            const int64_t i = begin + count - 1 - k;
            const bool mine = k < count;
            const T gw = mine && this->grad_weights ? this->grad_weights[i] : T(0), a = mine ? this->alphas[i] : T(0);
            const T gt = mine && this->grad_trans ? this->grad_trans[i] : T(0), t = mine ? this->trans[i] : T(0);
            const T ga = mine && this->grad_alphas ? this->grad_alphas[i] : T(0);
            if (this->given) {
                const Affine<T> own = {gw * a + gt, 1 - a};
                const T s = team_scan(own, front, [](Affine<T> x, Affine<T> y) FIELDS_INLINE { return after(x, y); }).add;
                if (mine) this->grad_sigmas[i] = t * (gw - s) + ga;
            } else {
                const T own = mine ? gw * this->weights[i] + gt * t : T(0);
                const T s = team_scan(own, behind, [](T x, T y) FIELDS_INLINE { return x + y; });
                if (!mine) continue;
                const T length = this->t_ends[i] - this->t_starts[i], sigma = this->sigmas[i];
                const T open = exp_(-sigma * length);  // 1 - a without cancellation
                const T grad = gw * t * open + ga * open - s;
                this->grad_sigmas[i] = grad * length;
                if (this->grad_lengths) this->grad_lengths[i] = grad * sigma;
            }
        }
    }
};

// out[ray] = sum of weights * values over its samples.
template <class T> struct Accumulate {
    const T* weights;          // (n)
    const T* values;           // (n, width), or null for ones
    const int64_t* packed;     // (rays, 2) begin and count
    T* out;                    // (rays, width)
    const T* grad;             // (rays, width)
    T* grad_weights;           // (n) or null
    T* grad_values;            // (n, width) or null
    int64_t width;             // of a value
};

template <class T> struct AccumulateForward : Accumulate<T> {
    FIELDS_FN void operator()(int64_t ray) const {
        const int64_t begin = this->packed[2 * ray], end = begin + this->packed[2 * ray + 1], w = this->width;
        T* out = this->out + ray * w;
        if (kTeam == 1) {
            for (int64_t c = 0; c < w; ++c) out[c] = 0;
            for (int64_t i = begin; i < end; ++i)
                for (int64_t c = 0; c < w; ++c)
                    out[c] += this->weights[i] * (this->values ? this->values[i * w + c] : T(1));
            return;
        }
        for (int64_t c = 0; c < w; ++c) {
            T sum = 0;
            for (int64_t i = begin + lane(); i < end; i += kTeam)
                sum += this->weights[i] * (this->values ? this->values[i * w + c] : T(1));
            sum = team_sum(sum);
            if (lane() == 0) out[c] = sum;
        }
    }
};

template <class T> struct AccumulateBackward : Accumulate<T> {
    FIELDS_FN void operator()(int64_t ray) const {
        const int64_t begin = this->packed[2 * ray], end = begin + this->packed[2 * ray + 1], w = this->width;
        const T* grad = this->grad + ray * w;
        for (int64_t i = begin + lane(); i < end; i += kTeam) {
            T sum = 0;
            for (int64_t c = 0; c < w; ++c) {
                sum += grad[c] * (this->values ? this->values[i * w + c] : T(1));
                if (this->grad_values) this->grad_values[i * w + c] = this->weights[i] * grad[c];
            }
            if (this->grad_weights) this->grad_weights[i] = sum;
        }
    }
};

}  // namespace fields

FIELDS_KERNEL(weights_forward, fields::WeightsForward, Weights)
FIELDS_KERNEL(weights_backward, fields::WeightsBackward, Weights)
FIELDS_KERNEL(accumulate_forward, fields::AccumulateForward, Accumulate)
FIELDS_KERNEL(accumulate_backward, fields::AccumulateBackward, Accumulate)
