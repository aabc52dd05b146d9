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

    // Where number k of a sample has its value, and its sines and cosines.
    FIELDS_FN void place(int64_t k, int64_t& at, int64_t& sines, int64_t& cosines, int32_t& frequencies) const {
        const EncodedRow begin(width, frequencies_f, frequencies_d);
        at = k;
        frequencies = k < width ? frequencies_f : frequencies_d;
        sines = k < width ? begin.sin_f + k * frequencies_f : begin.sin_d + (k - width) * frequencies_d;
        cosines = k < width ? begin.cos_f + k * frequencies_f : begin.cos_d + (k - width) * frequencies_d;
    }
};

template <class T> struct Encode : Encoding<T> {
    FIELDS_FN void operator()(int64_t item) const {
        const int64_t i = item / (this->width + 3), k = item % (this->width + 3);
        const T v = k < this->width ? this->features[i * this->width + k] : this->directions[3 * i + k - this->width];
        int64_t at, sines, cosines;
        int32_t frequencies;
        this->place(k, at, sines, cosines, frequencies);
        auto* row = this->encoded + i * this->row;
        narrow(v, row[at]);
        T angle = v;
        for (int32_t f = 0; f < frequencies; ++f, angle *= 2) {
            T s, c;
            sincos_(angle, s, c);
            narrow(s, row[sines + f]);
            narrow(c, row[cosines + f]);
        }
    }
};

template <class T> struct EncodeBackward : Encoding<T> {
    FIELDS_FN void operator()(int64_t item) const {
        const int64_t i = item / (this->width + 3), k = item % (this->width + 3);
        const T v = k < this->width ? this->features[i * this->width + k] : this->directions[3 * i + k - this->width];
        int64_t at, sines, cosines;
        int32_t frequencies;
        this->place(k, at, sines, cosines, frequencies);
        const T* row = this->grad + i * this->row;
        T g = row[at], scale = 1;
        for (int32_t f = 0; f < frequencies; ++f, scale *= 2) {
            T s, c;
            sincos_(scale * v, s, c);
            g += scale * (row[sines + f] * c - row[cosines + f] * s);
        }
        if (k < this->width) this->grad_features[i * this->width + k] = g;
        else this->grad_directions[3 * i + k - this->width] = g;
    }
};

}  // namespace fields

FIELDS_KERNEL(encode, fields::Encode, Encoding)
FIELDS_KERNEL(encode_backward, fields::EncodeBackward, Encoding)
