// Clouds of small boxes, each with a CP tensor of its own ("tri-vectors").
//
//     f(x) = sum over boxes b near x of  w_b(x) · sum_r X_br(x) Y_br(y) Z_br(z)
//
// Boxes of one scale are cubes of one size, with one number of knots and one rank; a cloud superposes up to four scales.
// Vectors lie [box][axis][knot][rank]: two neighbouring knots are one contiguous burst of registers.
//
// Which boxes hold a point is found anew for each point, for a block of points at once. Centres on a lattice: the cells
// within half an edge along each axis, at most three, so nothing is searched. Free centres: the eight cells of a hash whose
// cells are as large as a box. The weights are those of the nearest K boxes by inverse distance, or of a window that is
// largest in the middle of a box and 0 on its faces, normalised to sum to 1. On a lattice the windows do so by themselves,
// so the field is continuous.
//
// Values are written on a scalar S: T, or Dual<T> for the derivative along a direction of x, windows included.
//
// The gradient of the vectors is box-centric on a CPU. The forward pass notes which boxes hold which sample; samples are
// sorted by box, in fixed chunks; then each box is one item that adds up its own samples in their order: one owner per
// element, vectors and gradient of a box stay in cache, and the bits do not depend on the number of threads. Boxes that
// hold no sample are zeroed and otherwise left alone. On a GPU nothing is noted, a team does one sample, and adding is
// atomic.
#pragma once
#include "common.h"
#include "grid.h"
#include "lanes.h"
#include "neighbours.h"

namespace fields {

constexpr int kScales = 4;      // scales of a cloud at most
constexpr int kMostBoxes = 8;   // boxes of one scale that contribute to a point at most
#ifdef __CUDACC__
constexpr int kBlock = 1;       // samples that look for their boxes together
#else
constexpr int kBlock = 16;      // one SIMD register of them
#endif

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
    int32_t* found_box;        // (n, scales · nearest) boxes of all scales that hold a sample, −1 behind the last; or null
    T* found_weight;           // like found_box
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

// The boxes of one scale that hold a point, with weights that are to be multiplied by `scale`.
template <class T> struct Found {
    int32_t count = 0;
    T scale;
    int32_t box[kMostBoxes + 1];   // one more, so that a candidate can be written before it is known to count
    T weight[kMostBoxes + 1];

    FIELDS_FN void put(int32_t at, int32_t b, T w) {
        box[at] = b;
        weight[at] = w;
    }
    FIELDS_FN bool before(T w, int32_t b, int32_t at) const {
        return w > weight[at] || (w == weight[at] && b < box[at]);
    }
    // Sorted by weight, equal ones by box: the nearest are the same whatever the order in which they come.
    FIELDS_CALL void put_if_near(int32_t most, int32_t b, T w) {
        if (count == most && !before(w, b, most - 1)) return;
        if (count < most) ++count;
        int32_t at = count - 1;
        for (; at > 0 && before(w, b, at - 1); --at) put(at, box[at - 1], weight[at - 1]);
        put(at, b, w);
    }
    FIELDS_FN void keep_nearest(int32_t most) {
        const Found all = *this;
        count = 0;
        for (int32_t e = 0; e < all.count; ++e) put_if_near(most, all.box[e], all.weight[e]);
    }
    FIELDS_FN T total() const {
        T sum = 0;
        for (int32_t e = 0; e < count; ++e) sum += weight[e];
        return sum;
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

// Boxes on a lattice: the cells within half an edge along each axis, MANY at most. Samples are in the innermost loops,
// which vectorise; and without branches, as which of the eight boxes exist and hold the point is anyone's guess.
template <int MANY, bool WINDOWED, class T>
FIELDS_FN void find_on_lattice(const CloudArgs<T>& a, int s, const T (*x)[kBlock], Found<T>* found) {
    const T half = a.half[s], spacing = a.spacing[s], per_spacing = a.per_spacing[s], reach = a.reach[s];
    const T per_shared = a.per_shared[s];
    int32_t row[3][MANY][kBlock];  // of the lattice
    T along[3][MANY][kBlock];      // the window, or the squared offset; 0 or infinite where the box does not hold the point
    int32_t stride = 1;
    for (int k = 2; k >= 0; stride *= int32_t(a.cells[3 * s + k--])) {
        const T low = a.low[3 * s + k], last = T(a.cells[3 * s + k] - 1);
        for (int c = 0; c < MANY; ++c)
            for (int j = 0; j < kBlock; ++j) {
                const T cell = floor_((x[k][j] - low) * per_spacing - reach) + T(c);
                const T offset = x[k][j] - (low + (cell + T(0.5)) * spacing);
                const bool holds = (abs_(offset) <= half) & (cell >= 0) & (cell <= last);  // not so for NaN
                row[k][c][j] = int32_t(holds ? cell : T(0)) * stride;
                if (WINDOWED) along[k][c][j] = holds ? window<T>(offset, half, per_shared, false) : T(0);
                else along[k][c][j] = holds ? offset * offset : infinity(T());
            }
    }
    T total[kBlock] = {};
    const int32_t* lattice = a.lattice[s];
    for (int u = 0; u < MANY; ++u)
        for (int v = 0; v < MANY; ++v)
            for (int w = 0; w < MANY; ++w) {
                int32_t box[kBlock];
                T weight[kBlock];
                for (int j = 0; j < kBlock; ++j) box[j] = lattice[row[0][u][j] + row[1][v][j] + row[2][w][j]];
                for (int j = 0; j < kBlock; ++j) {
                    const T p = along[0][u][j], q = along[1][v][j], r = along[2][w][j];
                    const T held = WINDOWED ? p * q * r : 1 / (sqrt_(p + q + r) + T(1e-6));
                    weight[j] = box[j] < 0 ? T(0) : held;
                    total[j] += weight[j];
                }
                for (int j = 0; j < kBlock; ++j) {
                    if (MANY > 2) {
                        if (weight[j] > 0) found[j].put_if_near(int32_t(a.nearest), box[j], weight[j]);
                    } else {
                        found[j].put(found[j].count, box[j], weight[j]);
                        found[j].count += weight[j] > 0;
                    }
                }
            }
    for (int j = 0; j < kBlock; ++j) {
        found[j].scale = total[j];
        const bool many = found[j].count > a.nearest;
        if (many) found[j].keep_nearest(int32_t(a.nearest));
        if (many || MANY > 2) found[j].scale = found[j].total();
    }
}

// How much box b contributes to the point x, before weights are made to sum to 1: 0 where it does not hold it. `axis`: of
// the tangent.
template <class S, class T> FIELDS_FN S weigh(const CloudArgs<T>& a, int s, const T* x, int32_t b, int axis) {
    S product = constant(T(1), S()), squared = constant(T(0), S());
    bool holds = true;
    for (int k = 0; k < 3; ++k) {
        const T offset = x[k] - a.centres[s][3 * int64_t(b) + k];
        product = product * window<S>(offset, a.half[s], a.per_shared[s], k == axis);
        squared += with_tangent(offset * offset, k == axis ? 2 * offset : T(0), S());
        holds = holds && abs_(offset) <= a.half[s];
    }
    if (a.windowed) return product;
    return holds || axis >= 0 ? inverse(root(squared) + constant(T(1e-6), S())) : constant(T(0), S());
}

// Boxes anywhere: the eight cells of the hash that a box around the point touches.
template <class T> FIELDS_CALL void find_by_hash(const CloudArgs<T>& a, int s, const T* x, Found<T>& found) {
    found.scale = 0;
    int64_t first[3];
    for (int k = 0; k < 3; ++k) {
        const T cell = floor_((x[k] - a.low[3 * s + k]) * a.per_spacing[s] - T(0.5));
        if (!(abs_(cell) < T(1 << 20))) return;  // too far away to be one, or no number at all
        first[k] = int64_t(cell);
    }
    for (int corner = 0; corner < 8; ++corner) {
        const int64_t cx = first[0] + (corner & 1), cy = first[1] + (corner >> 1 & 1), cz = first[2] + (corner >> 2);
        if (cx < 0 || cy < 0 || cz < 0) continue;
        const int64_t cell = find_cell(a.keys[s], a.cells[3 * s], morton(cx, cy, cz));
        if (cell == a.cells[3 * s]) continue;
        for (int32_t m = a.begins[s][cell]; m < a.begins[s][cell + 1]; ++m) {
            const T w = weigh<T>(a, s, x, a.members[s][m], -1);
            if (w > 0) found.put_if_near(int32_t(a.nearest), a.members[s][m], w);
        }
    }
    found.scale = found.total();
}

// What weights with this sum are multiplied by to sum to `part`.
template <class S, class T> FIELDS_FN S scale_of(const CloudArgs<T>& a, S total, T part) {
    return constant(part, S()) * (a.clamped && plain(total) < 1 ? constant(T(1), S()) : inverse(total));
}

// 1 over the number of scales that hold sample j of a block, where scales are averaged.
template <class T> FIELDS_FN T share(const CloudArgs<T>& a, const Found<T> (*found)[kBlock], int j) {
    int held = 0;
    for (int s = 0; s < a.scales && a.averaged; ++s) held += found[s][j].count > 0;
    return held > 1 ? T(1) / T(held) : T(1);
}

// The boxes of all scales for a block of samples from `begin` on. Noted where that is wanted.
template <class T> FIELDS_CALL void find(const CloudArgs<T>& a, int64_t begin, Found<T> (*found)[kBlock]) {
    T x[3][kBlock];
    for (int j = 0; j < kBlock; ++j)
        for (int k = 0; k < 3; ++k) x[k][j] = a.x[3 * minimum(begin + j, a.n - 1) + k];
    for (int s = 0; s < a.scales; ++s) {
        if (!a.lattice[s])
            for (int j = 0; j < kBlock; ++j) {
                const T point[3] = {x[0][j], x[1][j], x[2][j]};
                find_by_hash(a, s, point, found[s][j]);
            }
        else if (a.half[s] > a.spacing[s]) find_on_lattice<4, false>(a, s, x, found[s]);
        else if (a.windowed) find_on_lattice<2, true>(a, s, x, found[s]);
        else find_on_lattice<2, false>(a, s, x, found[s]);
    }
    for (int s = 0; s < a.scales; ++s)
        for (int j = 0; j < kBlock; ++j) found[s][j].scale = scale_of(a, found[s][j].scale, share(a, found, j));
    if (!a.found_box) return;
    const int64_t most = a.scales * a.nearest;
    for (int j = 0; j < kBlock && begin + j < a.n; ++j) {
        int64_t at = (begin + j) * most;
        const int64_t end = at + most;
        int32_t before = 0;
        for (int s = 0; s < a.scales; before += int32_t(a.boxes[s++]))
            for (int32_t e = 0; e < found[s][j].count; ++e, ++at) {
                a.found_box[at] = before + found[s][j].box[e];
                a.found_weight[at] = found[s][j].weight[e] * found[s][j].scale;
            }
        for (; at < end; ++at) {
            a.found_box[at] = -1;
            a.found_weight[at] = 0;
        }
    }
}

// Where a point lies on the three vectors of a box. `axis`: of the tangent.
template <class S, class T> struct Spot {
    int64_t left[3];           // element of the left knot's channels
    S weight[3][2];            // of the left and the right knot

    FIELDS_FN void locate(const CloudArgs<T>& a, int s, const T* x, int32_t b, int axis) {
        const T last = T(a.knots[s] - 1), per_knot = a.per_knot[s];
        for (int k = 0; k < 3; ++k) {
            const T q = (x[k] - a.centres[s][3 * int64_t(b) + k] + a.half[s]) * per_knot, held = clamp(q, T(0), last);
            const int32_t knot = minimum(int32_t(held), int32_t(a.knots[s] - 2));
            const T right = held - T(knot), slope = k == axis && q >= 0 && q <= last ? per_knot : T(0);
            left[k] = ((3 * int64_t(b) + k) * a.knots[s] + knot) * a.rank[s];
            weight[k][0] = with_tangent(1 - right, -slope, S());
            weight[k][1] = with_tangent(right, slope, S());
        }
    }
    FIELDS_FN auto interpolate(const CloudArgs<T>& a, int s, int k, int64_t channel, int count) const {
        const T* none = nullptr;
        const int64_t at = left[k] + channel;
        return weight[k][0] * load_lanes(a.vectors[s], none, at, count, S()) +
               weight[k][1] * load_lanes(a.vectors[s], none, at + a.rank[s], count, S());
    }
    FIELDS_FN auto product(const CloudArgs<T>& a, int s, int64_t channel, int count) const {
        return interpolate(a, s, 0, channel, count) * interpolate(a, s, 1, channel, count) *
               interpolate(a, s, 2, channel, count);
    }
};

// The spots of one sample in all its boxes, with their weights.
template <class S, class T> struct Spots {
    int32_t count[kScales];
    Spot<S, T> spot[kScales][kMostBoxes];
    S weight[kScales][kMostBoxes];

    FIELDS_FN void locate(const CloudArgs<T>& a, const Found<T> (*found)[kBlock], int64_t begin, int j, int axis) {
        const T* x = a.x + 3 * (begin + j);
        for (int s = 0; s < a.scales; ++s) {
            const Found<T>& near = found[s][j];
            count[s] = near.count;
            S total = constant(T(0), S());
            for (int32_t e = 0; e < near.count; ++e) {
                spot[s][e].locate(a, s, x, near.box[e], axis);
                for (int k = 0; k < 3; ++k) prefetch(a.vectors[s] + spot[s][e].left[k]);
                weight[s][e] = axis < 0 ? constant(near.weight[e], S()) : weigh<S>(a, s, x, near.box[e], axis);
                total += weight[s][e];
            }
            const S scale = axis < 0 ? constant(near.scale, S()) : scale_of(a, total, share(a, found, j));
            for (int32_t e = 0; e < near.count; ++e) weight[s][e] = weight[s][e] * scale;
        }
    }
    // Calls body(first channel, count, lanes) with the weighted sum over boxes of every block of channels.
    template <class Body> FIELDS_FN void each_channels(const CloudArgs<T>& a, Body&& body) const {
        int64_t start = 0;
        for (int s = 0; s < a.scales; start += a.rank[s++])
            blocks(a.rank[s], [&](int64_t c, int lanes) FIELDS_INLINE {
                auto sum = fill_lanes(S());
                for (int32_t e = 0; e < count[s]; ++e)
                    sum += fill_lanes(weight[s][e]) * spot[s][e].product(a, s, c, lanes);
                body(start + c, lanes, sum);
            });
    }
};
template <class T> FIELDS_FN T not_a_number(const CloudArgs<T>& a, int64_t i) {  // where x is none; else 0
    const T sum = a.x[3 * i] + a.x[3 * i + 1] + a.x[3 * i + 2];
    return sum == sum ? T(0) : sum;
}

// Item: a block of samples. Vectors come from far away in memory, so where a sample lies is found, and its knots asked for,
// while the one before it is computed.
template <class T> struct CloudValue : CloudArgs<T> {
    FIELDS_FN void operator()(int64_t item) const {
        Found<T> found[kScales][kBlock];
        Spots<T, T> spots[2];
        const int64_t begin = item * kBlock, count = minimum(int64_t(kBlock), this->n - begin);
        find(*this, begin, found);
        spots[0].locate(*this, found, begin, 0, -1);
        for (int j = 0; j < count; ++j) {
            if (j + 1 < count) spots[(j + 1) & 1].locate(*this, found, begin, j + 1, -1);
            const int64_t i = begin + j;
            const T fault = not_a_number(*this, i);
            auto total = fill_lanes(T(0));
            spots[j & 1].each_channels(*this, [&](int64_t c, int lanes, auto v) FIELDS_INLINE {
                if (this->summed) total += v;
                else store_lanes(this->value + i * this->out + c, v + fill_lanes(fault), lanes);
            });
            const T sum = team_sum(sum_lanes<T>(total)) + fault;
            if (this->summed && lane() == 0) this->value[i] = sum;
        }
    }
};

// The value and its derivatives along the axes; or, in the backward pass, <grad, df/dx>. Item: a block of samples.
template <class T, bool CONTRACT> struct CloudSlopes : CloudArgs<T> {
    FIELDS_FN void operator()(int64_t item) const {
        Found<T> found[kScales][kBlock];
        const int64_t begin = item * kBlock;
        find(*this, begin, found);
        for (int j = 0; j < kBlock && begin + j < this->n; ++j)
            for (int axis = 0; axis < 3; ++axis) slope(found, begin, j, axis);
    }
    FIELDS_FN void slope(const Found<T> (*found)[kBlock], int64_t begin, int j, int axis) const {
        const int64_t i = begin + j;
        const T fault = not_a_number(*this, i);
        auto total = fill_lanes(Dual<T>());
        Spots<Dual<T>, T> spots;
        spots.locate(*this, found, begin, j, axis);
        spots.each_channels(*this, [&](int64_t c, int count, auto v) FIELDS_INLINE {
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
        const T value = team_sum(sum_lanes<T>(total.v)) + fault, slope = team_sum(sum_lanes<T>(total.d));
        if (lane() != 0) return;
        if (CONTRACT) this->grad_x[3 * i + axis] = slope * (this->summed ? this->grad[i] : T(1)) + fault;
        else if (this->summed) {
            if (axis == 0) this->value[i] = value;
            this->jacobian[3 * i + axis] = slope + fault;
        }
    }
};

// Adds w · grad times the product of the other two vectors to the knots of each vector of box b.
template <class T> FIELDS_FN void scatter(const CloudArgs<T>& a, int s, int64_t start, int32_t b, int64_t i, T w) {
    Spot<T, T> spot;
    spot.locate(a, s, a.x + 3 * i, b, -1);
    blocks(a.rank[s], [&](int64_t c, int count) FIELDS_INLINE {
        const auto x = spot.interpolate(a, s, 0, c, count), y = spot.interpolate(a, s, 1, c, count);
        const auto z = spot.interpolate(a, s, 2, c, count);
        const auto g = a.summed ? fill_lanes(w * a.grad[i]) : w * load_lanes<T>(a.grad + i * a.out + start + c, count);
        const decltype(x) own[3] = {g * y * z, g * x * z, g * x * y};
        for (int k = 0; k < 3; ++k) {
            T* left = a.grad_vectors[s] + spot.left[k] + c;
            add_lanes(left, spot.weight[k][0] * own[k], count, nullptr);
            add_lanes(left + a.rank[s], spot.weight[k][1] * own[k], count, nullptr);
        }
    });
}

// Item: a chunk of samples. Counts those that each box holds.
template <class T> struct CloudCount : CloudArgs<T> {
    FIELDS_FN void operator()(int64_t item) const {
        const int64_t end = minimum(this->n, (item + 1) * this->chunk), most = this->scales * this->nearest;
        for (int64_t i = item * this->chunk; i < end; ++i)
            for (int64_t p = i * most; p < (i + 1) * most && this->found_box[p] >= 0; ++p)
                ++this->counts[this->found_box[p] * this->chunks + item];
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

// Item: a block of samples. For GPUs, where adding is atomic.
template <class T> struct CloudGradSamples : CloudArgs<T> {
    FIELDS_FN void operator()(int64_t item) const {
        Found<T> found[kScales][kBlock];
        find(*this, item * kBlock, found);
        for (int j = 0; j < kBlock && item * kBlock + j < this->n; ++j) {
            int64_t start = 0;
            for (int s = 0; s < this->scales; start += this->rank[s++])
                for (int32_t e = 0; e < found[s][j].count; ++e)
                    scatter<T>(*this, s, start, found[s][j].box[e], item * kBlock + j,
                               found[s][j].weight[e] * found[s][j].scale);
        }
    }
};

// Adam on the boxes that were touched: one whose gradient is zero throughout keeps its values and moments. Item: a box.
//
// An L1 penalty would touch every box in every step. Its gradient has one size everywhere, so what Adam makes of it alone is
// a shrink at a constant pace; an idle box is given all it has missed when it is next touched, or when `settling`.
template <class T> struct BoxAdam {
    T* value;                  // (boxes, size)
    const T* grad;             // (boxes, size)
    T* mean;                   // (boxes, size) first moment
    T* square;                 // (boxes, size) second moment
    T* since;                  // (boxes) the clock when a box last moved; or null
    int64_t size;              // numbers per box
    T beta_mean;               // decay of the first moment
    T beta_square;             // decay of the second moment
    T rate;                    // learning rate over the bias correction of the first moment
    T correction;              // root of the bias correction of the second moment
    T epsilon;                 // added to the root
    T penalty;                 // gradient of the L1 penalty
    T clock;                   // sum of all learning rates before this step
    T clock_after;             // and with it
    int32_t settling;          // 1: only give boxes what they have missed

    FIELDS_FN void operator()(int64_t box) const {
        const int64_t begin = box * size, end = begin + size;
        if (!settling) {
            int64_t k = begin;
            while (k < end && grad[k] == 0) ++k;
            if (k == end) return;
        }
        if (since) {
            const T missed = (clock - since[box]) * penalty / (penalty + epsilon);
            for (int64_t k = begin; k < end && missed > 0; ++k) {
                const T v = value[k], left = maximum(abs_(v) - missed, T(0));
                value[k] = v < 0 ? -left : left;
            }
            since[box] = clock_after;
        }
        if (settling) return;
        for (int64_t k = begin; k < end; ++k) {
            const T g = grad[k] + (value[k] > 0 ? penalty : value[k] < 0 ? -penalty : T(0));
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
FIELDS_KERNEL(cloud_count, fields::CloudCount, CloudArgs)
FIELDS_KERNEL(cloud_sort, fields::CloudSort, CloudArgs)
FIELDS_KERNEL(cloud_grad_boxes, fields::CloudGradBoxes, CloudArgs)
FIELDS_KERNEL(cloud_grad_samples, fields::CloudGradSamples, CloudArgs)
FIELDS_KERNEL(box_adam, fields::BoxAdam, BoxAdam)
