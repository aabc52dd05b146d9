// Rendering the geometry of a field with a factorised density in one pass: march, sample, composite.
//
// A ray is walked until nothing is seen any more. Only the samples that show are kept, a few per ray, to be coloured; the
// many others never reach memory. Item: one ray, and on a GPU its team shares the channels of the density.
//
// `visible_count` notes the samples of each ray as long as there are few; `visible_write`, when their places are known,
// copies them, or walks again where there were too many to note.
#pragma once
#include "grid.h"
#include "march.h"

namespace fields {

constexpr int kNoted = 16;

template <class T, class L> struct VisibleArgs {
    March<T> march;            // of these, the outputs are not used
    GridValue<T, L, T> grid;   // factors of the density, summed
    int64_t* counts;           // (n) samples that show
    int64_t* walked;           // (n) samples that were looked at
    T* opacity;                // (n)
    T* depth;                  // (n) sum of weight times distance
    T* noted_t;                // (n, 16) distances of the first of them
    T* noted_weights;          // (n, 16)
    const int64_t* begins;     // (n) where each ray's go
    T* x;                      // (m, 3) their positions in [-1, 1]
    T* weights;                // (m)
    int64_t* ray_indices;      // (m)
    T shift;                   // density is scale * softplus(value + shift)
    T scale;
    int32_t level_set;         // 1: light is lost to the rise of that along the ray, 0: to its integral
    T threshold;               // samples of lower weight do not show
    T stop;                    // the walk ends behind this transmittance

    // Where, from 0 to 1, light is lost in the mean between two samples, along which the level rises evenly; of it remains
    // 1 / (1 + e^level), whose integral is -softplus(-level). In the middle where nothing can be said.
    static FIELDS_FN T crossing(T level0, T level1, T density0, T density1) {
        const T left0 = exp_(-density0), left1 = exp_(-density1);
        if (!(left0 - left1 > T(1e-4))) return T(0.5);
        const T mean = 1 - (density1 - density0) / (level1 - level0);
        const T at = (mean - left1) / (left0 - left1);
        return at < 0 ? T(0) : at > 1 ? T(1) : at;
    }

    // Calls show(t, weight) for what shows of ray i: in the middle of a step, or where a level set is crossed.
    template <class Show> FIELDS_FN void walk(int64_t i, Show&& show, T& opacity, T& depth, int64_t& walked) const {
        T origin[3], along[3], optical = 0, transmittance = 1, before = 0, shallower = 0;
        march.normalised(i, origin, along);
        opacity = depth = 0;
        walked = 0;
        march.walk(i, [&](T t, T dt) FIELDS_INLINE {
            const T mid = t + dt / 2;
            Axis<T, T> axis[3];
            for (int a = 0; a < 3; ++a) {
                int32_t knot;
                T right;
                locate(origin[a] + mid * along[a], grid.resolution[a], knot, right, axis[a].slope);
                axis[a].knot = knot;
                axis[a].w[0] = 1 - right;
                axis[a].w[1] = right;
            }
            const T level = grid.summed_at(axis) + shift, density = scale * softplus(level);
            const T tau = level_set == 0 ? density * dt : density > before ? density - before : T(0);
            const T weight = transmittance * (1 - exp_(-tau));
            T at = mid;
            if (level_set) at -= dt * (walked == 0 ? T(0.5) : 1 - crossing(shallower, level, before, density));
            before = density;
            shallower = level;
            opacity += weight;
            depth += weight * at;
            if (weight > threshold) show(at, weight);
            ++walked;
            optical += tau;
            transmittance = exp_(-optical);
            return transmittance > stop;
        });
    }
};

template <class T, class L> struct VisibleCount : VisibleArgs<T, L> {
    FIELDS_FN void operator()(int64_t i) const {
        int64_t count = 0, walked;
        T opacity, depth;
        this->walk(i, [&](T t, T weight) FIELDS_INLINE {
            if (count < kNoted && lane() == 0) {
                this->noted_t[i * kNoted + count] = t;
                this->noted_weights[i * kNoted + count] = weight;
            }
            ++count;
        }, opacity, depth, walked);
        if (lane() != 0) return;
        this->counts[i] = count;
        this->walked[i] = walked;
        this->opacity[i] = opacity;
        this->depth[i] = depth;
    }
};

template <class T, class L> struct VisibleWrite : VisibleArgs<T, L> {
    FIELDS_FN void operator()(int64_t i) const {
        int64_t at = this->begins[i];
        const int64_t count = this->counts[i];
        T origin[3], along[3];
        this->march.normalised(i, origin, along);
        const auto write = [&](T t, T weight) FIELDS_INLINE {
            if (lane() == 0) {
                for (int a = 0; a < 3; ++a) this->x[3 * at + a] = origin[a] + t * along[a];
                this->weights[at] = weight;
                this->ray_indices[at] = i;
            }
            ++at;
        };
        if (count > kNoted) {
            // This walk's code is compiled apart from the counting one's, so that a weight may round to the other side of
            // the threshold: what is too much is dropped, what is missing weighs nothing.
            const int64_t end = at + count;
            int64_t walked;
            T opacity, depth;
            this->walk(i, [&](T t, T weight) FIELDS_INLINE {
                if (at < end) write(t, weight);
            }, opacity, depth, walked);
            while (at < end) write(T(0), T(0));
            return;
        }
        for (int64_t k = 0; k < count; ++k) write(this->noted_t[i * kNoted + k], this->noted_weights[i * kNoted + k]);
    }
};

}  // namespace fields

#define FIELDS_VISIBLE_KERNELS(layout, Layout)                                                \
    FIELDS_KERNEL(layout##_visible_count, fields::VisibleCount, VisibleArgs, fields::Layout)  \
    FIELDS_KERNEL(layout##_visible_write, fields::VisibleWrite, VisibleArgs, fields::Layout)
FIELDS_VISIBLE_KERNELS(vm, Vm)
FIELDS_VISIBLE_KERNELS(cp, Cp)
FIELDS_VISIBLE_KERNELS(dense, Dense)
