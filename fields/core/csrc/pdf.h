// Drawing samples along rays from a cumulative distribution, and searching in sorted edges.
#pragma once
#include "common.h"

namespace fields {

// Splits the range of each ray's distribution into equal strata, puts one sample into each by the inverse of the
// distribution (linear between edges), and bounds the samples halfway between neighbours. Item: one ray.
template <class T> struct ImportanceSampling {
    const T* edges;            // (e) distances, ascending along each ray
    const T* cdfs;             // (e) cumulative distribution at the edges
    const int64_t* given;      // (n, 2) first edge and number of edges of each ray
    const int64_t* drawn;      // (n, 2) first sample and number of samples of each ray
    const int64_t* begins;     // (n) where the bounds of each ray's samples go
    const T* offsets;          // (n) of the samples in their strata, in [0, 1)
    T* samples;                // (m)
    T* bounds;                 // one more per ray than samples

    FIELDS_FN void operator()(int64_t i) const {
        const int64_t first = given[2 * i], last = first + given[2 * i + 1] - 1;
        const int64_t count = drawn[2 * i + 1];
        if (count == 0) return;
        T* out = samples + drawn[2 * i];
        T* between = bounds + begins[i];
        const T low = cdfs[first], stratum = (cdfs[last] - low) / T(count);
        int64_t right = first;  // the first edge above u, but never beyond the last: u ascends, so it only moves on
        for (int64_t k = 0; k < count; ++k) {
            const T u = low + (T(k) + offsets[i]) * stratum;
            while (right < last && cdfs[right] <= u) ++right;
            const int64_t left = maximum(right - 1, first);
            const T rise = cdfs[right] - cdfs[left], length = edges[right] - edges[left];
            out[k] = edges[left] + (rise < T(1e-10) ? length / 2 : (u - cdfs[left]) / rise * length);
        }
        for (int64_t k = 1; k < count; ++k) between[k] = (out[k - 1] + out[k]) / 2;
        if (count == 1) {
            between[0] = edges[first];
            between[1] = edges[last];
        } else {
            between[0] = maximum(out[0] - (out[1] - out[0]) / 2, edges[first]);
            between[count] = minimum(out[count - 1] + (out[count - 1] - out[count - 2]) / 2, edges[last]);
        }
    }
};

// The neighbours left and right of each value among the sorted keys of its ray. Item: one value.
template <class T> struct SearchSorted {
    const T* keys;             // (e) ascending along each ray
    const int64_t* given;      // (n, 2) first key and number of keys of each ray
    const T* values;           // (m)
    const int64_t* rays;       // (m) the ray of each value
    int64_t* left;             // (m) the last key not above the value
    int64_t* right;            // (m) the first key above it

    FIELDS_FN void operator()(int64_t i) const {
        const int64_t first = given[2 * rays[i]], last = first + given[2 * rays[i] + 1] - 1;
        int64_t low = first, high = last;
        while (low < high) {
            const int64_t middle = low + (high - low) / 2;
            if (keys[middle] <= values[i])
                low = middle + 1;
            else
                high = middle;
        }
        left[i] = maximum(low - 1, first);
        right[i] = low;
    }
};

}  // namespace fields

FIELDS_KERNEL(importance_sampling, fields::ImportanceSampling, ImportanceSampling)
FIELDS_KERNEL(search_sorted, fields::SearchSorted, SearchSorted)
