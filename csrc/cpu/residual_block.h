#pragma once

// A residual block of the head: out = x + gate (W2 act(W1 h + b1) + b2), h = modulate(norm(x)), of
// MAR or of another spec (marfast/reference/head_spec.py).
//
// Each thread owns a slice of the rows for the norm and of the outputs for each product, with a
// barrier after the norm and after the first product; the last one leaves no barrier behind it.
// A norm after the MLP is each thread's rows' again, after one barrier more. Order of operations:
// head_norm.h, linear.h; activation, product and sum rounded each on its own.

#include "head_norm.h"
#include "linear.h"
#include "marfast/gelu.h"
#include "marfast/silu.h"
#include "packed_head.h"

namespace marfast {

// The rows of a block; x and out may be the same.
template <class F>
struct BlockRows {
  float* out;      // [R, out_stride]
  const float* x;  // [R, x_stride]
  const float *shift, *scale, *gate;
  typename F::Element* normed;  // [R, stride] of 4 bytes, scratch
  typename F::Element* hidden;  // [R, hidden_stride], scratch
  int64_t rows, width;
  int64_t out_stride, x_stride, shift_stride, scale_stride, gate_stride, stride, hidden_stride;
};

// W1 and its activation, of the panels `own` -> hidden.
template <class V, class F>
void activated_product(const Linear& layer, Activation activation, const BlockRows<F>& a, Range own,
                       const char* then) {
  const auto store = [&](auto act) {
    linear<V, F>(layer, a.normed, a.stride, a.rows, own, then,
                 [&](int64_t r, int64_t j, int64_t n, V value) {
                   F::store(act(value).first(n), a.hidden + r * a.hidden_stride + j);
                 });
  };
  switch (activation) {
    case Activation::silu:
      return store([](V value) { return silu(value); });
    case Activation::gelu:
      return store([](V value) { return gelu(value); });
    case Activation::swiglu:
      return linear_pairs<V, F>(layer, a.normed, a.stride, a.rows, own, then,
                                [&](int64_t r, int64_t j, V gate, V value) {
                                  F::store(silu(gate) * value, a.hidden + r * a.hidden_stride + j);
                                });
  }
}

// `then` is what the caller reads next.
template <class V, class F>
void residual_block(const Team& team, const HeadSpec& spec, const BlockWeights& weights,
                    const BlockRows<F>& a, const char* then) {
  const Range rows = team.share(a.rows);
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    const float* x = a.x + r * a.x_stride;
    typename F::Element* normed = a.normed + r * a.stride;
    normalise_modulate_row(moments_of<V>(spec.norm, x, a.width, spec.eps), x,
                           a.shift + r * a.shift_stride, a.scale + r * a.scale_stride,
                           weights.norm.weight, weights.norm.bias, a.width,
                           [=](int64_t j, int64_t n, V y) { F::store(y.first(n), normed + j); });
  }
  team.barrier();
  const Range in = team.share(weights.in.panel_count), out = team.share(weights.out.panel_count);
  activated_product<V, F>(weights.in, spec.activation, a, in, weights.out.panel(out.begin));
  team.barrier();
  const auto end = [&](int64_t r, int64_t j, int64_t n, V value) {
    const V gate = V::load(a.gate + r * a.gate_stride + j, n);
    const V x = V::load(a.x + r * a.x_stride + j, n);
    (x + gate * value).store(a.out + r * a.out_stride + j, n);
  };
  if (!spec.norm_after) {
    return linear<V, F>(weights.out, a.hidden, a.hidden_stride, a.rows, out, then, end);
  }
  float* const after = reinterpret_cast<float*>(a.normed);  // nobody reads it any more
  linear<V, F>(
      weights.out, a.hidden, a.hidden_stride, a.rows, out, then,
      [&](int64_t r, int64_t j, int64_t n, V value) { value.store(after + r * a.stride + j, n); });
  team.barrier();
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    const float* y = after + r * a.stride;
    normalise_row(moments_of<V>(spec.norm, y, a.width, spec.eps_after), y, weights.after.weight,
                  weights.after.bias, a.width,
                  [&](int64_t j, int64_t n, V value) { end(r, j, n, value); });
  }
}

}  // namespace marfast
