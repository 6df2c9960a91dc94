#pragma once

// A residual block of the head: out = x + gate (W2 act(W1 h + b1) + b2), h = modulate(LN(x)).
//
// Each thread owns a slice of the rows for LN and of the outputs for each product, with a barrier
// after LN and after the first product; the last one leaves no barrier behind it. Order of
// operations: layer_norm_modulate.h, linear.h; activation, product and sum rounded each on its own.

#include "layer_norm_modulate.h"
#include "linear.h"
#include "marfast/activation.h"
#include "packed_head.h"

namespace marfast {

// The rows of a block; x and out may be the same.
template <class F>
struct BlockRows {
  float* out;      // [R, out_stride]
  const float* x;  // [R, x_stride]
  const float *shift, *scale, *gate;
  typename F::Element* normed;  // [R, stride], scratch
  typename F::Element* hidden;  // [R, stride], scratch
  int64_t rows, width;
  int64_t out_stride, x_stride, shift_stride, scale_stride, gate_stride, stride;
  HeadOptions options;
  float eps;
};

// `then` is what the caller reads next.
template <class V, class F>
void residual_block(const Team& team, const BlockWeights& weights, const BlockRows<F>& a,
                    const char* then) {
  const Range rows = team.share(a.rows);
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    typename F::Element* normed = a.normed + r * a.stride;
    layer_norm_modulate_row<V>(
        a.x + r * a.x_stride, a.shift + r * a.shift_stride, a.scale + r * a.scale_stride,
        weights.norm_weight, weights.norm_bias, a.width, a.eps,
        [=](int64_t j, int64_t n, V y) { F::store(y.first(n), normed + j); });
  }
  team.barrier();
  const Range in = team.share(weights.in.panel_count), out = team.share(weights.out.panel_count);
  linear<V, F>(weights.in, a.normed, a.stride, a.rows, in, weights.out.panel(out.begin),
               [&](int64_t r, int64_t j, int64_t n, V value) {
                 F::store(activate(value, a.options).first(n), a.hidden + r * a.stride + j);
               });
  team.barrier();
  linear<V, F>(weights.out, a.hidden, a.stride, a.rows, out, then,
               [&](int64_t r, int64_t j, int64_t n, V value) {
                 const V gate = V::load(a.gate + r * a.gate_stride + j, n);
                 const V x = V::load(a.x + r * a.x_stride + j, n);
                 (x + gate * value).store(a.out + r * a.out_stride + j, n);
               });
}

}  // namespace marfast
