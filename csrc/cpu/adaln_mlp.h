#pragma once

// adaln_mlp: one residual block of the head (residual_block.h) for any number of rows, some at a
// time, so that what passes between its layers stays in cache. Bytes moved: x, shift, scale, gate
// and out once, 4 * 5 R w; the weights, 2 w^2, once for each group of rows. Floor: the larger of
// that over the bandwidth and 4 R w^2 flops.

#include "residual_block.h"

namespace marfast {

template <class V, class F>
void adaln_mlp_as(const AdalnMlp& a, const Team& team) {
  using Element = typename F::Element;
  BlockWeights weights;
  HeadSpec spec;
  spec.eps = a.eps;
  weights.in = linear_at(a.packed, a.width, a.width, a.weight_dtype);
  weights.out = linear_at(a.packed + packed_size(weights.in), a.width, a.width, a.weight_dtype);
  weights.norm = {a.norm_weight, a.norm_bias};
  const char* then = weights.in.panel(team.share(weights.in.panel_count).begin);
  const int64_t stride = padded(a.width) + kPanel;

  // Groups need no barrier between them: the next one's LN writes `normed`, which nobody reads
  // once all have passed the barrier after the first product.
  for (int64_t first = 0; first < a.rows; first += a.group) {
    const int64_t left = a.rows - first;
    BlockRows<F> rows{};
    rows.out = a.out + first * a.width;
    rows.x = a.x + first * a.x_stride;
    rows.shift = a.shift + first * a.shift_stride;
    rows.scale = a.scale + first * a.scale_stride;
    rows.gate = a.gate + first * a.gate_stride;
    rows.normed = reinterpret_cast<Element*>(a.workspace);
    rows.hidden = reinterpret_cast<Element*>(a.workspace + a.group * stride);
    rows.rows = left < a.group ? left : a.group;
    rows.width = a.width;
    rows.out_stride = a.width;
    rows.x_stride = a.x_stride;
    rows.shift_stride = a.shift_stride;
    rows.scale_stride = a.scale_stride;
    rows.gate_stride = a.gate_stride;
    rows.stride = rows.hidden_stride = stride;
    residual_block<V>(team, spec, weights, rows, then);
  }
}

template <class V, class BFloat16>
void adaln_mlp(const AdalnMlp& a) {
  run_team(a.threads, [&a](const Team& team) {
    a.weight_dtype == DType::bf16 ? adaln_mlp_as<V, BFloat16>(a, team)
                                  : adaln_mlp_as<V, Float32<V>>(a, team);
  });
}

}  // namespace marfast
