// The input of the decoder: features and view direction with sines and cosines of both, frequencies 1, 2, 4, ...
//
//     [f, d, sin f.., cos f.., sin d.., cos d..]      component-major: sin f1, sin 2 f1, ..., sin f2, ...
//
// Item: one number of a sample, its features first, then its direction.
#pragma once
#include "common.h"

namespace fields {

// Where the parts of a row begin.
struct EncodedRow {
    int64_t d, sin_f, cos_f, sin_d, cos_d;
    FIELDS_FN EncodedRow(int64_t width, int64_t frequencies_f, int64_t frequencies_d) {
        d = width;
        sin_f = d + 3;
        cos_f = sin_f + width * frequencies_f;
        sin_d = cos_f + width * frequencies_f;
        cos_d = sin_d + 3 * frequencies_d;
    }
};

template <class T, class Out = OutputAs<T>> struct Encoding {
    const T* features;         // (n, width)
    const T* directions;       // (n, 3)
    Out* encoded;              // (n, row), columns behind the encoding untouched
    const T* grad;             // (n, row) cotangent of encoded
    T* grad_features;          // (n, width)
    T* grad_directions;        // (n, 3)
    int64_t width;             // of the features
    int64_t row;               // of encoded
    int32_t frequencies_f;     // of the features
    int32_t frequencies_d;     // of the direction

    // One number of a sample: its value, and where in a row that, its sines and its cosines are.
    struct Number {
        int64_t i, k, sines, cosines;
        int32_t frequencies;
        T v;
    };
    FIELDS_FN Number number(int64_t item) const {
        const int64_t i = item / (width + 3), k = item % (width + 3), of_d = k - width;
        const EncodedRow begin(width, frequencies_f, frequencies_d);
        if (of_d < 0)
            return {i, k, begin.sin_f + k * frequencies_f, begin.cos_f + k * frequencies_f, frequencies_f, features[i * width + k]};
        return {i, k, begin.sin_d + of_d * frequencies_d, begin.cos_d + of_d * frequencies_d, frequencies_d, directions[3 * i + of_d]};
    }
};

template <class T> struct Encode : Encoding<T> {
    FIELDS_FN void operator()(int64_t item) const {
        const auto at = this->number(item);
        auto* row = this->encoded + at.i * this->row;
        narrow(at.v, row[at.k]);
        T scale = 1;
        for (int32_t f = 0; f < at.frequencies; ++f, scale *= 2) {
            T s, c;
            sincos_(scale * at.v, s, c);
            narrow(s, row[at.sines + f]);
            narrow(c, row[at.cosines + f]);
        }
    }
};

template <class T> struct EncodeBackward : Encoding<T> {
    FIELDS_FN void operator()(int64_t item) const {
        const auto at = this->number(item);
        const T* row = this->grad + at.i * this->row;
        T g = row[at.k], scale = 1;
        for (int32_t f = 0; f < at.frequencies; ++f, scale *= 2) {
            T s, c;
            sincos_(scale * at.v, s, c);
            g += scale * (row[at.sines + f] * c - row[at.cosines + f] * s);
        }
        if (at.k < this->width) this->grad_features[at.i * this->width + at.k] = g;
        else this->grad_directions[3 * at.i + at.k - this->width] = g;
    }
};

}  // namespace fields

FIELDS_KERNEL(encode, fields::Encode, Encoding)
FIELDS_KERNEL(encode_backward, fields::EncodeBackward, Encoding)
