// Rays against boxes.
#pragma once
#include "common.h"

namespace fields {

// The slab test. A ray parallel to a pair of planes divides by zero: the infinities order themselves correctly, except
// that 0 * inf is not a number when the origin lies on a plane; such a slab is decided by comparing the origin.
template <class T> struct RayAabb {
    const T* rays_o;           // (n, 3)
    const T* rays_d;           // (n, 3)
    const T* aabbs;            // (m, 6) lowest, highest corner
    T* t_mins;                 // (n, m)
    T* t_maxs;                 // (n, m)
    uint8_t* hits;             // (n, m)
    int64_t m;                 // boxes
    T near_plane;              // nothing starts before this distance
    T far_plane;               // or ends after this one
    T miss_value;              // for both distances of a miss
    FIELDS_FN void operator()(int64_t i) const {
        for (int64_t b = 0; b < m; ++b) {
            T lo = near_plane, hi = far_plane;
            bool hit = true;
            for (int a = 0; a < 3; ++a) {
                const T o = rays_o[3 * i + a], d = rays_d[3 * i + a];
                const T low = aabbs[6 * b + a], high = aabbs[6 * b + 3 + a];
                if (d == 0) {
                    hit = hit && o >= low && o <= high;
                    continue;
                }
                const T inverse = 1 / d, t0 = (low - o) * inverse, t1 = (high - o) * inverse;
                lo = maximum(lo, minimum(t0, t1));
                hi = minimum(hi, maximum(t0, t1));
            }
            hit = hit && hi > lo;
            t_mins[i * m + b] = hit ? lo : miss_value;
            t_maxs[i * m + b] = hit ? hi : miss_value;
            hits[i * m + b] = hit;
        }
    }
};

}  // namespace fields

FIELDS_KERNEL(ray_aabb, fields::RayAabb, RayAabb)
