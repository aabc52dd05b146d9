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
// The gradient of the factors is a scatter. On a CPU its item is one block of channels of one mode, swept over all
// samples: every element has exactly one owner, whatever the number of threads, hence no atomics and bit-identical
// results. On a GPU its item is one sample and `add_to` is atomic.
#pragma once
#include "common.h"

namespace fields {

constexpr int kBlock = 8;  // channels per owner of the backward pass: small enough to share three modes evenly

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

template <class T> struct GridArgs {
    const T* x;                // (n, 3) positions in [-1, 1]
    const T* dx;               // (n, 3) tangent of x, or null
    const T* factor[6];        // mode-major; each (knots of its axes..., channels[mode])
    const T* dfactor[6];       // tangents of the factors, or null
    const T* grad;             // (n, out) cotangent of the value; (n,) when summed
    const T* dgrad;            // tangent of grad, or null
    T* value;                  // (n, out), or (n,) when summed
    T* jacobian;               // (n, out, 3), or (n, 3) when summed
    T* grad_x;                 // (n, 3)
    T* grad_factor[6];         // like factor
    int64_t n;                 // samples
    int64_t resolution[3];     // knots along x, y, z
    int64_t channels[3];       // of each mode
    int64_t out;               // channels of all modes together
    int32_t summed;            // 1: channels and modes are added up; 0: they are concatenated
};

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

template <class S, class T> FIELDS_FN Axis<S, T> locate(const GridArgs<T>& a, int64_t i, int axis) {
    const S x = read(a.x, a.dx, 3 * i + axis, S());
    T position;
    if constexpr (sizeof(S) == sizeof(T)) position = x; else position = x.v;
    const T last = T(a.resolution[axis] - 1), half = last / 2;
    const T u = (position + 1) * half;
    const bool inside = u >= 0 && u <= last;
    const T c = clamp(u, T(0), last);
    // A NaN fails every comparison: it must not become an index, but must reach the result.
    const int32_t cell = c >= 0 && c < last ? int32_t(c) : c >= last ? int32_t(a.resolution[axis] - 2) : 0;
    Axis<S, T> r;
    r.knot = cell;
    r.slope = inside ? half : T(0);
    const T f = c - T(cell);
    if constexpr (sizeof(S) == sizeof(T)) {
        r.w[1] = f;
        r.w[0] = 1 - f;
    } else {
        r.w[1] = {f, r.slope * x.d};
        r.w[0] = {1 - f, -r.slope * x.d};
    }
    return r;
}

// A number known when compiling, so that full blocks of channels become straight SIMD code.
template <int N> struct Constant {
    constexpr FIELDS_FN operator int() const { return N; }
};

constexpr FIELDS_FN int count_axes(unsigned axes) { return int((axes & 1u) + (axes >> 1 & 1u) + (axes >> 2 & 1u)); }

// The corners of the cell of one factor that holds a sample: where their channels start, and their weights, or
// (when the factor varies along `along`) the derivatives of the weights along that axis.
template <unsigned AXES, class S> struct Cell {
    static constexpr int corners = 1 << count_axes(AXES);
    int64_t offset[corners];
    S weight[corners];

    template <class T>
    FIELDS_FN Cell(const Axis<S, T>* axis, const int64_t* resolution, int64_t channels, int along) {
#pragma GCC unroll 8
        for (int c = 0; c < corners; ++c) {
            int64_t knot = 0;
            S w = constant(T(1), S());
            int bit = 0;
#pragma GCC unroll 3
            for (int a = 0; a < 3; ++a) {
                if (!(AXES >> a & 1u)) continue;
                const int side = c >> bit++ & 1;
                knot = knot * resolution[a] + axis[a].knot + side;
                w = w * (a == along ? constant(side ? axis[a].slope : -axis[a].slope, S()) : axis[a].w[side]);
            }
            offset[c] = knot * channels;
            weight[c] = w;
        }
    }

    template <class T, class Count>
    FIELDS_FN void interpolate(const T* factor, const T* tangent, int64_t channel, Count count, S* out) const {
        for (int b = 0; b < count; ++b) out[b] = weight[0] * read(factor, tangent, offset[0] + channel + b, S());
#pragma GCC unroll 8
        for (int c = 1; c < corners; ++c)
            for (int b = 0; b < count; ++b)
                out[b] += weight[c] * read(factor, tangent, offset[c] + channel + b, S());
    }
};

// The cells of all factors of one mode. An axis belongs to one factor of a mode only, so the derivative of the
// product along an axis is the same product with one cell's weights replaced by their slopes.
template <class L, int MODE, class S, int F = 0, bool END = (F == L::factors)> struct Cells {
    Cell<L::axes(MODE, F), S> cell;
    Cells<L, MODE, S, F + 1> rest;

    template <class T>
    FIELDS_FN Cells(const GridArgs<T>& a, const Axis<S, T>* axis, int along = -1)
        : cell(axis, a.resolution, a.channels[MODE], along), rest(a, axis, along) {}

    template <int B, class T, class Count>
    FIELDS_FN void multiply(const GridArgs<T>& a, int64_t channel, Count count, S* out) const {
        S v[B];
        cell.interpolate(a.factor[MODE * L::factors + F], a.dfactor[MODE * L::factors + F], channel, count, v);
        for (int b = 0; b < count; ++b) out[b] = F ? out[b] * v[b] : v[b];
        rest.template multiply<B>(a, channel, count, out);
    }

    // `before` is grad times the factors already passed; returns in `after` the product of the factors from F on.
    template <int B, class T, class Count>
    FIELDS_FN void scatter(const GridArgs<T>& a, int64_t channel, Count count, const S* before, S* after) const {
        constexpr int f = MODE * L::factors + F;
        S v[B], own[B], passed[B];
        cell.interpolate(a.factor[f], a.dfactor[f], channel, count, v);
        for (int b = 0; b < count; ++b) passed[b] = before[b] * v[b];
        rest.template scatter<B>(a, channel, count, passed, after);
        for (int b = 0; b < count; ++b) own[b] = F + 1 < L::factors ? before[b] * after[b] : before[b];
        for (int b = 0; b < count; ++b) after[b] = F + 1 < L::factors ? after[b] * v[b] : v[b];
#pragma GCC unroll 8
        for (int c = 0; c < cell.corners; ++c)
            for (int b = 0; b < count; ++b)
                add_to(a.grad_factor[f] + cell.offset[c] + channel + b, result(cell.weight[c] * own[b]));
    }
};
template <class L, int MODE, class S, int F> struct Cells<L, MODE, S, F, true> {
    template <class T> FIELDS_FN Cells(const GridArgs<T>&, const Axis<S, T>*, int) {}
    template <int B, class T, class Count>
    FIELDS_FN void multiply(const GridArgs<T>&, int64_t, Count, S*) const {}
    template <int B, class T, class Count>
    FIELDS_FN void scatter(const GridArgs<T>&, int64_t, Count, const S*, S*) const {}
};

// Only float works at full speed; double and duals serve derivative checks and second derivatives, and straight code
// for them too would triple the time it takes to compile this file.
template <class S> struct IsFast { static constexpr bool value = false; };
template <> struct IsFast<float> { static constexpr bool value = true; };

template <int B, class S, class Body> FIELDS_FN void blocks(int64_t channels, S, Body&& body) {
    int64_t c = 0;
    if constexpr (IsFast<S>::value)
        for (; c + B <= channels; c += B) body(c, Constant<B>());
    for (; c < channels; c += B) body(c, int(minimum<int64_t>(channels - c, B)));
}

#ifdef __CUDACC__
constexpr int kLanes = 4;
#else
constexpr int kLanes = 16;  // one AVX-512 register of floats
#endif

// v = sum or concatenation of the products. With S = Dual: the tangent of v.
template <class T, class L, class S> struct GridValue : GridArgs<T> {
    template <int MODE> FIELDS_FN void mode(int64_t i, const Axis<S, T>* axis, S& total, int64_t start) const {
        if constexpr (MODE < L::modes) {
            const Cells<L, MODE, S> cells(*this, axis);
            S sum[kLanes] = {};
            blocks<kLanes>(this->channels[MODE], S(), [&](int64_t c, auto count) __attribute__((always_inline)) {
                S p[kLanes];
                cells.template multiply<kLanes>(*this, c, count, p);
                if (this->summed)
                    for (int b = 0; b < count; ++b) sum[b] += p[b];
                else
                    for (int b = 0; b < count; ++b) this->value[i * this->out + start + c + b] = result(p[b]);
            });
            if (this->summed)
                for (int b = 0; b < kLanes; ++b) total += sum[b];
            mode<MODE + 1>(i, axis, total, start + this->channels[MODE]);
        }
    }
    FIELDS_FN void operator()(int64_t i) const {
        const Axis<S, T> axis[3] = {locate<S>(*this, i, 0), locate<S>(*this, i, 1), locate<S>(*this, i, 2)};
        S total = {};
        mode<0>(i, axis, total, 0);
        if (this->summed) this->value[i] = result(total);
    }
};

// v and dv/dx together.
template <class T, class L, class S> struct GridJacobian : GridArgs<T> {
    template <int MODE> FIELDS_FN void mode(int64_t i, const Axis<S, T>* axis, S* total, int64_t start) const {
        if constexpr (MODE < L::modes) {
            for (int along = -1; along < 3; ++along) {
                const Cells<L, MODE, S> cells(*this, axis, along);
                S sum[kLanes] = {};
                blocks<kLanes>(this->channels[MODE], S(), [&](int64_t c, auto count) __attribute__((always_inline)) {
                    S p[kLanes];
                    cells.template multiply<kLanes>(*this, c, count, p);
                    for (int b = 0; b < count; ++b) {
                        const int64_t o = i * this->out + start + c + b;
                        if (this->summed) sum[b] += p[b];
                        else if (along < 0) this->value[o] = result(p[b]);
                        else this->jacobian[3 * o + along] = result(p[b]);
                    }
                });
                for (int b = 0; b < kLanes; ++b) total[along + 1] += sum[b];
            }
            mode<MODE + 1>(i, axis, total, start + this->channels[MODE]);
        }
    }
    FIELDS_FN void operator()(int64_t i) const {
        const Axis<S, T> axis[3] = {locate<S>(*this, i, 0), locate<S>(*this, i, 1), locate<S>(*this, i, 2)};
        S total[4] = {};
        mode<0>(i, axis, total, 0);
        if (!this->summed) return;
        this->value[i] = result(total[0]);
        for (int a = 0; a < 3; ++a) this->jacobian[3 * i + a] = result(total[a + 1]);
    }
};

// <grad, dv/dx>. With S = Dual: its tangent.
template <class T, class L, class S> struct GridGradX : GridArgs<T> {
    template <int MODE> FIELDS_FN void mode(int64_t i, const Axis<S, T>* axis, S* total, int64_t start) const {
        if constexpr (MODE < L::modes) {
            for (int along = 0; along < 3; ++along) {
                const Cells<L, MODE, S> cells(*this, axis, along);
                S sum[kLanes] = {};
                blocks<kLanes>(this->channels[MODE], S(), [&](int64_t c, auto count) __attribute__((always_inline)) {
                    S p[kLanes];
                    cells.template multiply<kLanes>(*this, c, count, p);
                    for (int b = 0; b < count; ++b) {
                        const int64_t o = this->summed ? i : i * this->out + start + c + b;
                        sum[b] += p[b] * read(this->grad, this->dgrad, o, S());
                    }
                });
                for (int b = 0; b < kLanes; ++b) total[along] += sum[b];
            }
            mode<MODE + 1>(i, axis, total, start + this->channels[MODE]);
        }
    }
    FIELDS_FN void operator()(int64_t i) const {
        const Axis<S, T> axis[3] = {locate<S>(*this, i, 0), locate<S>(*this, i, 1), locate<S>(*this, i, 2)};
        S total[3] = {};
        mode<0>(i, axis, total, 0);
        for (int a = 0; a < 3; ++a) this->grad_x[3 * i + a] = result(total[a]);
    }
};

// <grad, dv/dfactors>, scattered. With S = Dual: its tangent. Items: owners (CPU) or samples (GPU), see above.
template <class T, class L, class S> struct GridGradFactors : GridArgs<T> {
    template <int MODE, class Count>
    FIELDS_FN void sample(int64_t i, const Axis<S, T>* axis, int64_t channel, Count count, int64_t start) const {
        const Cells<L, MODE, S> cells(*this, axis);
        S grad[kBlock], after[kBlock];
        for (int b = 0; b < count; ++b)
            grad[b] = read(this->grad, this->dgrad,
                           this->summed ? i : i * this->out + start + channel + b, S());
        cells.template scatter<kBlock>(*this, channel, count, grad, after);
    }
    template <int MODE> FIELDS_FN void owner(int64_t block, int64_t start) const {
        if constexpr (MODE < L::modes) {
            const int64_t channels = this->channels[MODE], mine = (channels + kBlock - 1) / kBlock;
            if (block >= mine) return owner<MODE + 1>(block - mine, start + channels);
            const int64_t first = block * kBlock;
            for (int64_t i = 0; i < this->n; ++i) {
                const Axis<S, T> axis[3] = {locate<S>(*this, i, 0), locate<S>(*this, i, 1), locate<S>(*this, i, 2)};
                if (IsFast<S>::value && first + kBlock <= channels)
                    sample<MODE>(i, axis, first, Constant<IsFast<S>::value ? kBlock : 1>(), start);
                else
                    sample<MODE>(i, axis, first, int(minimum<int64_t>(channels - first, kBlock)), start);
            }
        }
    }
    template <int MODE> FIELDS_FN void whole(int64_t i, const Axis<S, T>* axis, int64_t start) const {
        if constexpr (MODE < L::modes) {
            blocks<kBlock>(this->channels[MODE], S(), [&](int64_t c, auto count) { sample<MODE>(i, axis, c, count, start); });
            whole<MODE + 1>(i, axis, start + this->channels[MODE]);
        }
    }
    FIELDS_FN void operator()(int64_t item) const {
#ifdef __CUDACC__
        const Axis<S, T> axis[3] = {locate<S>(*this, item, 0), locate<S>(*this, item, 1), locate<S>(*this, item, 2)};
        whole<0>(item, axis, 0);
#else
        owner<0>(item, 0);
#endif
    }
};

template <class T, class L> using Value = GridValue<T, L, T>;
template <class T, class L> using Jacobian = GridJacobian<T, L, T>;
template <class T, class L> using GradX = GridGradX<T, L, T>;
template <class T, class L> using GradFactors = GridGradFactors<T, L, T>;
template <class T, class L> using ValueTangent = GridValue<T, L, Dual<T>>;
template <class T, class L> using GradXTangent = GridGradX<T, L, Dual<T>>;
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
