// Clouds of small boxes, each with a CP tensor of its own ("tri-vectors").
//
//     f(x) = sum over boxes b near x of  w_b(x) · sum_r X_br(x) Y_br(y) Z_br(z)
//
// Boxes of one scale are cubes of one size, with one number of knots and one rank; a cloud superposes up to four scales.
// Vectors lie [box][axis][knot][rank]: two neighbouring knots are one contiguous burst of registers.
//
// Which boxes hold a point is found anew for each point. Centres on a lattice: the cells within half an edge along each
// axis, at most three, so nothing is searched. Free centres: the eight cells of a hash whose cells are as large as a box.
// The weights are those of the nearest K boxes by inverse distance, or of a window that is largest in the middle of
// a box and 0 on its faces, normalised to sum to 1. On a lattice the windows do so by themselves, so the field is
// continuous.
//
// Everything is written on a scalar S: T, or Dual<T> for the derivative along a direction of x, windows included.
//
// The gradient of the vectors is box-centric on a CPU. Samples are counted and then noted per box, by fixed chunks of
// samples; then each box is one item that adds up its own samples in their order: one owner per element, vectors and
// gradient of a box stay in cache, and the bits do not depend on the number of threads. Boxes that hold no sample are
// zeroed and otherwise left alone. On a GPU the item is one sample and `add_to` is atomic.
#pragma once
#include "common.h"
#include "grid.h"
#include "lanes.h"
#include "neighbours.h"

namespace fields {

constexpr int kScales = 4;      // scales of a cloud at most
constexpr int kMostBoxes = 8;   // boxes of one scale that contribute to a point at most

template <class T> struct CloudArgs {
    const T* x;                // (n, 3) positions, in the frame of the boxes
    const T* vectors[4];       // per scale (boxes, 3, knots, rank)
    const T* centres[4];       // per scale (boxes, 3)
    const int32_t* lattice[4]; // per scale (size...) box of each cell, or -1; null for free centres
    const int64_t* keys[4];    // free centres: distinct Morton keys of the cells, ascending
    const int32_t* begins[4];  // free centres: (keys + 1) first member of each cell
    const int32_t* members[4]; // free centres: boxes by cell
    const T* grad;             // (n, out) cotangent of the value; (n) when summed
    T* value;                  // (n, out), or (n) when summed
    T* jacobian;               // (n, out, 3), or (n, 3) when summed
    T* grad_x;                 // (n, 3)
    T* grad_vectors[4];        // like vectors
    int32_t* counts;           // (boxes of all scales, chunks) how many samples of a chunk a box holds
    const int32_t* places;     // (boxes of all scales, chunks) where they are noted
    int32_t* sample;           // (pairs) by box, then by chunk
    T* weight;                 // (pairs)
    int64_t n;                 // samples
    int64_t chunk;             // samples per chunk
    int64_t chunks;            // how many
    int64_t cells[12];         // per scale: of the lattice along x, y, z; of the hash: the number of keys
    int64_t boxes[4];          // per scale
    int64_t knots[4];          // per scale
    int64_t rank[4];           // per scale
    int64_t out;               // ranks of all scales together
    int64_t scales;            // in use
    int64_t nearest;           // K: boxes per scale at most
    T low[12];                 // per scale: corner of the first cell
    T spacing[4];              // per scale: edge of a cell
    T half[4];                 // per scale: half the edge of a box
    int32_t summed;            // 1: ranks and scales are added up; 0: they are concatenated
    int32_t averaged;          // 1: divide by the number of scales that hold x
    int32_t windowed;          // 1: windows; 0: inverse distance
    int32_t clamped;           // inverse distance: divide by no less than 1, as the paper's code does
};

// What boxes ask of a scalar beyond sums and products.
template <class T> FIELDS_FN T plain(T x) { return x; }
template <class T> FIELDS_FN T plain(Dual<T> x) { return x.v; }
template <class T> FIELDS_FN T inverse(T x) { return 1 / x; }
template <class T> FIELDS_FN Dual<T> inverse(Dual<T> x) { return {1 / x.v, -x.d / (x.v * x.v)}; }
template <class T> FIELDS_FN T root(T x) { return sqrt_(x); }
template <class T> FIELDS_FN Dual<T> root(Dual<T> x) {
    const T r = sqrt_(x.v);
    return {r, r > 0 ? x.d / (2 * r) : T(0)};
}
template <class T> FIELDS_FN T with_tangent(T x, T, T) { return x; }
template <class T> FIELDS_FN Dual<T> with_tangent(T x, T t, Dual<T>) { return {x, t}; }

// The boxes of one scale that contribute to a point, with their weights.
template <class S, class T> struct Near {
    int32_t box[kMostBoxes];
    S weight[kMostBoxes];
    T squared[kMostBoxes];     // distance of the centre
    int32_t count;

    FIELDS_FN void add(int32_t b, S w) {
        box[count] = b;
        weight[count++] = w;
    }
    // Sorted by distance, equal ones by box: the nearest K are the same whatever the order in which they come.
    FIELDS_FN void add_if_near(int32_t b, S w, T distance, int32_t most) {
        const auto before = [&](int32_t at) FIELDS_INLINE {
            return distance < squared[at] || (distance == squared[at] && b < box[at]);
        };
        if (count == most && !before(most - 1)) return;
        if (count < most) ++count;
        int32_t at = count - 1;
        for (; at > 0 && before(at - 1); --at) {
            box[at] = box[at - 1];
            weight[at] = weight[at - 1];
            squared[at] = squared[at - 1];
        }
        box[at] = b;
        weight[at] = w;
        squared[at] = distance;
    }
};

// 1 within the part of a box that it has for itself, falling to 0 on its faces over what it shares with the next box of
// the lattice; `offset` is from the centre, `spacing` that of the centres.
template <class S, class T> FIELDS_FN S window(S offset, T half, T spacing) {
    const T d = plain(offset), side = d < 0 ? T(1) : T(-1);
    const T shared = 2 * half - spacing, rest = half - abs_(d);
    if (!(rest > 0)) return constant(T(0), S());
    if (rest >= shared) return constant(T(1), S());
    return constant(side / shared, S()) * offset + constant(half / shared, S());
}

// Weighs one box if it holds x; `x` carries the tangent.
template <class S, class T>
FIELDS_FN void consider(const CloudArgs<T>& a, int s, int32_t b, const S* x, T spacing, Near<S, T>& near) {
    const T* centre = a.centres[s] + 3 * int64_t(b);
    const T half = a.half[s];
    S w = constant(T(1), S()), squared = constant(T(0), S());
    for (int axis = 0; axis < 3; ++axis) {
        const S offset = x[axis] + constant(-centre[axis], S());
        if (!(abs_(plain(offset)) <= half)) return;
        squared += offset * offset;
        if (a.windowed) w = w * window(offset, half, spacing);
    }
    if (a.windowed && !(plain(w) > 0)) return;
    if (!a.windowed) w = inverse(root(squared) + constant(T(1e-6), S()));
    near.add_if_near(b, w, plain(squared), int32_t(a.nearest));
}

// The cell of a hash with this key, or the number of cells.
FIELDS_FN int64_t find_cell(const int64_t* keys, int64_t cells, int64_t key) {
    int64_t first = 0, count = cells;
    while (count > 0) {
        const int64_t half = count / 2;
        if (keys[first + half] < key) first += half + 1, count -= half + 1;
        else count = half;
    }
    return first < cells && keys[first] == key ? first : cells;
}

// The boxes of scale s that hold sample i, weighted to sum to 1. `axis`: of the tangent, none if negative.
template <class S, class T> FIELDS_FN void gather(const CloudArgs<T>& a, int s, int64_t i, int axis, Near<S, T>& near) {
    near.count = 0;
    const T half = a.half[s], spacing = a.spacing[s];
    S x[3];
    int64_t first[3], last[3];
    for (int k = 0; k < 3; ++k) {
        const T v = a.x[3 * i + k];
        x[k] = with_tangent(v, T(k == axis), S());
        const T at = (v - a.low[3 * s + k]) / spacing;
        if (!(abs_(at) < T(1e6))) return;  // not a number, or far from everything
        const T reach = a.lattice[s] ? half / spacing - T(0.5) : T(0.5);
        first[k] = int64_t(floor_(at - reach));
        last[k] = int64_t(floor_(at + reach));
    }
    if (a.lattice[s]) {
        // A box belongs to the cell around its centre; rounding may offer a cell too many, whose window is 0.
        const int64_t* cells = a.cells + 3 * s;
        S w[3][4];
        for (int k = 0; k < 3; ++k) {
            first[k] = maximum<int64_t>(first[k], 0);
            last[k] = minimum(minimum(last[k], cells[k] - 1), first[k] + 3);
            if (a.windowed)
                for (int64_t c = first[k]; c <= last[k]; ++c)
                    w[k][c - first[k]] = window(x[k] + constant(-(a.low[3 * s + k] + (T(c) + T(0.5)) * spacing), S()), half, spacing);
        }
        for (int64_t cx = first[0]; cx <= last[0]; ++cx)
            for (int64_t cy = first[1]; cy <= last[1]; ++cy)
                for (int64_t cz = first[2]; cz <= last[2]; ++cz) {
                    const int32_t b = a.lattice[s][(cx * cells[1] + cy) * cells[2] + cz];
                    if (b < 0) continue;
                    if (!a.windowed) {
                        consider(a, s, b, x, spacing, near);
                        continue;
                    }
                    const S product = w[0][cx - first[0]] * w[1][cy - first[1]] * w[2][cz - first[2]];
                    if (plain(product) > 0 && near.count < kMostBoxes) near.add(b, product);
                }
    } else {
        for (int64_t cx = first[0]; cx <= last[0]; ++cx)
            for (int64_t cy = first[1]; cy <= last[1]; ++cy)
                for (int64_t cz = first[2]; cz <= last[2]; ++cz) {
                    if (cx < 0 || cy < 0 || cz < 0) continue;
                    const int64_t cell = find_cell(a.keys[s], a.cells[3 * s], morton(cx, cy, cz));
                    if (cell == a.cells[3 * s]) continue;
                    for (int32_t m = a.begins[s][cell]; m < a.begins[s][cell + 1]; ++m)
                        consider(a, s, a.members[s][m], x, half, near);
                }
    }
    S total = constant(T(0), S());
    for (int32_t e = 0; e < near.count; ++e) total += near.weight[e];
    if (a.clamped && plain(total) < 1) return;
    const S scale = near.count ? inverse(total) : total;
    for (int32_t e = 0; e < near.count; ++e) near.weight[e] = near.weight[e] * scale;
}

// 1 over the number of scales that hold sample i, where scales are averaged.
template <class T> FIELDS_FN T share(const CloudArgs<T>& a, int64_t i) {
    if (!a.averaged) return 1;
    int held = 0;
    for (int s = 0; s < a.scales; ++s) {
        Near<T, T> near;
        gather(a, s, i, -1, near);
        held += near.count > 0;
    }
    return held ? T(1) / T(held) : T(1);
}

// Where sample i lies on the three vectors of a box.
template <class S, class T> struct Knots {
    int64_t left[3];           // element at which the left knot's channels start
    S weight[3][2];            // of the left and the right knot

    FIELDS_FN void locate(const CloudArgs<T>& a, int s, int32_t b, int64_t i, int axis) {
        const T last = T(a.knots[s] - 1), per_length = last / (2 * a.half[s]);
        for (int k = 0; k < 3; ++k) {
            const T q = (a.x[3 * i + k] - a.centres[s][3 * int64_t(b) + k] + a.half[s]) * per_length;
            const T held = clamp(q, T(0), last);
            const int64_t knot = minimum<int64_t>(int64_t(held), a.knots[s] - 2);
            const T right = held - T(knot), slope = k == axis && q >= 0 && q <= last ? per_length : T(0);
            left[k] = ((int64_t(b) * 3 + k) * a.knots[s] + knot) * a.rank[s];
            weight[k][0] = with_tangent(1 - right, -slope, S());
            weight[k][1] = with_tangent(right, slope, S());
        }
    }
    FIELDS_FN auto interpolate(const CloudArgs<T>& a, int s, int axis, int64_t channel, int count) const {
        const T* none = nullptr;
        const int64_t at = left[axis] + channel;
        return weight[axis][0] * load_lanes(a.vectors[s], none, at, count, S()) +
               weight[axis][1] * load_lanes(a.vectors[s], none, at + a.rank[s], count, S());
    }
    FIELDS_FN auto product(const CloudArgs<T>& a, int s, int64_t channel, int count) const {
        return interpolate(a, s, 0, channel, count) * interpolate(a, s, 1, channel, count) *
               interpolate(a, s, 2, channel, count);
    }
};

// Calls body(first channel, count, lanes) with the weighted sum over boxes of every block of channels.
template <class S, class T, class Body> FIELDS_FN void each_block(const CloudArgs<T>& a, int64_t i, int axis, Body&& body) {
    const S part = constant(share(a, i), S());
    int64_t start = 0;
    for (int s = 0; s < a.scales; start += a.rank[s++]) {
        Near<S, T> near;
        gather(a, s, i, axis, near);
        Knots<S, T> knots[kMostBoxes];
        for (int32_t e = 0; e < near.count; ++e) knots[e].locate(a, s, near.box[e], i, axis);
        blocks(a.rank[s], [&](int64_t c, int count) FIELDS_INLINE {
            auto sum = fill_lanes(S());
            for (int32_t e = 0; e < near.count; ++e)
                sum += fill_lanes(part * near.weight[e]) * knots[e].product(a, s, c, count);
            body(start + c, count, sum);
        });
    }
}
template <class T> FIELDS_FN T not_a_number(const CloudArgs<T>& a, int64_t i) {  // where x is none; else 0
    const T sum = a.x[3 * i] + a.x[3 * i + 1] + a.x[3 * i + 2];
    return sum == sum ? T(0) : sum;
}

template <class T> struct CloudValue : CloudArgs<T> {
    FIELDS_FN void operator()(int64_t i) const {
        const T fault = not_a_number(*this, i);
        auto total = fill_lanes(T(0));
        each_block<T>(*this, i, -1, [&](int64_t c, int count, auto v) FIELDS_INLINE {
            if (this->summed) total += v;
            else store_lanes(this->value + i * this->out + c, v + fill_lanes(fault), count);
        });
        if (this->summed) this->value[i] = sum_lanes<T>(total) + fault;
    }
};

// The value and its derivatives along the axes; or, in the backward pass, <grad, df/dx>.
template <class T, bool CONTRACT> struct CloudSlopes : CloudArgs<T> {
    FIELDS_FN void operator()(int64_t i) const {
        const T fault = not_a_number(*this, i);
        for (int axis = 0; axis < 3; ++axis) {
            auto total = fill_lanes(Dual<T>());
            each_block<Dual<T>>(*this, i, axis, [&](int64_t c, int count, auto v) FIELDS_INLINE {
                const int64_t o = i * this->out + c;
                if (CONTRACT && !this->summed) {
                    total.d += load_lanes(this->grad + o, count) * v.d;
                } else if (this->summed) {
                    total += v;
                } else {
                    if (axis == 0) store_lanes(this->value + o, v.v + fill_lanes(fault), count);
                    for (int b = 0; b < count; ++b) this->jacobian[3 * (o + b) + axis] = v.d[b] + fault;
                }
            });
            if (CONTRACT) this->grad_x[3 * i + axis] = sum_lanes<T>(total.d) * (this->summed ? this->grad[i] : T(1)) + fault;
            else if (this->summed) {
                if (axis == 0) this->value[i] = sum_lanes<T>(total.v) + fault;
                this->jacobian[3 * i + axis] = sum_lanes<T>(total.d) + fault;
            }
        }
    }
};

// Adds w · grad times the product of the other two vectors to the knots of each vector of box b.
template <class T> FIELDS_FN void scatter(const CloudArgs<T>& a, int s, int64_t start, int32_t b, int64_t i, T w) {
    Knots<T, T> knots;
    knots.locate(a, s, b, i, -1);
    T* out = a.grad_vectors[s];
    blocks(a.rank[s], [&](int64_t c, int count) FIELDS_INLINE {
        const auto x = knots.interpolate(a, s, 0, c, count), y = knots.interpolate(a, s, 1, c, count);
        const auto z = knots.interpolate(a, s, 2, c, count);
        const auto g = a.summed ? fill_lanes(w * a.grad[i]) : w * load_lanes(a.grad + i * a.out + start + c, count);
        const decltype(x) own[3] = {g * y * z, g * x * z, g * x * y};
        for (int k = 0; k < 3; ++k) {
            add_lanes(out + knots.left[k] + c, knots.weight[k][0] * own[k], count);
            add_lanes(out + knots.left[k] + a.rank[s] + c, knots.weight[k][1] * own[k], count);
        }
    });
}

// Calls body(scale, first channel, box, weight) for the boxes of sample i.
template <class T, class Body> FIELDS_FN void each_box(const CloudArgs<T>& a, int64_t i, Body&& body) {
    const T part = share(a, i);
    int64_t start = 0;
    for (int s = 0; s < a.scales; start += a.rank[s++]) {
        Near<T, T> near;
        gather(a, s, i, -1, near);
        for (int32_t e = 0; e < near.count; ++e) body(s, start, near.box[e], part * near.weight[e]);
    }
}

// Item: a chunk of samples. Counts the samples of each box, or notes them, `counts` being where the next one goes.
template <class T, bool NOTE> struct CloudPairs : CloudArgs<T> {
    FIELDS_FN void operator()(int64_t item) const {
        const int64_t end = minimum(this->n, (item + 1) * this->chunk);
        int64_t before[kScales] = {};
        for (int s = 1; s < this->scales; ++s) before[s] = before[s - 1] + this->boxes[s - 1];
        for (int64_t i = item * this->chunk; i < end; ++i)
            each_box(*this, i, [&](int s, int64_t, int32_t b, T w) FIELDS_INLINE {
                const int32_t at = this->counts[(before[s] + b) * this->chunks + item]++;
                if (NOTE) this->sample[at] = int32_t(i), this->weight[at] = w;
            });
    }
};

// Item: a box, of any scale.
template <class T> struct CloudGradBoxes : CloudArgs<T> {
    FIELDS_FN void operator()(int64_t item) const {
        int s = 0;
        int64_t b = item, start = 0;
        while (b >= this->boxes[s]) b -= this->boxes[s], start += this->rank[s++];
        const int64_t size = 3 * this->knots[s] * this->rank[s];
        T* mine = this->grad_vectors[s] + b * size;
        for (int64_t k = 0; k < size; ++k) mine[k] = 0;
        const int32_t end = this->places[(item + 1) * this->chunks];
        for (int32_t p = this->places[item * this->chunks]; p < end; ++p)
            scatter<T>(*this, s, start, int32_t(b), this->sample[p], this->weight[p]);
    }
};

// Item: a sample. For GPUs, where adding is atomic.
template <class T> struct CloudGradSamples : CloudArgs<T> {
    FIELDS_FN void operator()(int64_t i) const {
        each_box(*this, i, [&](int s, int64_t start, int32_t b, T w) FIELDS_INLINE { scatter<T>(*this, s, start, b, i, w); });
    }
};

// Adam on the boxes that were touched: one whose gradient is zero throughout keeps its values and moments. Item: a box.
template <class T> struct BoxAdam {
    T* value;                  // (boxes, size)
    const T* grad;             // (boxes, size)
    T* mean;                   // (boxes, size) first moment
    T* square;                 // (boxes, size) second moment
    int64_t size;              // numbers per box
    T beta_mean;               // decay of the first moment
    T beta_square;             // decay of the second moment
    T rate;                    // learning rate over the bias correction of the first moment
    T correction;              // root of the bias correction of the second moment
    T epsilon;                 // added to the root

    FIELDS_FN void operator()(int64_t box) const {
        const int64_t begin = box * size, end = begin + size;
        int64_t k = begin;
        while (k < end && grad[k] == 0) ++k;
        if (k == end) return;
        for (k = begin; k < end; ++k) {
            const T g = grad[k];
            mean[k] = beta_mean * mean[k] + (1 - beta_mean) * g;
            square[k] = beta_square * square[k] + (1 - beta_square) * g * g;
            value[k] -= rate * mean[k] / (sqrt_(square[k]) / correction + epsilon);
        }
    }
};

template <class T> using CloudJacobian = CloudSlopes<T, false>;
template <class T> using CloudGradX = CloudSlopes<T, true>;
template <class T> using CloudCount = CloudPairs<T, false>;
template <class T> using CloudNote = CloudPairs<T, true>;

}  // namespace fields

FIELDS_KERNEL(cloud_value, fields::CloudValue, CloudArgs)
FIELDS_KERNEL(cloud_jacobian, fields::CloudJacobian, CloudArgs)
FIELDS_KERNEL(cloud_grad_x, fields::CloudGradX, CloudArgs)
FIELDS_KERNEL(cloud_count, fields::CloudCount, CloudArgs)
FIELDS_KERNEL(cloud_note, fields::CloudNote, CloudArgs)
FIELDS_KERNEL(cloud_grad_boxes, fields::CloudGradBoxes, CloudArgs)
FIELDS_KERNEL(cloud_grad_samples, fields::CloudGradSamples, CloudArgs)
FIELDS_KERNEL(box_adam, fields::BoxAdam, BoxAdam)
