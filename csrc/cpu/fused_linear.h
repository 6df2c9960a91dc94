#pragma once

// fused_linear: out = residual + act(LN(x) W^T + b); LN, act = GELU and residual where they are
// asked for. The four products of a transformer block are calls of this.
//
// Order of operations: LayerNorm as layer_norm_modulate.h without its modulation, the product as
// linear.h, GELU as marfast/gelu.h, residual + value last. So the bits of a row depend on no other
// row and on no number of threads.
//
// Threads share the rows (or the outputs, where rows are few) and meet nowhere. Rows are taken some
// at a time, normalised or copied into scratch of the thread's own, of which a block of k stays in
// L2, its rows padded so that they do not fall into the same cache sets; then all panels pass over
// them. Bytes
// moved: x, out and residual once, the weights once for each group of rows. Floor: 2 R J K flops.

#include "layer_norm_modulate.h"
#include "linear.h"
#include "marfast/gelu.h"

namespace marfast {

template <class V, class F>
class FusedLinearThread {
  using Element = typename F::Element;

 public:
  FusedLinearThread(const FusedLinear& a, const Team& team)
      : a_(a),
        layer_(linear_at(a.packed, a.inputs, a.outputs, a.weight_dtype)),
        scratch_(
            reinterpret_cast<Element*>(a.workspace + team.thread * a.group * a.scratch_stride)) {
    const bool share_rows = a.rows >= 2 * F::max_rows * team.threads;
    rows_ = share_rows ? team.share(a.rows) : Range{0, a.rows};
    panels_ = share_rows ? Range{0, layer_.panel_count} : team.share(layer_.panel_count);
  }

  void run() {
    const int64_t size = rows_.end - rows_.begin, parts = (size + a_.group - 1) / a_.group;
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t first = rows_.begin + size * part / parts;
      const int64_t count = rows_.begin + size * (part + 1) / parts - first;
      for (int64_t r = 0; r < count; ++r) prepare(first + r, scratch_ + r * a_.scratch_stride);
      linear<V, F>(layer_, scratch_, a_.scratch_stride, count, panels_, layer_.panel(panels_.begin),
                   [&](int64_t r, int64_t j, int64_t valid, V value) {
                     finish(first + r, j, valid, value);
                   });
    }
  }

 private:
  void prepare(int64_t row, Element* out) const {
    const float* x = a_.x + row * a_.x_stride;
    RowMoments<V> moments(V(0.0f), V(1.0f));
    if (a_.norm_weight) moments = row_moments<V>(x, a_.inputs, a_.eps);
    for (int64_t j = 0; j < a_.inputs; j += V::lanes) {
      const int64_t n = a_.inputs - j < V::lanes ? a_.inputs - j : V::lanes;
      V y = V::load(x + j, n);
      if (a_.norm_weight) {
        y = (y - moments.mean) * moments.rstd * V::load(a_.norm_weight + j, n) +
            V::load(a_.norm_bias + j, n);
      }
      F::store(y.first(n), out + j);
    }
  }

  void finish(int64_t row, int64_t j, int64_t valid, V value) const {
    if (a_.gelu) value = gelu(value);
    if (a_.residual) value = V::load(a_.residual + row * a_.residual_stride + j, valid) + value;
    value.store(a_.out + row * a_.outputs + j, valid);
  }

  const FusedLinear& a_;
  const Linear layer_;
  Element* const scratch_;
  Range rows_, panels_;
};

template <class V, class BFloat16>
void fused_linear(const FusedLinear& a) {
  run_team(a.threads, [&a](const Team& team) {
    a.weight_dtype == DType::bf16 ? FusedLinearThread<V, BFloat16>(a, team).run()
                                  : FusedLinearThread<V, Float32<V>>(a, team).run();
  });
}

}  // namespace marfast
