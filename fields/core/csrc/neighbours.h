// Exact neighbours among points sorted into cells.
//
// Points are sorted by the Morton key of their cell, so a cell is a run of points, found by binary search over the
// distinct keys. A query walks shells of cells outwards: whatever lies beyond shell s is at least s whole cells minus
// the query's offset away, so the search ends when the k-th best is nearer than that, or when the shells have left the
// points' extent. Lists are kept sorted by distance, then by index: equal distances have one answer.
#pragma once
#include "common.h"

namespace fields {

// Spreads the low 21 bits of v to every third bit.
FIELDS_FN uint64_t spread_bits(uint64_t v) {
    v &= 0x1fffff;
    v = (v | v << 32) & 0x1f00000000ffffULL;
    v = (v | v << 16) & 0x1f0000ff0000ffULL;
    v = (v | v << 8) & 0x100f00f00f00f00fULL;
    v = (v | v << 4) & 0x10c30c30c30c30c3ULL;
    return (v | v << 2) & 0x1249249249249249ULL;
}
FIELDS_FN uint64_t gather_bits(uint64_t v) {
    v &= 0x1249249249249249ULL;
    v = (v | v >> 2) & 0x10c30c30c30c30c3ULL;
    v = (v | v >> 4) & 0x100f00f00f00f00fULL;
    v = (v | v >> 8) & 0x1f0000ff0000ffULL;
    v = (v | v >> 16) & 0x1f00000000ffffULL;
    return (v | v >> 32) & 0x1fffff;
}
FIELDS_FN int64_t morton(int64_t x, int64_t y, int64_t z) {
    return int64_t(spread_bits(uint64_t(x)) | spread_bits(uint64_t(y)) << 1 | spread_bits(uint64_t(z)) << 2);
}

// The cell with this key among the distinct ones, ascending, or the number of cells.
FIELDS_FN int64_t find_cell(const int64_t* keys, int64_t cells, int64_t key) {
    int64_t first = 0, count = cells;
    while (count > 0) {
        const int64_t half = count / 2;
        if (keys[first + half] < key) first += half + 1, count -= half + 1;
        else count = half;
    }
    return first < cells && keys[first] == key ? first : cells;
}

template <class T> struct MortonEncode {
    const int64_t* cells;      // (n, 3)
    int64_t* keys;             // (n)
    FIELDS_FN void operator()(int64_t i) const { keys[i] = morton(cells[3 * i], cells[3 * i + 1], cells[3 * i + 2]); }
};
template <class T> struct MortonDecode {
    const int64_t* keys;       // (n)
    int64_t* cells;            // (n, 3)
    FIELDS_FN void operator()(int64_t i) const {
        for (int a = 0; a < 3; ++a) cells[3 * i + a] = int64_t(gather_bits(uint64_t(keys[i]) >> a));
    }
};

template <class T> struct Neighbours {
    const T* points;           // (points, 3) in the order of their keys
    const int64_t* original;   // (points) index of each in the caller's order
    const int64_t* keys;       // (cells) distinct, ascending
    const int64_t* begins;     // (cells + 1) first point of each
    const T* queries;          // (n, 3)
    const int64_t* rows;       // (n) where each query's results go; null for k nearest and while counting
    int64_t* counts;           // (n) null unless counting
    int64_t* indices;          // (n, k), or packed
    T* distances;              // like indices
    int64_t cells;             // distinct keys
    int64_t k;                 // most results per query; 0: all within radius
    int64_t extent[3];         // cells along the axes
    T low[3];                  // corner of cell (0, 0, 0)
    T size;                    // edge of a cell
    T radius;                  // nothing further than this

    FIELDS_FN void operator()(int64_t i) const {
        const int64_t row = k ? i * k : rows ? rows[i] : 0;
        int64_t found = 0, home[3], shells = 0;
        bool real = true;
        T margin = infinity(T());
        for (int a = 0; a < 3; ++a) {
            const T q = (queries[3 * i + a] - low[a]) / size;
            real = real && q == q && abs_(q) < T(1e15);
            const T cell = real ? floor_(q) : T(0);
            home[a] = int64_t(cell);
            margin = minimum(margin, minimum(q - cell, cell + 1 - q));
            // Far outside, start at the shell that first touches the points' extent, end with the one past it.
            shells = maximum(shells, maximum(home[a], extent[a] - 1 - home[a]));
        }
        int64_t shell = 0;
        for (int a = 0; a < 3; ++a) shell = maximum(shell, maximum(-home[a], home[a] - (extent[a] - 1)));
        for (; real && shell <= shells; ++shell) {
            // Everything in this shell is at least this far; a little less, for rounding.
            const T nearest = shell ? (T(shell - 1) + margin) * size * T(0.9999) : T(0);
            if (nearest > radius || (k && found == k && nearest > distances[row + k - 1])) break;
            int64_t lo[3], hi[3];
            for (int a = 0; a < 3; ++a) {
                lo[a] = maximum<int64_t>(home[a] - shell, 0);
                hi[a] = minimum(home[a] + shell, extent[a] - 1);
            }
            for (int64_t x = lo[0]; x <= hi[0]; ++x)
                for (int64_t y = lo[1]; y <= hi[1]; ++y) {
                    const bool face = x == home[0] - shell || x == home[0] + shell || y == home[1] - shell || y == home[1] + shell;
                    const int64_t step = face || shell == 0 ? 1 : 2 * shell;  // inside the faces only the two ends belong
                    for (int64_t z = home[2] - shell; z <= home[2] + shell; z += step) {
                        if (z < lo[2]) {
                            if (step == 1) z = lo[2] - 1;
                            continue;
                        }
                        if (z > hi[2]) break;
                        const int64_t cell = find_cell(keys, cells, morton(x, y, z));
                        if (cell < cells) visit(begins[cell], begins[cell + 1], i, row, found);
                    }
                }
        }
        if (counts) counts[i] = found;
        if (k)
            for (; found < k; ++found) indices[row + found] = -1, distances[row + found] = infinity(T());
    }

    FIELDS_FN void visit(int64_t begin, int64_t end, int64_t i, int64_t row, int64_t& found) const {
        for (int64_t p = begin; p < end; ++p) {
            T squared = 0;
            for (int a = 0; a < 3; ++a) {
                const T d = points[3 * p + a] - queries[3 * i + a];
                squared += d * d;
            }
            const T distance = sqrt_(squared);
            if (!(distance <= radius)) continue;
            if (counts) {
                ++found;
                continue;
            }
            const int64_t index = original[p];
            int64_t at = k && found == k ? k - 1 : found;
            if (k && found == k && !before(distance, index, row + at)) continue;
            for (; at > 0 && before(distance, index, row + at - 1); --at) {
                indices[row + at] = indices[row + at - 1];
                distances[row + at] = distances[row + at - 1];
            }
            indices[row + at] = index;
            distances[row + at] = distance;
            if (!k || found < k) ++found;
        }
    }
    FIELDS_FN bool before(T distance, int64_t index, int64_t at) const {
        return distance < distances[at] || (distance == distances[at] && index < indices[at]);
    }
};

}  // namespace fields

FIELDS_KERNEL(morton_encode, fields::MortonEncode, MortonEncode)
FIELDS_KERNEL(morton_decode, fields::MortonDecode, MortonDecode)
FIELDS_KERNEL(neighbours, fields::Neighbours, Neighbours)
