// Sampling factorised grids.
//
// A tensorial field is a sum over modes of products of small multilinear grids, each over one, two or three of the
// axes ("factors"):
//
//     VM     sum_m  plane_m(two axes) * line_m(the third)           m = xy·z, xz·y, yz·x
//     CP            line(x) * line(y) * line(z)
//     dense         volume(x, y, z)
//
// Every factor has one vector of channels per knot, channels last, so that one knot is one or a few SIMD registers.
// Grids are corner aligned: x = -1 is knot 0 and x = +1 the last knot of an axis; outside, the border value is held
// (with zero derivative). All factors of a grid share its resolution, so the three axes are located once per sample
// and the rest of the work is fused multiply-adds over channels.
//
// Four kernels do everything: the value, the value with its spatial Jacobian, the gradient of the position, and the
// gradient of the factors. Each is written on a scalar S. With S = T it is itself; with S = Dual<T> it yields its
// own derivative along (dx, dfactors, dgrad), which is all that second derivatives need.
//
// The gradient of the factors is a scatter. On a CPU its item is one block of channels of one mode, swept over one of
// a few fixed parts of the samples: every element has exactly one owner, hence no atomics, and receives its terms in
// the order of the samples, hence bit-identical results whatever the number of threads. On a GPU its item is one
// sample, and adding is atomic: four channels in one instruction where the GPU has one, or in fixed point, where sums do
// not depend on their order, when determinism is asked for.
//
// On a GPU a team of threads does one sample: each lane takes four channels of every knot in one load, so that the team
// reads whole rows, and strides over what is left.
#pragma once
#include "common.h"
#include "lanes.h"

namespace fields {

// The axes (bit 0: x, 1: y, 2: z) of the factors of each mode; 0 where a mode has no such factor.
struct Vm {
    static constexpr int modes = 3, factors = 2;
    static FIELDS_FN constexpr unsigned axes(int mode, int f) {
        return f == 0 ? (mode == 0 ? 3u : mode == 1 ? 5u : 6u) : (mode == 0 ? 4u : mode == 1 ? 2u : 1u);
    }
};
struct Cp {
    static constexpr int modes = 1, factors = 3;
    static FIELDS_FN constexpr unsigned axes(int, int f) { return 1u << f; }
};
struct Dense {
    static constexpr int modes = 1, factors = 1;
    static FIELDS_FN constexpr unsigned axes(int, int) { return 7u; }
};

template <class T, class Stored = StoredAs<T>, class Sum = SumOf<T>> struct GridArgs {
    const T* x;                // (n, 3) positions in [-1, 1]
    const T* dx;               // (n, 3) tangent of x, or null
    const Stored* factor[6];   // mode-major; each (knots of its axes..., channels[mode])
    const T* dfactor[6];       // tangents of the factors, or null
    const T* grad;             // (n, out) cotangent of the value; (n,) when summed
    const T* dgrad;            // tangent of grad, or null
    T* value;                  // (n, out), or (n,) when summed
    T* jacobian;               // (n, out, 3), or (n, 3) when summed
    T* grad_x;                 // (n, 3)
    Sum* grad_factor[6];       // (parts, like factor)
    const double* fixed_point; // (1) what gradients are multiplied by before they are rounded to integers, or null
    int64_t part_stride[6];    // elements from one part of grad_factor to the next
    int64_t parts;             // the samples are swept in as many parts, each into a gradient of its own
    int64_t n;                 // samples
    int64_t resolution[3];     // knots along x, y, z
    int64_t channels[3];       // of each mode
    int64_t out;               // channels of all modes together
    int32_t summed;            // 1: channels and modes are added up; 0: they are concatenated
};

// Channels of a mode, and whether they are summed: known to the compiler of a GPU module, where it was told.
#ifdef FIELDS_CHANNELS
template <class A> FIELDS_FN constexpr int64_t channels_of(const A&, int mode) {
    constexpr int64_t channels[3] = {FIELDS_CHANNELS};
    return channels[mode];
}
template <class A> FIELDS_FN constexpr bool is_summed(const A&) { return FIELDS_SUMMED; }
#else
template <class A> FIELDS_FN int64_t channels_of(const A& a, int mode) { return a.channels[mode]; }
template <class A> FIELDS_FN bool is_summed(const A& a) { return a.summed; }
#endif

// Reading inputs and writing results for S = T and S = Dual<T>.
template <class T> FIELDS_FN T read(const T* v, const T*, int64_t i, T) { return v[i]; }
template <class T> FIELDS_FN Dual<T> read(const T* v, const T* d, int64_t i, Dual<T>) {
    return {v[i], d ? d[i] : T(0)};
}
template <class T> FIELDS_FN T result(T x) { return x; }
template <class T> FIELDS_FN T result(Dual<T> x) { return x.d; }
template <class T> FIELDS_FN T constant(T c, T) { return c; }
template <class T> FIELDS_FN Dual<T> constant(T c, Dual<T>) { return {c, T(0)}; }

template <class S, class T> struct Axis {
    int64_t knot;   // left knot
    S w[2];         // weights of the left and the right knot
    T slope;        // d w[1] / d x
};

// Samples are located a run at a time, so that a CPU does this arithmetic for many of them in one instruction.
#ifdef __CUDACC__
constexpr int kRun = 1;
#else
constexpr int kRun = 64;
#endif

template <class T> FIELDS_FN void locate(T x, int64_t knots, int32_t& knot, T& right, T& slope) {
    const T last = T(knots - 1), half = last / 2, u = (x + 1) * half, c = clamp(u, T(0), last);
    // The clamp keeps a NaN a NaN, so that it reaches the result; as an index it must stay in the grid.
    knot = clamp<int32_t>(int32_t(c), 0, int32_t(knots - 2));
    right = c - T(knot);
    slope = u >= 0 && u <= last ? half : T(0);
}

template <class T> struct Run {
    int32_t knot[3][kRun];
    T right[3][kRun];          // weight of the right knot
    T slope[3][kRun];

    FIELDS_FN Run(const GridArgs<T>& a, int64_t first, int count) {
        for (int axis = 0; axis < 3; ++axis) {
            const int64_t knots = a.resolution[axis];
            const T* x = a.x + 3 * first + axis;
            for (int k = 0; k < count; ++k) locate(x[3 * k], knots, this->knot[axis][k], right[axis][k], slope[axis][k]);
        }
    }

    template <class S> FIELDS_FN Axis<S, T> axis(const GridArgs<T>& a, int64_t i, int k, int along, S) const {
        const T f = right[along][k], rise = slope[along][k];
        if constexpr (sizeof(S) == sizeof(T)) {
            return {knot[along][k], {1 - f, f}, rise};
        } else {
            const T d = rise * (a.dx ? a.dx[3 * i + along] : T(0));
            return {knot[along][k], {{1 - f, -d}, {f, d}}, rise};
        }
    }
};

// Calls body(i, axes) for the samples of a run.
template <class S, class T, class Body> FIELDS_FN void each_sample(const GridArgs<T>& a, int64_t run, Body&& body) {
    const int64_t first = run * kRun;
    const int count = int(minimum<int64_t>(kRun, a.n - first));
    const Run<T> at(a, first, count);
    for (int k = 0; k < count; ++k) {
        const int64_t i = first + k;
        const Axis<S, T> axis[3] = {at.axis(a, i, k, 0, S()), at.axis(a, i, k, 1, S()), at.axis(a, i, k, 2, S())};
        body(i, axis);
    }
}

// The cotangent of `count` channels: one number for all of them when channels are summed.
template <class S, class T> FIELDS_FN auto grad_lanes(const GridArgs<T>& a, int64_t i, int64_t o, int count) {
    return is_summed(a) ? fill_lanes(read(a.grad, a.dgrad, i, S())) : load_lanes(a.grad, a.dgrad, o, count, S());
}

constexpr FIELDS_FN int count_axes(unsigned axes) { return int((axes & 1u) + (axes >> 1 & 1u) + (axes >> 2 & 1u)); }

// The corners of the cell of one factor that holds a sample: where their channels start, and their weights, or
// (when the factor varies along `along`) the derivatives of the weights along that axis.
template <unsigned AXES, class S> struct Cell {
    static constexpr int corners = 1 << count_axes(AXES);
    int64_t offset[corners];
    S weight[corners];

    template <class T>
    FIELDS_FN Cell(const Axis<S, T>* axis, const int64_t* resolution, int64_t channels, int along) {
        int64_t first = 0, stride[3] = {}, size = channels;
#pragma GCC unroll 3
        for (int a = 2; a >= 0; --a) {
            if (!(AXES >> a & 1u)) continue;
            stride[a] = size;
            first += axis[a].knot * size;
            size *= resolution[a];
        }
#pragma GCC unroll 8
        for (int c = 0; c < corners; ++c) {
            offset[c] = first;
            S w = constant(T(1), S());
            int bit = 0;
#pragma GCC unroll 3
            for (int a = 0; a < 3; ++a) {
                if (!(AXES >> a & 1u)) continue;
                const int side = c >> bit++ & 1;
                if (side) offset[c] += stride[a];
                w = w * (a == along ? constant(side ? axis[a].slope : -axis[a].slope, S()) : axis[a].w[side]);
            }
            weight[c] = w;
        }
    }

    template <class A, class T>
    FIELDS_FN auto interpolate(const A* factor, const T* tangent, int64_t channel, int count) const {
        auto v = weight[0] * load_lanes(factor, tangent, offset[0] + channel, count, S());
#pragma GCC unroll 8
        for (int c = 1; c < corners; ++c)
            v += weight[c] * load_lanes(factor, tangent, offset[c] + channel, count, S());
        return v;
    }
};

// The cells of all factors of one mode. An axis belongs to one factor of a mode only, so the derivative of the
// product along an axis is the same product with one cell's weights replaced by their slopes.
template <class L, int MODE, class S, int F = 0, bool END = (F == L::factors)> struct Cells {
    Cell<L::axes(MODE, F), S> cell;
    Cells<L, MODE, S, F + 1> rest;

    template <class T>
    FIELDS_FN Cells(const GridArgs<T>& a, const Axis<S, T>* axis, int along = -1)
        : cell(axis, a.resolution, channels_of(a, MODE), along), rest(a, axis, along) {}

    template <class T> FIELDS_FN auto multiply(const GridArgs<T>& a, int64_t channel, int count) const {
        constexpr int f = MODE * L::factors + F;
        const auto v = cell.interpolate(a.factor[f], a.dfactor[f], channel, count);
        if constexpr (F + 1 == L::factors) return v;
        else return v * rest.multiply(a, channel, count);
    }

    // Adds grad times the product of the other factors to the knots of each. `before` is grad times the factors
    // already passed; returns the product of the factors from F on.
    template <class T, class V> FIELDS_FN V scatter(const GridArgs<T>& a, int64_t channel, int count, V before) const {
        constexpr int f = MODE * L::factors + F;
        const V v = cell.interpolate(a.factor[f], a.dfactor[f], channel, count);
        V own = before, product = v;
        if constexpr (F + 1 < L::factors) {
            const V after = rest.scatter(a, channel, count, V(before * v));
            own = before * after;
            product = v * after;
        }
#pragma GCC unroll 8
        for (int c = 0; c < cell.corners; ++c)
            add_lanes(a.grad_factor[f] + cell.offset[c] + channel, result(cell.weight[c] * own), count, a.fixed_point);
        return product;
    }
};
template <class L, int MODE, class S, int F> struct Cells<L, MODE, S, F, true> {
    template <class T> FIELDS_FN Cells(const GridArgs<T>&, const Axis<S, T>*, int) {}
};

// The channels of a mode that are this lane's, kLanes at a time. On a CPU full and half blocks get a constant count; on a
// GPU, where one text of the body serves all, it is constant if rows are aligned.
template <class Body> FIELDS_FN void blocks(int64_t channels, Body&& body) {
#ifdef __CUDACC__
    for (int64_t c = lane() * kLanes; c < channels; c += kTeam * kLanes)
        body(c, FIELDS_ALIGNED ? kLanes : int(minimum<int64_t>(kLanes, channels - c)));
#else
    int64_t c = 0;
    for (; c + kLanes <= channels; c += kLanes) body(c, kLanes);
    if (channels - c == kLanes / 2) body(c, kLanes / 2);
    else if (c < channels) body(c, int(channels - c));
#endif
}

// v = sum or concatenation of the products. With S = Dual: the tangent of v.
template <class T, class L, class S> struct GridValue : GridArgs<T> {
    template <int MODE, class V> FIELDS_FN void mode(int64_t i, const Axis<S, T>* axis, V& sum, int64_t start) const {
        if constexpr (MODE < L::modes) {
            const Cells<L, MODE, S> cells(*this, axis);
            blocks(channels_of(*this, MODE), [&](int64_t c, int count) FIELDS_INLINE {
                const V p = cells.multiply(*this, c, count);
                if (is_summed(*this)) sum += p;
                else store_lanes(this->value + i * this->out + start + c, result(p), count);
            });
            mode<MODE + 1>(i, axis, sum, start + channels_of(*this, MODE));
        }
    }
    FIELDS_FN void operator()(int64_t run) const {
        each_sample<S>(*this, run, [&](int64_t i, const Axis<S, T>* axis) FIELDS_INLINE {
            auto sum = fill_lanes(S());
            mode<0>(i, axis, sum, 0);
            if (is_summed(*this)) {
                const T v = team_sum(sum_lanes<T>(result(sum)));
                if (lane() == 0) this->value[i] = v;
            }
        });
    }
    // The sum of channels and modes at one place.
    FIELDS_FN T summed_at(const Axis<T, T>* axis) const {
        auto sum = fill_lanes(T());
        mode<0>(0, axis, sum, 0);
        return team_sum(sum_lanes<T>(sum));
    }
};

// v (at index 0) and its derivatives along the axes (1 to 3): written as value and Jacobian, or, in the backward
// pass, contracted with grad to <grad, dv/dx>. With S = Dual: the tangent of the latter.
template <class T, class L, class S, bool CONTRACT> struct GridSlopes : GridArgs<T> {
    template <int MODE, class V> FIELDS_FN void mode(int64_t i, const Axis<S, T>* axis, V* sum, int64_t start) const {
        if constexpr (MODE < L::modes) {
            for (int along = CONTRACT ? 0 : -1; along < 3; ++along) {
                const Cells<L, MODE, S> cells(*this, axis, along);
                blocks(channels_of(*this, MODE), [&](int64_t c, int count) FIELDS_INLINE {
                    const V p = cells.multiply(*this, c, count);
                    const int64_t o = i * this->out + start + c;
                    if constexpr (CONTRACT) sum[along + 1] += p * grad_lanes<S>(*this, i, o, count);
                    else if (is_summed(*this)) sum[along + 1] += p;
                    else if (along < 0) store_lanes(this->value + o, result(p), count);
                    else for (int b = 0; b < count; ++b) this->jacobian[3 * (o + b) + along] = result(p)[b];
                });
            }
            mode<MODE + 1>(i, axis, sum, start + channels_of(*this, MODE));
        }
    }
    FIELDS_FN void operator()(int64_t run) const {
        each_sample<S>(*this, run, [&](int64_t i, const Axis<S, T>* axis) FIELDS_INLINE {
            decltype(fill_lanes(S())) sum[4] = {};
            mode<0>(i, axis, sum, 0);
            if (!CONTRACT && !is_summed(*this)) return;
            for (int a = CONTRACT ? 0 : -1; a < 3; ++a) {
                const T v = team_sum(sum_lanes<T>(result(sum[a + 1])));
                if (lane() != 0) continue;
                if (a < 0) this->value[i] = v;
                else (CONTRACT ? this->grad_x : this->jacobian)[3 * i + a] = v;
            }
        });
    }
};

// <grad, dv/dfactors>, scattered. With S = Dual: its tangent. Items: owners (CPU) or samples (GPU), see above.
template <class T, class L, class S> struct GridGradFactors : GridArgs<T> {
    template <int MODE> FIELDS_FN void sample(int64_t i, const Axis<S, T>* axis, int64_t channel, int count,
                                              int64_t start) const {
        const Cells<L, MODE, S> cells(*this, axis);
        cells.scatter(*this, channel, count, grad_lanes<S>(*this, i, i * this->out + start + channel, count));
    }
    template <int MODE> FIELDS_FN void owner(int64_t block, int64_t start, int64_t first_run, int64_t last_run) const {
        if constexpr (MODE < L::modes) {
            const int64_t channels = channels_of(*this, MODE), mine = (channels + kLanes - 1) / kLanes;
            if (block >= mine) return owner<MODE + 1>(block - mine, start + channels, first_run, last_run);
            const int64_t first = block * kLanes;
            const int count = int(minimum<int64_t>(channels - first, kLanes));
            for (int64_t run = first_run; run < last_run; ++run)
                each_sample<S>(*this, run, [&](int64_t i, const Axis<S, T>* axis) FIELDS_INLINE {
                    if (count == kLanes) sample<MODE>(i, axis, first, kLanes, start);
                    else if (count == kLanes / 2) sample<MODE>(i, axis, first, kLanes / 2, start);
                    else sample<MODE>(i, axis, first, count, start);
                });
        }
    }
    template <int MODE> FIELDS_FN void whole(int64_t i, const Axis<S, T>* axis, int64_t start) const {
        if constexpr (MODE < L::modes) {
            blocks(channels_of(*this, MODE), [&](int64_t c, int count) { sample<MODE>(i, axis, c, count, start); });
            whole<MODE + 1>(i, axis, start + channels_of(*this, MODE));
        }
    }
    FIELDS_FN void operator()(int64_t item) const {
#ifdef __CUDACC__
        each_sample<S>(*this, item, [&](int64_t i, const Axis<S, T>* axis) { whole<0>(i, axis, 0); });
#else
        const int64_t runs = (this->n + kRun - 1) / kRun, part = item % this->parts;
        GridGradFactors mine = *this;  // a copy that nothing else can point to, as in parallel.h
        for (int f = 0; f < L::modes * L::factors; ++f) mine.grad_factor[f] += part * this->part_stride[f];
        mine.template owner<0>(item / this->parts, 0, runs * part / this->parts, runs * (part + 1) / this->parts);
#endif
    }
};

template <class T, class L> using Value = GridValue<T, L, T>;
template <class T, class L> using Jacobian = GridSlopes<T, L, T, false>;
template <class T, class L> using GradX = GridSlopes<T, L, T, true>;
template <class T, class L> using GradFactors = GridGradFactors<T, L, T>;
template <class T, class L> using ValueTangent = GridValue<T, L, Dual<T>>;
template <class T, class L> using GradXTangent = GridSlopes<T, L, Dual<T>, true>;
template <class T, class L> using GradFactorsTangent = GridGradFactors<T, L, Dual<T>>;

}  // namespace fields

#define FIELDS_GRID_KERNELS(layout, Layout)                                                     \
    FIELDS_KERNEL(layout##_value, fields::Value, GridArgs, fields::Layout)                      \
    FIELDS_KERNEL(layout##_jacobian, fields::Jacobian, GridArgs, fields::Layout)                \
    FIELDS_KERNEL(layout##_grad_x, fields::GradX, GridArgs, fields::Layout)                     \
    FIELDS_KERNEL(layout##_grad_factors, fields::GradFactors, GridArgs, fields::Layout)         \
    FIELDS_KERNEL(layout##_value_tangent, fields::ValueTangent, GridArgs, fields::Layout)       \
    FIELDS_KERNEL(layout##_grad_x_tangent, fields::GradXTangent, GridArgs, fields::Layout)      \
    FIELDS_KERNEL(layout##_grad_factors_tangent, fields::GradFactorsTangent, GridArgs, fields::Layout)
FIELDS_GRID_KERNELS(vm, Vm)
FIELDS_GRID_KERNELS(cp, Cp)
FIELDS_GRID_KERNELS(dense, Dense)
