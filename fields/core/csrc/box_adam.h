// The optimiser of clouds of boxes.
#pragma once
#include "common.h"

namespace fields {

// Adam on the boxes that were touched: one whose gradient is zero throughout keeps its values and moments. Item: a box, which a
// team of GPU threads shares.
//
// An L1 penalty would touch every box in every step. Its gradient has one size everywhere, so what Adam makes of it alone is
// a shrink at a constant pace; an idle box is given all it has missed when it is next touched, or when `settling`.
template <class T> struct BoxAdam {
    T* value;                  // (boxes, size)
    const T* grad;             // (boxes, size)
    T* mean;                   // (boxes, size) first moment
    T* square;                 // (boxes, size) second moment
    T* since;                  // (boxes) the clock when a box last moved; or null
    const T* lr;               // () learning rate
    const T* step;             // () steps before this one
    const T* clock;            // () sum of all learning rates before this step
    int64_t size;              // numbers per box
    T beta_mean;               // decay of the first moment
    T beta_square;             // decay of the second moment
    T epsilon;                 // added to the root of the second moment
    T penalty;                 // gradient of the L1 penalty
    int32_t settling;          // 1: only give boxes what they have missed

    FIELDS_FN void operator()(int64_t box) const {
        const int64_t begin = box * size + lane(), end = (box + 1) * size;
        if (!settling) {
            int64_t k = begin;
            while (k < end && grad[k] == 0) k += kTeam;
            if (team_sum(k < end ? 1 : 0) == 0) return;
        }
        if (since) {
            const T missed = (*clock - since[box]) * penalty / (penalty + epsilon);
            for (int64_t k = begin; k < end && missed > 0; k += kTeam) {
                const T v = value[k], left = maximum(abs_(v) - missed, T(0));
                value[k] = v < 0 ? -left : left;
            }
            team_wait();
            if (lane() == 0) since[box] = *clock + (settling ? T(0) : *lr);
        }
        if (settling) return;
        const T rate = *lr / (1 - power(beta_mean, *step + 1)), correction = sqrt_(1 - power(beta_square, *step + 1));
        for (int64_t k = begin; k < end; k += kTeam) {
            const T g = grad[k] + (value[k] > 0 ? penalty : value[k] < 0 ? -penalty : T(0));
            mean[k] = beta_mean * mean[k] + (1 - beta_mean) * g;
            square[k] = beta_square * square[k] + (1 - beta_square) * g * g;
            value[k] -= rate * mean[k] / (sqrt_(square[k]) / correction + epsilon);
        }
    }
    static FIELDS_FN T power(T base, T exponent) { return exp_(exponent * log1p_(base - 1)); }
};

}  // namespace fields

FIELDS_KERNEL(box_adam, fields::BoxAdam, BoxAdam)
