// Marching rays through an occupancy grid.
//
// Every ray has a lattice of intervals of its own: the first begins at t_min, each is `step` long, or cone_angle times
// its distance where that is longer. An interval becomes a sample if its midpoint is nearer than t_max and lies in an
// occupied cell. The lattice never shifts, so skipping is only a matter of speed: every cell knows how many cells
// around it are empty in all directions, its clearance, and the walk goes on at the first midpoint behind those,
// taking care to err on the near side.
//
// Grids are nested: level l covers the box scaled by 2^l about its centre, and a point belongs to the innermost level
// that holds it.
//
// Item: one ray. `march_count` walks and counts the samples, noting the runs of consecutive ones; `march_write`, when
// the places of the samples are known, follows the runs, or walks again where there were too many to note.
#pragma once
#include "common.h"

namespace fields {

constexpr int kReach = 16;  // the largest clearance
constexpr int kAhead = 16;  // intervals behind a sample that are looked at together
constexpr int kRuns = 8;

template <class T> struct MarchArgs {
    const T* rays_o;           // (n, 3)
    const T* rays_d;           // (n, 3)
    const T* t_min;            // (n)
    const T* t_max;            // (n)
    const T* aabb;             // (6) box of level 0
    const uint8_t* clearance;  // (levels, nx, ny, nz) 0: occupied; c: all cells less than c away are empty
    int64_t* counts;           // (n) samples of each ray
    T* run_starts;             // (n, 8) where each run of samples begins
    int32_t* run_lengths;      // (n, 8) how many samples it has; 0 behind the last, -1 first if there are more than 8
    const int64_t* begins;     // (n) where each ray's samples go
    T* t_starts;               // (samples)
    T* t_ends;                 // (samples)
    int64_t* ray_indices;      // (samples)
    T* positions;              // (samples, 3) midpoints, normalised to [-1, 1] over the box of level 0; or null
    T* t_stops;                // (n) where each ray's walk ended
    int64_t limit;             // samples per ray at most
    int64_t levels;            // nested grids
    int64_t resolution[3];     // cells along x, y, z
    T step;                    // shortest interval
    T cone_angle;              // interval per distance

};

template <class T> struct March : MarchArgs<T> {
    // Ray i in [-1, 1] over the box of level 0.
    FIELDS_FN void normalised(int64_t i, T* origin, T* along) const {
        for (int a = 0; a < 3; ++a) {
            const T scale = 2 / (this->aabb[3 + a] - this->aabb[a]);
            origin[a] = (this->rays_o[3 * i + a] - this->aabb[a]) * scale - 1;
            along[a] = this->rays_d[3 * i + a] * scale;
        }
    }

    // Calls sample(t, dt) for the samples of ray i in order, as long as it returns true; returns where the walk ends.
    template <class Sample> FIELDS_FN T walk(int64_t i, Sample&& sample) const {
        const auto& resolution = this->resolution;
        const auto& aabb = this->aabb;
        const T step = this->step, cone_angle = this->cone_angle;
        const int64_t levels = this->levels;
        // In units of the cells of level 0, the ray is at begin + t·speed, and all levels are centred on `middle`.
        T begin[3], speed[3], pace[3], still[3], middle[3];
        bool forward[3];
        // Only between entering and leaving the outermost box, give or take an interval, is there anything to find.
        const T outermost = T(int64_t(1) << (levels - 1));
        T first = this->t_min[i], enter = first, last = this->t_max[i];
        bool hit = true;
        for (int a = 0; a < 3; ++a) {
            const T per_length = T(resolution[a]) / (aabb[3 + a] - aabb[a]);
            begin[a] = (this->rays_o[3 * i + a] - aabb[a]) * per_length;
            speed[a] = this->rays_d[3 * i + a] * per_length;
            middle[a] = T(resolution[a]) / 2;
            forward[a] = speed[a] > 0;
            pace[a] = speed[a] == 0 ? 0 : 1 / speed[a];
            still[a] = speed[a] == 0 ? T(1e30) : T(0);
            hit = hit && begin[a] == begin[a] && speed[a] == speed[a];  // not a number: no way to go
            const T reach = middle[a] * outermost, to_middle = middle[a] - begin[a];
            if (speed[a] == 0) {
                hit = hit && abs_(to_middle) <= reach;
            } else {
                const T one = (to_middle - reach) * pace[a], other = (to_middle + reach) * pace[a];
                enter = maximum(enter, minimum(one, other));
                last = minimum(last, maximum(one, other) + step);
            }
        }
        hit = hit && enter < last && last < T(1e30);  // no direction: no end either
        const T per_step = 1 / step;
        int64_t count = 0;
        int64_t k = 0;  // of the lattice without cone angle
        T t = first;
        if (!hit) {
            last = first;
        } else if (cone_angle > 0) {
            while (t + maximum(step, t * cone_angle) * T(0.51) < enter) t += maximum(step, t * cone_angle);
        } else {
            k = maximum<int64_t>(0, int64_t((enter - first) * per_step - T(0.51)));
            t = first + T(k) * step;
        }
        // Samples come in runs. Of intervals of equal length, a CPU finds the cells of many in one go; their numbers
        // must fit 32 bits.
#ifdef __CUDACC__
        const bool together = false;
#else
        const bool together = levels == 1 && cone_angle == 0 && resolution[0] * resolution[1] * resolution[2] < 1 << 30;
#endif
        while (count < this->limit) {
            const T dt = cone_angle > 0 ? maximum(step, t * cone_angle) : step;
            const T mid = t + dt / 2;
            if (!(mid < last)) break;
            T v[3], grow = 1;
            for (int a = 0; a < 3; ++a) v[a] = begin[a] + mid * speed[a];
            int64_t level = 0;
            bool inside = true;
            for (; level < levels; ++level, grow *= 2) {
                inside = true;
                for (int a = 0; a < 3; ++a) inside = inside & (abs_(v[a] - middle[a]) <= middle[a] * grow);
                if (inside) break;
            }
            T exit = mid;
            if (inside) {
                int64_t cell[3];
                for (int a = 0; a < 3; ++a) {
                    const T in_level = level ? (v[a] - middle[a]) / grow + middle[a] : v[a];
                    cell[a] = clamp<int64_t>(int64_t(in_level), 0, resolution[a] - 1);
                }
                const int64_t row = (level * resolution[0] + cell[0]) * resolution[1] + cell[1];
                const int64_t clear = this->clearance[row * resolution[2] + cell[2]];
                if (clear == 0) {
                    if (!sample(t, dt)) return t + dt;
                    ++count;
                    if (together) {
                        const T now = T(k);
                        int32_t next[kAhead];
                        for (int j = 0; j < kAhead; ++j) {
                            const T at = first + (now + T(1 + j)) * step + step / 2;
                            bool there = at < last;
                            int32_t number = 0;
                            for (int a = 0; a < 3; ++a) {
                                const T w = begin[a] + at * speed[a];
                                there = there & (abs_(w - middle[a]) <= middle[a]);
                                const int32_t cells = int32_t(resolution[a]);
                                number = number * cells + int32_t(clamp(w, T(0), T(cells - 1)));
                            }
                            next[j] = there ? number : -1;
                        }
                        int32_t more = 0;
                        while (more < kAhead && count < this->limit && next[more] >= 0 && this->clearance[next[more]] == 0) {
                            ++more;
                            ++count;
                            const T at = first + T(k + more) * step;
                            if (!sample(at, step)) return at + step;
                        }
                        k += more;
                    }
                } else {
                    exit = last;
                    for (int a = 0; a < 3; ++a) {
                        const int64_t edge = forward[a] ? minimum(cell[a] + clear, resolution[a])
                                                        : maximum<int64_t>(cell[a] - clear + 1, 0);
                        const T plane = level ? (T(edge) - middle[a]) * grow + middle[a] : T(edge);
                        exit = minimum(exit, (plane - begin[a]) * pace[a] + still[a]);
                    }
                    if (level) {  // finer cells lie within this one where it reaches into the next box
                        T within = mid, beyond = last;
                        for (int a = 0; a < 3; ++a) {
                            if (speed[a] == 0) continue;
                            const T reach = middle[a] * grow / 2, to_middle = middle[a] - begin[a];
                            const T one = (to_middle - reach) * pace[a], other = (to_middle + reach) * pace[a];
                            within = maximum(within, minimum(one, other));
                            beyond = minimum(beyond, maximum(one, other));
                        }
                        if (within < beyond) exit = minimum(exit, within);
                    }
                }
            }
            // On to the first midpoint not before `exit`, with a hundredth of an interval in hand for rounding.
            if (cone_angle > 0) {
                t += dt;
                while (true) {
                    const T next = maximum(step, t * cone_angle);
                    if (!(t + next * T(0.51) < exit)) break;
                    t += next;
                }
            } else {
                const T ahead = (exit - mid) * per_step - T(0.01);
                k += ahead > 0 ? int64_t(ahead) + 1 : 1;
                t = first + T(k) * step;
            }
        }
        return t;
    }
};

template <class T> struct MarchCount : March<T> {
    FIELDS_FN void operator()(int64_t i) const {
        T* starts = this->run_starts + i * kRuns;
        int32_t* lengths = this->run_lengths + i * kRuns;
        int64_t count = 0;
        int runs = 0;
        T end = 0;
        this->t_stops[i] = this->walk(i, [&](T t, T dt) FIELDS_INLINE {
            if (!count++ || t - end > dt / 2) {
                if (runs < kRuns) {
                    starts[runs] = t;
                    lengths[runs] = 0;
                }
                ++runs;
            }
            if (runs <= kRuns) ++lengths[runs - 1];
            end = t + dt;
            return true;
        });
        if (runs < kRuns) lengths[runs] = 0;
        if (runs > kRuns) lengths[0] = -1;
        this->counts[i] = count;
    }
};

// Item: a ray, which a team of GPU threads shares.
template <class T> struct MarchWrite : March<T> {
    FIELDS_FN void operator()(int64_t i) const {
        int64_t at = this->begins[i];
        const int64_t end = at + this->counts[i];
        T origin[3], along[3];
        this->normalised(i, origin, along);
        const auto write = [&](int64_t at, T t, T dt) FIELDS_INLINE {
            this->t_starts[at] = t;
            this->t_ends[at] = t + dt;
            this->ray_indices[at] = i;
            for (int a = 0; a < 3; ++a) this->positions[3 * at + a] = origin[a] + (t + dt / 2) * along[a];
        };
        const T* starts = this->run_starts + i * kRuns;
        const int32_t* lengths = this->run_lengths + i * kRuns;
        if (lengths[0] < 0) {
            if (lane() != 0) return;
            // Compiled apart from the counting walk, this one may round a sample in or out: the count holds.
            this->walk(i, [&](T t, T dt) FIELDS_INLINE {
                if (at == end) return false;
                write(at++, t, dt);
                return true;
            });
            while (at < end) write(at++, this->t_max[i], T(0));
            return;
        }
        const T step = this->step, first = this->t_min[i];
        for (int run = 0; run < kRuns && lengths[run] && at < end; ++run) {
            const int64_t count = minimum<int64_t>(lengths[run], end - at);
            if (this->cone_angle > 0) {
                T t = starts[run];
                for (int64_t j = 0; j < count; ++j) {
                    const T dt = maximum(step, t * this->cone_angle);
                    if (lane() == 0) write(at + j, t, dt);
                    t += dt;
                }
            } else {
                const int64_t k = int64_t((starts[run] - first) / step + T(0.5));
                for (int64_t j = lane(); j < count; j += kTeam) write(at + j, first + T(k + j) * step, step);
            }
            at += count;
        }
    }
};

// One axis of the clearance: the chessboard distance to the nearest occupied cell is separable, so that three passes
// each look along one axis only. Item: one row of cells along z.
template <class T> struct Clearance {
    const uint8_t* given;      // (levels · nx, ny, nz): occupied or not before the first pass, then the pass before
    uint8_t* clearance;        // the same shape
    int64_t resolution[3];     // cells along x, y, z
    int64_t axis;              // that this pass looks along: 2 first, which takes the occupancy
    FIELDS_FN void operator()(int64_t row) const {
        const int64_t nx = resolution[0], ny = resolution[1], nz = resolution[2];
        const uint8_t* own = given + row * nz;
        uint8_t* out = clearance + row * nz;
        if (axis == 2) {
            for (int64_t z = 0; z < nz; ++z) out[z] = own[z] ? 0 : kReach;
            for (int64_t z = 1; z < nz; ++z) out[z] = minimum<uint8_t>(out[z], uint8_t(out[z - 1] + 1));
            for (int64_t z = nz - 2; z >= 0; --z) out[z] = minimum<uint8_t>(out[z], uint8_t(out[z + 1] + 1));
            return;
        }
        const int64_t at = axis == 1 ? row % ny : row / ny % nx, n = axis == 1 ? ny : nx, stride = axis == 1 ? nz : ny * nz;
        for (int64_t z = 0; z < nz; ++z) out[z] = own[z];
        for (int o = 1; o < kReach; ++o)
            for (int side = -o; side <= o; side += 2 * o) {
                if (at + side < 0 || at + side >= n) continue;
                const uint8_t* other = own + side * stride;
                for (int64_t z = 0; z < nz; ++z) out[z] = minimum(out[z], maximum(other[z], uint8_t(o)));
            }
    }
};

}  // namespace fields

FIELDS_KERNEL(march_count, fields::MarchCount, MarchArgs)
FIELDS_KERNEL(march_write, fields::MarchWrite, MarchArgs)
FIELDS_KERNEL(clearance, fields::Clearance, Clearance)
