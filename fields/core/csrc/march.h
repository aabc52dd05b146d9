// Marching rays through an occupancy grid.
//
// Every ray has a lattice of intervals of its own: the first begins at t_min, each is `step` long, or cone_angle times
// its distance where that is longer. An interval becomes a sample if its midpoint is nearer than t_max and lies in an
// occupied cell. The lattice never shifts, so skipping is only a matter of speed: from an empty cell (or an empty
// brick of 8³ cells) the walk goes on at the first midpoint behind it, taking care to err on the near side.
//
// Grids are nested: level l covers the box scaled by 2^l about its centre, and a point belongs to the innermost level
// that holds it. Cells are bits, eight neighbours along z per byte: 128³ cells are 256 kB and stay in cache.
//
// Item: one ray. The walk runs twice, to count the samples and, when their places are known, to write them.
#pragma once
#include "common.h"

namespace fields {

constexpr int kBrick = 8;

template <class T> struct March {
    const T* rays_o;           // (n, 3)
    const T* rays_d;           // (n, 3)
    const T* t_min;            // (n)
    const T* t_max;            // (n)
    const T* aabb;             // (6) box of level 0
    const uint8_t* bits;       // (levels, nx, ny, ceil(nz / 8))
    const uint8_t* bricks;     // (levels, ceil(nx / 8), ceil(ny / 8), ceil(nz / 8)) whether any cell is occupied
    const int64_t* begins;     // (n) where each ray's samples go; null while counting
    int64_t* counts;           // (n) null while writing
    T* t_starts;               // (samples)
    T* t_ends;                 // (samples)
    int64_t* ray_indices;      // (samples)
    T* positions;              // (samples, 3) midpoints, normalised to [-1, 1] over the box of level 0; or null
    int64_t levels;            // nested grids
    int64_t resolution[3];     // cells along x, y, z
    T step;                    // shortest interval
    T cone_angle;              // interval per distance

    FIELDS_FN void operator()(int64_t i) const {
        T o[3], d[3], centre[3], half[3], inverse[3], scale[3], shift[3];
        for (int a = 0; a < 3; ++a) {
            o[a] = rays_o[3 * i + a];
            d[a] = rays_d[3 * i + a];
            centre[a] = (aabb[a] + aabb[3 + a]) / 2;
            half[a] = (aabb[3 + a] - aabb[a]) / 2;
            inverse[a] = 1 / d[a];
            scale[a] = T(resolution[a]) / (aabb[3 + a] - aabb[a]);
            shift[a] = -aabb[a] * scale[a];
        }
        // Only between entering and leaving the outermost box, give or take an interval, is there anything to find.
        const T outermost = T(int64_t(1) << (levels - 1));
        T first = t_min[i], enter = first, last = t_max[i];
        bool hit = true;
        for (int a = 0; a < 3; ++a) {
            const T to_low = centre[a] - half[a] * outermost - o[a], to_high = centre[a] + half[a] * outermost - o[a];
            if (d[a] == 0) {
                hit = hit && to_low <= 0 && to_high >= 0;
                continue;
            }
            enter = maximum(enter, minimum(to_low * inverse[a], to_high * inverse[a]));
            last = minimum(last, maximum(to_low * inverse[a], to_high * inverse[a]) + step);
        }
        for (int a = 0; a < 3; ++a) hit = hit && o[a] == o[a] && d[a] == d[a];  // not a number: no way to go
        hit = hit && enter < last && last < T(1e30);                            // no direction: no end either
        int64_t count = 0, at = begins ? begins[i] : 0;
        int64_t k = 0;  // of the lattice without cone angle
        T t = first;
        if (!hit) {
            last = first;
        } else if (cone_angle > 0) {
            while (t + maximum(step, t * cone_angle) * T(1.01) < enter) t += maximum(step, t * cone_angle);
        } else {
            k = maximum<int64_t>(0, int64_t((enter - first) / step) - 1);
            t = first + T(k) * step;
        }
        while (true) {
            const T dt = cone_angle > 0 ? maximum(step, t * cone_angle) : step;
            const T mid = t + dt / 2;
            if (!(mid < last)) break;
            T u[3];
            int64_t cell[3];
            T grow = 1;
            int64_t level = 0;
            bool inside = true;
            for (int a = 0; a < 3; ++a) u[a] = o[a] + mid * d[a];
            for (; level < levels; ++level, grow *= 2) {
                inside = true;
                for (int a = 0; a < 3; ++a) inside = inside && abs_(u[a] - centre[a]) <= half[a] * grow;
                if (inside) break;
            }
            T exit = mid;
            if (inside) {
                for (int a = 0; a < 3; ++a) {
                    const T v = level ? (u[a] - centre[a] + half[a] * grow) * (scale[a] / grow) : u[a] * scale[a] + shift[a];
                    cell[a] = clamp<int64_t>(int64_t(v), 0, resolution[a] - 1);
                }
                const int64_t nz8 = (resolution[2] + 7) / 8;
                const int64_t row = (level * resolution[0] + cell[0]) * resolution[1] + cell[1];
                if (bits[row * nz8 + (cell[2] >> 3)] >> (cell[2] & 7) & 1) {
                    if (begins) {
                        t_starts[at] = t;
                        t_ends[at] = t + dt;
                        ray_indices[at] = i;
                        if (positions)
                            for (int a = 0; a < 3; ++a) positions[3 * at + a] = (u[a] - centre[a]) / half[a];
                        ++at;
                    }
                    ++count;
                } else {
                    const int64_t bx = (resolution[0] + 7) / 8, by = (resolution[1] + 7) / 8;
                    const int64_t brick = ((level * bx + cell[0] / kBrick) * by + cell[1] / kBrick) * nz8 + cell[2] / kBrick;
                    const int64_t size = bricks[brick] ? 1 : kBrick;
                    exit = last;
                    for (int a = 0; a < 3; ++a) {
                        if (d[a] == 0) continue;
                        const int64_t edge = cell[a] / size * size + (d[a] > 0 ? size : 0);
                        const T plane = centre[a] - half[a] * grow + T(minimum(edge, resolution[a])) * grow / scale[a];
                        exit = minimum(exit, (plane - o[a]) * inverse[a]);
                    }
                    if (level) {  // finer cells lie within this one where it reaches into the next box
                        T within = mid, beyond = last;
                        for (int a = 0; a < 3; ++a) {
                            if (d[a] == 0) continue;
                            const T low = (centre[a] - half[a] * grow / 2 - o[a]) * inverse[a];
                            const T high = (centre[a] + half[a] * grow / 2 - o[a]) * inverse[a];
                            within = maximum(within, minimum(low, high));
                            beyond = minimum(beyond, maximum(low, high));
                        }
                        if (within < beyond) exit = minimum(exit, within);
                    }
                }
            }
            // The first midpoint not before `exit`, or one before it: rounding must never jump over a sample.
            if (cone_angle > 0) {
                t += dt;
                while (true) {
                    const T next = maximum(step, t * cone_angle);
                    if (!(t + next * T(1.01) < exit)) break;
                    t += next;
                }
            } else {
                const T ahead = (exit - mid) / step - T(0.01);
                k += maximum<int64_t>(1, ahead > 1 ? int64_t(ahead) : 1);
                t = first + T(k) * step;
            }
        }
        if (counts) counts[i] = count;
    }
};

// Packs bool cells into bits and notes which bricks hold any. Item: one brick.
template <class T> struct PackOccupancy {
    const uint8_t* cells;      // (levels, nx, ny, nz) 0 or 1
    uint8_t* bits;             // (levels, nx, ny, ceil(nz / 8))
    uint8_t* bricks;           // (levels, ceil(nx / 8), ceil(ny / 8), ceil(nz / 8))
    int64_t resolution[3];     // cells along x, y, z
    FIELDS_FN void operator()(int64_t item) const {
        const int64_t nx = resolution[0], ny = resolution[1], nz = resolution[2];
        const int64_t bx = (nx + 7) / 8, by = (ny + 7) / 8, bz = (nz + 7) / 8;
        const int64_t z = item % bz, y = item / bz % by, x = item / (bz * by) % bx, level = item / (bz * by * bx);
        uint8_t any = 0;
        for (int64_t cx = x * 8; cx < minimum(nx, x * 8 + 8); ++cx)
            for (int64_t cy = y * 8; cy < minimum(ny, y * 8 + 8); ++cy) {
                const int64_t row = (level * nx + cx) * ny + cy;
                uint8_t byte = 0;
                for (int64_t cz = z * 8; cz < minimum(nz, z * 8 + 8); ++cz)
                    byte |= uint8_t((cells[row * nz + cz] != 0) << (cz & 7));
                bits[row * bz + z] = byte;
                any |= byte;
            }
        bricks[item] = any != 0;
    }
};

}  // namespace fields

FIELDS_KERNEL(march, fields::March, March)
FIELDS_KERNEL(pack_occupancy, fields::PackOccupancy, PackOccupancy)
