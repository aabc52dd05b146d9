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
// The gradient of the vectors is box-centric on a CPU. Samples are sorted by box, in fixed chunks; then each box is one item that adds up its own samples in their order: one owner per element, vectors and
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
    int32_t* found_box;        // (n, scales · nearest) among the boxes of all scales, −1 behind the last
    T* found_weight;           // like found_box
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
    T per_spacing[4];          // 1 / spacing
    T per_knot[4];             // knots per length
    T per_shared[4];           // 1 / length that a box shares with the next one of the lattice
    T reach[4];                // spacings from a point back to the first cell whose box can hold it
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

// 1 within the part of a box that it has for itself, falling to 0 on its faces over the length that it shares with the
// next box of the lattice. `offset` is from the centre; `tangent`: whether the derivative is along it.
template <class S, class T> FIELDS_FN S window(T offset, T half, T per_shared, bool tangent) {
    const T w = (half - abs_(offset)) * per_shared, slope = offset < 0 ? per_shared : -per_shared;
    return with_tangent(clamp(w, T(0), T(1)), tangent && w > 0 && w < 1 ? slope : T(0), S());
}

// Where a point lies on one vector of a box, at `offset` from its centre.
template <class S, class T> struct Knot {
    int64_t left;              // element of the left knot's channels, from the start of the vector
    S weight[2];               // of the left and the right knot

    FIELDS_FN void locate(const CloudArgs<T>& a, int s, T offset, bool tangent) {
        const T last = T(a.knots[s] - 1), per_knot = a.per_knot[s];
        const T q = (offset + a.half[s]) * per_knot, held = clamp(q, T(0), last);
        const int32_t knot = minimum(int32_t(held), int32_t(a.knots[s] - 2));
        const T right = held - T(knot), slope = tangent && q >= 0 && q <= last ? per_knot : T(0);
        left = knot * a.rank[s];
        weight[0] = with_tangent(1 - right, -slope, S());
        weight[1] = with_tangent(right, slope, S());
    }
    FIELDS_FN auto interpolate(const CloudArgs<T>& a, int s, int64_t vector, int64_t channel, int count) const {
        const T* none = nullptr;
        const int64_t at = vector + left + channel;
        return weight[0] * load_lanes(a.vectors[s], none, at, count, S()) +
               weight[1] * load_lanes(a.vectors[s], none, at + a.rank[s], count, S());
    }
};

// The boxes of one scale that contribute to a point, with their weights. Boxes of a lattice share their places along an
// axis, so those are kept once; `place` holds three bits for each axis.
template <class S, class T> struct Near {
    int32_t count = 0;
    int32_t box[kMostBoxes + 1];   // one more, so that a candidate can be written before it is known to count
    int32_t place[kMostBoxes + 1];
    S weight[kMostBoxes + 1];      // the squared distance, until all are found, where weights are inverse distances
    Knot<S, T> knot[3][kMostBoxes];

    FIELDS_FN void put(int32_t at, int32_t b, int32_t where, S w) {
        box[at] = b;
        place[at] = where;
        weight[at] = w;
    }
    FIELDS_FN bool before(T distance, int32_t b, int32_t at) const {
        return distance < plain(weight[at]) || (distance == plain(weight[at]) && b < box[at]);
    }
    // Sorted by distance, equal ones by box: the nearest are the same whatever the order in which they come.
    FIELDS_FN void put_if_near(int32_t most, int32_t b, int32_t where, S squared) {
        if (count == most && !before(plain(squared), b, most - 1)) return;
        if (count < most) ++count;
        int32_t at = count - 1;
        for (; at > 0 && before(plain(squared), b, at - 1); --at) put(at, box[at - 1], place[at - 1], weight[at - 1]);
        put(at, b, where, squared);
    }
    FIELDS_FN void keep_nearest(int32_t most) {
        const Near all = *this;
        count = 0;
        for (int32_t e = 0; e < all.count; ++e) put_if_near(most, all.box[e], all.place[e], all.weight[e]);
    }
    FIELDS_FN auto product(const CloudArgs<T>& a, int s, int32_t e, int64_t channel, int count) const {
        const int64_t length = a.knots[s] * a.rank[s], first = 3 * int64_t(box[e]) * length;
        return knot[0][place[e] & 7].interpolate(a, s, first, channel, count) *
               knot[1][place[e] >> 3 & 7].interpolate(a, s, first + length, channel, count) *
               knot[2][place[e] >> 6].interpolate(a, s, first + 2 * length, channel, count);
    }
};

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

// Boxes on a lattice: the cells within half an edge along each axis, two, or up to three where boxes are larger than two
// spacings. Without branches where there are two: which of the eight boxes exist and hold the point is anyone's guess.
template <class S, class T>
FIELDS_FN void gather_lattice(const CloudArgs<T>& a, int s, int64_t i, int axis, bool knots, Near<S, T>& near) {
    const T half = a.half[s], spacing = a.spacing[s];
    const int64_t* cells = a.cells + 3 * s;
    const bool wide = half > spacing;
    const int many = wide ? 4 : 2;
    int64_t row[3][4];         // of the lattice
    S along[3][4];             // the window, or the squared offset; 0 or infinite where the box does not hold the point
    for (int k = 0; k < 3; ++k) {
        const T x = a.x[3 * i + k], low = a.low[3 * s + k];
        const int32_t first = int32_t(floor_((x - low) * a.per_spacing[s] - a.reach[s]));
        for (int c = 0; c < many; ++c) {
            const int32_t cell = first + c;
            const T offset = x - (low + (T(cell) + T(0.5)) * spacing);
            const bool holds = abs_(offset) <= half && cell >= 0 && cell < cells[k], tangent = k == axis;
            row[k][c] = holds ? cell : 0;
            if (a.windowed) along[k][c] = window<S>(holds ? offset : half, half, a.per_shared[s], tangent);
            else along[k][c] = with_tangent(holds ? offset * offset : infinity(T()), tangent ? 2 * offset : T(0), S());
            if (knots) near.knot[k][c].locate(a, s, offset, tangent);
        }
    }
    for (int x = 0; x < many; ++x)
        for (int y = 0; y < many; ++y)
            for (int z = 0; z < many; ++z) {
                const int32_t b = a.lattice[s][(row[0][x] * cells[1] + row[1][y]) * cells[2] + row[2][z]];
                const int32_t place = x | y << 3 | z << 6;
                if (a.windowed) {
                    const S w = along[0][x] * along[1][y] * along[2][z];
                    near.put(near.count, b, place, w);
                    near.count += b >= 0 && plain(w) > 0;
                } else {
                    const S squared = along[0][x] + along[1][y] + along[2][z];
                    const bool holds = b >= 0 && plain(squared) < infinity(T());
                    if (wide) {
                        if (holds) near.put_if_near(int32_t(a.nearest), b, place, squared);
                    } else {
                        near.put(near.count, b, place, squared);
                        near.count += holds;
                    }
                }
            }
    if (near.count > a.nearest) near.keep_nearest(int32_t(a.nearest));
}

// Boxes anywhere: the eight cells of the hash that a box around the point touches.
template <class S, class T>
FIELDS_FN void gather_hashed(const CloudArgs<T>& a, int s, int64_t i, int axis, bool knots, Near<S, T>& near) {
    const T half = a.half[s], *x = a.x + 3 * i;
    int64_t first[3];
    for (int k = 0; k < 3; ++k) first[k] = int64_t(floor_((x[k] - a.low[3 * s + k]) * a.per_spacing[s] - T(0.5)));
    for (int corner = 0; corner < 8; ++corner) {
        const int64_t cx = first[0] + (corner & 1), cy = first[1] + (corner >> 1 & 1), cz = first[2] + (corner >> 2);
        if (cx < 0 || cy < 0 || cz < 0) continue;
        const int64_t cell = find_cell(a.keys[s], a.cells[3 * s], morton(cx, cy, cz));
        if (cell == a.cells[3 * s]) continue;
        for (int32_t m = a.begins[s][cell]; m < a.begins[s][cell + 1]; ++m) {
            const int32_t b = a.members[s][m];
            S squared = constant(T(0), S());
            bool holds = true;
            for (int k = 0; k < 3; ++k) {
                const T offset = x[k] - a.centres[s][3 * int64_t(b) + k];
                holds = holds && (a.windowed ? abs_(offset) < half : abs_(offset) <= half);
                squared += with_tangent(offset * offset, k == axis ? 2 * offset : T(0), S());
            }
            if (holds) near.put_if_near(int32_t(a.nearest), b, 0, squared);
        }
    }
    for (int32_t e = 0; e < near.count; ++e) {
        near.place[e] = e | e << 3 | e << 6;
        S w = constant(T(1), S());
        for (int k = 0; k < 3; ++k) {
            const T offset = x[k] - a.centres[s][3 * int64_t(near.box[e]) + k];
            if (a.windowed) w = w * window<S>(offset, half, a.per_shared[s], k == axis);
            if (knots) near.knot[k][e].locate(a, s, offset, k == axis);
        }
        if (a.windowed) near.weight[e] = w;
    }
}

// The boxes of scale s that hold sample i, weighted to sum to 1. `axis`: of the tangent, none if negative.
template <class S, class T>
FIELDS_FN void gather(const CloudArgs<T>& a, int s, int64_t i, int axis, bool knots, Near<S, T>& near) {
    near.count = 0;
    bool there = true;         // and not too far away, or no number at all, for its cell to be one
    for (int k = 0; k < 3; ++k) there = there && abs_(a.x[3 * i + k] - a.low[3 * s + k]) < T(1e6) * a.spacing[s];
    if (!there) return;
    if (a.lattice[s]) gather_lattice(a, s, i, axis, knots, near);
    else gather_hashed(a, s, i, axis, knots, near);
    S total = constant(T(0), S());
    for (int32_t e = 0; e < near.count; ++e) {
        if (!a.windowed) near.weight[e] = inverse(root(near.weight[e]) + constant(T(1e-6), S()));
        total += near.weight[e];
    }
    if (a.clamped && plain(total) < 1) return;
    const S scale = inverse(total);
    for (int32_t e = 0; e < near.count; ++e) near.weight[e] = near.weight[e] * scale;
}

// 1 over the number of scales that hold sample i, where scales are averaged.
template <class T> FIELDS_FN T share(const CloudArgs<T>& a, int64_t i) {
    if (!a.averaged) return 1;
    int held = 0;
    for (int s = 0; s < a.scales; ++s) {
        Near<T, T> near;
        gather(a, s, i, -1, false, near);
        held += near.count > 0;
    }
    return held ? T(1) / T(held) : T(1);
}

// Calls body(first channel, count, lanes) with the weighted sum over boxes of every block of channels.
template <class S, class T, class Body> FIELDS_FN void each_block(const CloudArgs<T>& a, int64_t i, int axis, Body&& body) {
    const S part = constant(share(a, i), S());
    int64_t start = 0;
    for (int s = 0; s < a.scales; start += a.rank[s++]) {
        Near<S, T> near;
        gather(a, s, i, axis, true, near);
        blocks(a.rank[s], [&](int64_t c, int count) FIELDS_INLINE {
            auto sum = fill_lanes(S());
            for (int32_t e = 0; e < near.count; ++e)
                sum += fill_lanes(part * near.weight[e]) * near.product(a, s, e, c, count);
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
                    total.d += load_lanes<T>(this->grad + o, count) * v.d;
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
    Knot<T, T> knot[3];
    const int64_t length = a.knots[s] * a.rank[s], first = 3 * int64_t(b) * length;
    for (int k = 0; k < 3; ++k) knot[k].locate(a, s, a.x[3 * i + k] - a.centres[s][3 * int64_t(b) + k], false);
    T* out = a.grad_vectors[s] + first;
    blocks(a.rank[s], [&](int64_t c, int count) FIELDS_INLINE {
        const auto x = knot[0].interpolate(a, s, first, c, count), y = knot[1].interpolate(a, s, first + length, c, count);
        const auto z = knot[2].interpolate(a, s, first + 2 * length, c, count);
        const auto g = a.summed ? fill_lanes(w * a.grad[i]) : w * load_lanes<T>(a.grad + i * a.out + start + c, count);
        const decltype(x) own[3] = {g * y * z, g * x * z, g * x * y};
        for (int k = 0; k < 3; ++k) {
            T* left = out + k * length + knot[k].left + c;
            add_lanes(left, knot[k].weight[0] * own[k], count, nullptr);
            add_lanes(left + a.rank[s], knot[k].weight[1] * own[k], count, nullptr);
        }
    });
}

// Calls body(scale, first channel, box, weight) for the boxes of sample i.
template <class T, class Body> FIELDS_FN void each_box(const CloudArgs<T>& a, int64_t i, Body&& body) {
    const T part = share(a, i);
    int64_t start = 0;
    for (int s = 0; s < a.scales; start += a.rank[s++]) {
        Near<T, T> near;
        gather(a, s, i, -1, false, near);
        for (int32_t e = 0; e < near.count; ++e) body(s, start, near.box[e], part * near.weight[e]);
    }
}

// Item: a chunk of samples. Finds their boxes and counts the samples of each.
template <class T> struct CloudFind : CloudArgs<T> {
    FIELDS_FN void operator()(int64_t item) const {
        const int64_t end = minimum(this->n, (item + 1) * this->chunk), most = this->scales * this->nearest;
        int32_t before[kScales] = {};
        for (int s = 1; s < this->scales; ++s) before[s] = before[s - 1] + int32_t(this->boxes[s - 1]);
        for (int64_t i = item * this->chunk; i < end; ++i) {
            int32_t found = 0;
            each_box(*this, i, [&](int s, int64_t, int32_t b, T w) FIELDS_INLINE {
                ++this->counts[(before[s] + b) * this->chunks + item];
                this->found_box[i * most + found] = before[s] + b;
                this->found_weight[i * most + found++] = w;
            });
            if (found < most) this->found_box[i * most + found] = -1;
        }
    }
};

// Item: a chunk of samples. Sorts them by box; `counts` says where the next sample of a box goes.
template <class T> struct CloudSort : CloudArgs<T> {
    FIELDS_FN void operator()(int64_t item) const {
        const int64_t end = minimum(this->n, (item + 1) * this->chunk), most = this->scales * this->nearest;
        for (int64_t i = item * this->chunk; i < end; ++i)
            for (int64_t p = i * most; p < (i + 1) * most && this->found_box[p] >= 0; ++p) {
                const int32_t at = this->counts[this->found_box[p] * this->chunks + item]++;
                this->sample[at] = int32_t(i);
                this->weight[at] = this->found_weight[p];
            }
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

}  // namespace fields

FIELDS_KERNEL(cloud_value, fields::CloudValue, CloudArgs)
FIELDS_KERNEL(cloud_jacobian, fields::CloudJacobian, CloudArgs)
FIELDS_KERNEL(cloud_grad_x, fields::CloudGradX, CloudArgs)
FIELDS_KERNEL(cloud_find, fields::CloudFind, CloudArgs)
FIELDS_KERNEL(cloud_sort, fields::CloudSort, CloudArgs)
FIELDS_KERNEL(cloud_grad_boxes, fields::CloudGradBoxes, CloudArgs)
FIELDS_KERNEL(cloud_grad_samples, fields::CloudGradSamples, CloudArgs)
FIELDS_KERNEL(box_adam, fields::BoxAdam, BoxAdam)
