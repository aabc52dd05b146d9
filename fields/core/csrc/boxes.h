// Which boxes of a cloud hold a point, and by what weights.
//
// They are found anew for each point, for a block of points at once. Centres on a lattice: the cells within half an edge
// along each axis, at most three, so nothing is searched. Free centres: the eight cells of a hash whose cells are as large
// as a box. The weights are those of the nearest K boxes by inverse distance, or of a window that is largest in the middle
// of a box and 0 on its faces, normalised to sum to 1. On a lattice the windows do so by themselves, so the field is
// continuous.
#pragma once
#include "common.h"
#include "grid.h"
#include "neighbours.h"

namespace fields {

constexpr int kScales = 4;      // scales of a cloud at most
constexpr int kMostBoxes = 8;   // boxes of one scale that contribute to a point at most
#ifdef __CUDACC__
constexpr int kBlock = 1;       // samples that look for their boxes together
#else
constexpr int kBlock = 16;      // one SIMD register of them
#endif

template <class T, class Sum = SumOf<T>> struct CloudArgs {
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
    Sum* grad_vectors[4];      // like vectors
    const double* fixed_point; // (1) what gradients are multiplied by before they are rounded to integers, or null
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

}  // namespace fields
