#pragma once

// layer_norm_modulate: LayerNorm over rows of width w, then adaLN's modulation, in float32.
//
//   m    = sum(x) / w
//   mean = m + sum(x - m) / w
//   rstd = 1 / sqrt(sum((x - mean)^2) / w + eps)
//   out  = (((x - mean) rstd) weight + bias) (1 + scale) + shift
//
// The factor weight and the term bias are left out where there is none. Every product, sum,
// quotient and root is rounded on its own, in the order written; no FMA. Sums run as lane_sum.h
// says; lanes run across the row, a row's last vector is partial. bf16 and f16 are read to float32
// exactly and written by rounding to nearest even. Four passes over a row, the later
// three from cache; the second takes back what rounding the first sum did to the mean, so that a
// row of one value gives 0. Bytes moved: 4 R w s (x, shift, scale, out) + 2 w s, s = sizeof(dtype),
// which over the memory's bandwidth is the floor.

#include "lane_sum.h"
#include "marfast/ops.h"

namespace marfast {

template <class V>
struct RowMoments {
  RowMoments(V mean_, V rstd_) : mean(mean_), rstd(rstd_) {}
  V mean, rstd;
};

template <class V, class T>
V row_mean(const T* x, int64_t w) {
  const V width(static_cast<float>(w));
  const float sum = lane_sum<V>(w, [=](int64_t j, int64_t n) { return V::load(x + j, n); });
  const V m = V(sum) / width;
  const float rest =
      lane_sum<V>(w, [=](int64_t j, int64_t n) { return (V::load(x + j, n) - m).first(n); });
  return m + V(rest) / width;
}

// sum((x - mean)^2)
template <class V, class T>
V row_squares(const T* x, int64_t w, V mean) {
  return V(lane_sum<V>(w, [=](int64_t j, int64_t n) {
    const V centred = (V::load(x + j, n) - mean).first(n);
    return centred * centred;
  }));
}

template <class V, class T>
RowMoments<V> row_moments(const T* x, int64_t w, float eps) {
  const V one(1.0f), width(static_cast<float>(w)), mean = row_mean<V>(x, w);
  return {mean, one / sqrt(row_squares(x, w, mean) / width + V(eps))};
}

// One row by its moments; x [w]; weight, bias [w] or null. Each `count` results from j on are
// handed to write(j, count, value).
template <class V, class T, class Write>
void normalise_row(const RowMoments<V>& moments, const T* x, const T* weight, const T* bias,
                   int64_t w, Write write) {
  for (int64_t j = 0; j < w; j += V::lanes) {
    const int64_t n = w - j < V::lanes ? w - j : V::lanes;
    V y = (V::load(x + j, n) - moments.mean) * moments.rstd;
    if (weight) y = y * V::load(weight + j, n);
    if (bias) y = y + V::load(bias + j, n);
    write(j, n, y);
  }
}

// The same, modulated; shift, scale [w].
template <class V, class T, class Write>
void normalise_modulate_row(const RowMoments<V>& moments, const T* x, const T* shift,
                            const T* scale, const T* weight, const T* bias, int64_t w,
                            Write write) {
  normalise_row(moments, x, weight, bias, w, [=](int64_t j, int64_t n, V y) {
    write(j, n, y * (V(1.0f) + V::load(scale + j, n)) + V::load(shift + j, n));
  });
}

template <class V, class T>
void layer_norm_modulate_rows(const LayerNormModulate& a) {
  const T* weight = static_cast<const T*>(a.weight);
  const T* bias = static_cast<const T*>(a.bias);
  for (int64_t row = 0; row < a.rows; ++row) {
    const T* x = static_cast<const T*>(a.x) + row * a.x_stride;
    const T* shift = static_cast<const T*>(a.shift) + row * a.shift_stride;
    const T* scale = static_cast<const T*>(a.scale) + row * a.scale_stride;
    T* out = static_cast<T*>(a.out) + row * a.width;
    normalise_modulate_row(row_moments<V>(x, a.width, a.eps), x, shift, scale, weight, bias,
                           a.width, [=](int64_t j, int64_t n, V y) { y.store(out + j, n); });
  }
}

template <class V, class>
void layer_norm_modulate(const LayerNormModulate& a) {
  switch (a.dtype) {
    case DType::f32:
      return layer_norm_modulate_rows<V, float>(a);
    case DType::bf16:
      return layer_norm_modulate_rows<V, bfloat16>(a);
    case DType::f16:
      return layer_norm_modulate_rows<V, float16>(a);
  }
}

}  // namespace marfast
