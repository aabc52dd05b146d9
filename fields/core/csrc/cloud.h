// Clouds of small boxes, each with a CP tensor of its own ("tri-vectors").
//
//     f(x) = sum over boxes b near x of  w_b(x) · sum_r X_br(x) Y_br(y) Z_br(z)
//
// Boxes of one scale are cubes of one size, with one number of knots and one rank; a cloud superposes up to four scales.
// Vectors lie [box][axis][knot][rank]: two neighbouring knots are one contiguous burst of registers.
//
// Values are written on a scalar S: T, or Dual<T> for the derivative along a direction of x, windows included.
//
// The gradient of the vectors is box-centric on a CPU. The forward pass notes which boxes hold which sample; samples are
// sorted by box, in fixed chunks; then each box is one item that adds up its own samples in their order: one owner per
// element, vectors and gradient of a box stay in cache, and the bits do not depend on the number of threads. Boxes that
// hold no sample are zeroed and otherwise left alone. On a GPU nothing is noted, a team does one sample, and adding is
// atomic.
#pragma once
#include "boxes.h"
#include "lanes.h"

namespace fields {

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
            auto* left = a.grad_vectors[s] + spot.left[k] + c;
            add_lanes(left, spot.weight[k][0] * own[k], count, a.fixed_point);
            add_lanes(left + a.rank[s], spot.weight[k][1] * own[k], count, a.fixed_point);
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
        auto* mine = this->grad_vectors[s] + b * size;
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
