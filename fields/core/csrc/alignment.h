// Surfaces brought into line by rigid motions, from many poses at once: point-to-plane ICP.
//
// Which point of a target is the nearest is looked up in a table of cells, and made sure of among the neighbours of what is found there: a few
// memory accesses for each point, not a search.
#pragma once
#include "common.h"

namespace fields {

constexpr int kAround = 8;  // neighbours that are known of each target

// The target nearest to x, or -1 where the table says that none is near.
template <class T>
FIELDS_FN int64_t nearest_target(const T* points, const int32_t* around, const int32_t* table, const int64_t* shape, const T* low,
                                 T cell, const T* x) {
    int64_t at = 0;
    for (int a = 0; a < 3; ++a) {
        const T cells = (x[a] - low[a]) / cell;
        if (!(cells >= 0 && cells < T(shape[a]))) return -1;
        at = at * shape[a] + int64_t(cells);
    }
    int64_t best = table[at];
    if (best < 0) return -1;
    T least = infinity(T());
    for (int64_t next = best; next >= 0;) {
        best = next, next = -1;
        for (int k = -1; k < kAround; ++k) {
            const int64_t other = k < 0 ? best : around[kAround * best + k];
            T squared = 0;
            for (int a = 0; a < 3; ++a) squared += (x[a] - points[3 * other + a]) * (x[a] - points[3 * other + a]);
            if (squared < least) least = squared, next = k < 0 ? -1 : other;
        }
    }
    return best;
}

template <class T> struct Alignment {
    const T* points[2];        // per patch (targets, 3)
    const T* normals[2];       // per patch (targets, 3) unit
    const int32_t* around[2];  // per patch (targets, kAround) the neighbours of each
    const int32_t* table[2];   // per patch (shape...) a target for each cell, or -1
    const T* sources[2];       // per patch (count, 3)
    const T* facing[2];        // per patch (count, 3) unit normals of the sources
    const T* tolerances;       // (steps) gaps from which on a point says nothing
    T* poses;                  // (n, 4, 4) from the frame of the sources to that of the targets; stepped on in place
    T* support;                // (n, 2) what the points of a patch say in favour, in the mean; null while stepping
    int64_t patches;           // up to 2
    int64_t steps;             // 0 for support
    int64_t count[2];          // sources
    int64_t shape[6];          // per patch: cells along the axes
    T low[6];                  // per patch: corner of cell (0, 0, 0)
    T cell[2];                 // edge of a cell
    T sign[2];                 // -1 where counterparts face each other, 1 where they face the same way
    T middle[3];               // about where the sources are
    T aside;                   // a counterpart further to the side is none
    T tolerance;               // of support

    struct Match {
        T x[3];
        T normal[3];
        T gap;
        T weight;
    };

    FIELDS_FN void operator()(int64_t i) const {
        T* pose = poses + 16 * i;
        for (int64_t s = 0; s < steps; ++s) step(pose, tolerances[s]);
        if (!support) return;
        for (int64_t k = 0; k < patches; ++k) {
            T sum = 0;
            Match found;
            for (int64_t s = 0; s < count[k]; ++s)
                if (match(pose, k, s, tolerance, found)) sum += found.weight;
            support[2 * i + k] = count[k] ? sum / T(count[k]) : T(0);
        }
    }

    FIELDS_FN bool match(const T* pose, int64_t k, int64_t s, T within, Match& found) const {
        const T* p = sources[k] + 3 * s;
        for (int a = 0; a < 3; ++a)
            found.x[a] = pose[4 * a] * p[0] + pose[4 * a + 1] * p[1] + pose[4 * a + 2] * p[2] + pose[4 * a + 3];
        const int64_t target = nearest_target(points[k], around[k], table[k], shape + 3 * k, low + 3 * k, cell[k], found.x);
        if (target < 0) return false;
        T squared = 0, agree = 0;
        const T* f = facing[k] + 3 * s;
        found.gap = 0;
        for (int a = 0; a < 3; ++a) {
            const T d = found.x[a] - points[k][3 * target + a];
            found.normal[a] = normals[k][3 * target + a];
            squared += d * d;
            found.gap += d * found.normal[a];
            agree += found.normal[a] * (pose[4 * a] * f[0] + pose[4 * a + 1] * f[1] + pose[4 * a + 2] * f[2]);
        }
        const T off = found.gap / within;
        agree *= sign[k];
        if (!(agree > T(0.5)) || off * off >= 1 || squared - found.gap * found.gap >= aside * aside) return false;
        found.weight = (1 - off * off) * agree;
        return true;
    }

    // The small motion about c, where the middle is now, that closes the gaps best: of x it makes c + R (x - c) + t.
    FIELDS_FN void step(T* pose, T within) const {
        T c[3], sums[27] = {};  // upper triangle of the normal equations for (rotation, t) row by row, then their right side
        for (int a = 0; a < 3; ++a)
            c[a] = pose[4 * a] * middle[0] + pose[4 * a + 1] * middle[1] + pose[4 * a + 2] * middle[2] + pose[4 * a + 3];
        Match found;
        for (int64_t k = 0; k < patches; ++k)
            for (int64_t s = 0; s < count[k]; ++s) {
                if (!match(pose, k, s, within, found)) continue;
                const T* n = found.normal;
                const T x = found.x[0] - c[0], y = found.x[1] - c[1], z = found.x[2] - c[2];
                const T row[7] = {y * n[2] - z * n[1], z * n[0] - x * n[2], x * n[1] - y * n[0], n[0], n[1], n[2], -found.gap};
                int at = 0;
                for (int a = 0; a < 6; ++a)
                    for (int b = a; b < 7; ++b, ++at) sums[at] += found.weight * row[a] * row[b];
            }
        T motion[6];
        if (solve(sums, motion)) turn(pose, c, motion);
    }

    // Cholesky's decomposition of the matrix plus a thousandth of its mean diagonal: what slides along a plane stays.
    FIELDS_FN static bool solve(const T* sums, T* x) {
        T l[6][6], mean = 0;
        int begins[6];
        for (int a = 0, at = 0; a < 6; at += 7 - a, ++a) begins[a] = at - a, mean += sums[at] / 6;
        if (!(mean > 0)) return false;
        for (int a = 0; a < 6; ++a) {
            for (int b = 0; b <= a; ++b) {
                T v = sums[begins[b] + a] + (a == b ? T(1e-3) * mean : T(0));
                for (int k = 0; k < b; ++k) v -= l[a][k] * l[b][k];
                if (a == b && !(v > 0)) return false;
                l[a][b] = a == b ? sqrt_(v) : v / l[b][b];
            }
            T v = sums[begins[a] + 6];
            for (int k = 0; k < a; ++k) v -= l[a][k] * x[k];
            x[a] = v / l[a][a];
        }
        for (int a = 5; a >= 0; --a) {
            for (int k = a + 1; k < 6; ++k) x[a] -= l[k][a] * x[k];
            x[a] /= l[a][a];
        }
        return true;
    }

    FIELDS_FN static void turn(T* pose, const T* c, const T* motion) {
        T w[3], squared = 0;
        for (int a = 0; a < 3; ++a) w[a] = clamp(motion[a], T(-0.3), T(0.3)), squared += w[a] * w[a];  // radians
        const T angle = sqrt_(squared);
        T sine, cosine;
        sincos_(angle, sine, cosine);
        const T s = angle > T(1e-4) ? sine / angle : T(1), v = angle > T(1e-4) ? (1 - cosine) / squared : T(0.5);
        T old[12];
        for (int a = 0; a < 12; ++a) old[a] = pose[a] - (a % 4 == 3 ? c[a / 4] : T(0));
        for (int b = 0; b < 4; ++b) {  // Rodrigues' formula for the columns: p + s w x p + v w x (w x p)
            const T p[3] = {old[b], old[4 + b], old[8 + b]};
            const T along = w[0] * p[0] + w[1] * p[1] + w[2] * p[2];
            for (int a = 0; a < 3; ++a) {
                const int d = (a + 1) % 3, e = (a + 2) % 3;
                const T turned = p[a] + s * (w[d] * p[e] - w[e] * p[d]) + v * (w[a] * along - squared * p[a]);
                pose[4 * a + b] = b < 3 ? turned : turned + c[a] + motion[3 + a];
            }
        }
    }
};

// What two surfaces, of which parts are labelled, do where one is posed beside the other, as areas.
template <class T> struct Contacts {
    const T* points;           // (targets, 3)
    const T* normals;          // (targets, 3) unit
    const uint8_t* labels;     // (targets)
    const int32_t* around;     // (targets, kAround)
    const int32_t* table;      // (shape...)
    const T* sources;          // (count, 3)
    const T* facing;           // (count, 3) unit normals of the sources
    const uint8_t* marks;      // (count) labels of the sources
    const T* area;             // (count) that each source stands for
    const T* poses;            // (poses, 4, 4)
    T* sums;                   // (n, 9) of the areas, see fields/core/alignment.py
    int64_t count;             // sources
    int64_t chunk;             // sources that an item looks at
    int64_t chunks;            // items per pose
    int64_t shape[3];          // cells along the axes
    T low[3];                  // corner of cell (0, 0, 0)
    T cell;                    // edge of a cell
    T reach;                   // what is further away is not beside it

    FIELDS_FN void operator()(int64_t i) const {
        const T* pose = poses + 16 * (i / chunks);
        const int64_t begin = i % chunks * chunk, end = minimum(begin + chunk, count);
        T* sum = sums + 9 * i;
        for (int k = 0; k < 9; ++k) sum[k] = 0;
        for (int64_t s = begin; s < end; ++s) {
            T x[3], squared = 0, gap = 0, dot = 0;
            const T *p = sources + 3 * s, *f = facing + 3 * s;
            for (int a = 0; a < 3; ++a) x[a] = pose[4 * a] * p[0] + pose[4 * a + 1] * p[1] + pose[4 * a + 2] * p[2] + pose[4 * a + 3];
            const int64_t target = nearest_target(points, around, table, shape, low, cell, x);
            if (target < 0) continue;
            const T* m = normals + 3 * target;
            for (int a = 0; a < 3; ++a) {
                const T d = x[a] - points[3 * target + a];
                squared += d * d;
                gap += d * m[a];
                dot += m[a] * (pose[4 * a] * f[0] + pose[4 * a + 1] * f[1] + pose[4 * a + 2] * f[2]);
            }
            if (!(squared <= reach * reach)) continue;
            const T off = abs_(gap) / reach, w = area[s];
            const bool mine = marks[s], theirs = labels[target];
            if (mine && theirs && dot < T(-0.5)) {
                sum[0] += w;
                if (off < T(1) / 3) sum[1] += w;
                if (off < T(0.125) && dot < T(-0.9)) sum[2] += w;
                sum[3] += w * off * off;
                sum[4] += w * (1 + dot);
            }
            if (!mine && !theirs) {
                const bool level = dot > T(0.9) && off < T(0.2);
                if (level) sum[5] += w;
                else if (dot > T(-0.5)) sum[6] += w;
                if (dot > T(0.5) && squared < reach * reach / 9) sum[8] += w;
            }
            if (mine && theirs ? dot > T(0.5) : dot < T(-0.5)) sum[7] += w;
        }
    }
};

}  // namespace fields

FIELDS_KERNEL(contacts, fields::Contacts, Contacts)
FIELDS_KERNEL(alignment, fields::Alignment, Alignment)
