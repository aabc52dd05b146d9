// What an oriented point cloud looks like around a query: moments of the neighbours within several radii.
//
// Only neighbours that face the same way as the query count towards the moments, so that a thin wall's other side does not
// mix with its own; the nearest of those behind it that face away says how thick the wall is.
#pragma once
#include "neighbours.h"

namespace fields {

template <class T> struct Moments {
    const T* points;           // (points, 3) in the order of their keys
    const T* normals;          // (points, 3) unit
    const int64_t* keys;       // (cells) distinct, ascending
    const int64_t* begins;     // (cells + 1) first point of each
    const T* queries;          // (n, 3)
    const T* facing;           // (n, 3) unit normals of the queries
    T* sums;                   // (n, radii, 20): neighbours, those that agree, and of these d (3), dd (6), m (3), mm (6)
    T* behind;                 // (n) distance to the nearest that is behind and faces away; infinity for none
    int64_t cells;             // distinct keys
    int64_t radii;             // up to 8
    int64_t extent[3];         // cells along the axes
    T low[3];                  // corner of cell (0, 0, 0)
    T size;                    // edge of a cell
    T radius[8];               // ascending

    FIELDS_FN void operator()(int64_t i) const {
        const T largest = radius[radii - 1];
        T* row = sums + i * radii * 20;
        for (int64_t s = 0; s < radii * 20; ++s) row[s] = 0;
        behind[i] = infinity(T());
        int64_t lo[3], hi[3];
        for (int a = 0; a < 3; ++a) {
            const T q = queries[3 * i + a] - low[a];
            if (!(abs_(q) < T(1e15))) return;
            lo[a] = int64_t(clamp(floor_((q - largest) / size), T(0), T(extent[a])));
            hi[a] = int64_t(clamp(floor_((q + largest) / size), T(-1), T(extent[a] - 1)));
        }
        for (int64_t x = lo[0]; x <= hi[0]; ++x)
            for (int64_t y = lo[1]; y <= hi[1]; ++y)
                for (int64_t z = lo[2]; z <= hi[2]; ++z) {
                    const int64_t cell = find_cell(keys, cells, morton(x, y, z));
                    if (cell < cells)
                        for (int64_t p = begins[cell]; p < begins[cell + 1]; ++p) visit(p, i, row);
                }
        for (int64_t s = 20; s < radii * 20; ++s) row[s] += row[s - 20];  // a ball holds the smaller ones
    }

    FIELDS_FN void visit(int64_t p, int64_t i, T* row) const {
        T d[3], squared = 0, height = 0, agreement = 0;
        const T* m = normals + 3 * p;
        for (int a = 0; a < 3; ++a) {
            d[a] = points[3 * p + a] - queries[3 * i + a];
            squared += d[a] * d[a];
            height += d[a] * facing[3 * i + a];
            agreement += m[a] * facing[3 * i + a];
        }
        const T distance = sqrt_(squared);
        int64_t ring = 0;
        while (ring < radii && distance > radius[ring]) ++ring;
        if (ring == radii) return;
        T* sum = row + 20 * ring;
        sum[0] += 1;
        if (agreement <= 0) {
            // At least as far behind as it is to the side: a wall's other face, not its rim.
            if (height < 0 && 2 * height * height >= squared) behind[i] = minimum(behind[i], distance);
            return;
        }
        sum[1] += 1;
        int64_t at = 5;
        for (int a = 0; a < 3; ++a) {
            sum[2 + a] += d[a];
            sum[11 + a] += m[a];
            for (int b = a; b < 3; ++b, ++at) {
                sum[at] += d[a] * d[b];
                sum[at + 9] += m[a] * m[b];
            }
        }
    }
};

}  // namespace fields

FIELDS_KERNEL(moments, fields::Moments, Moments)
