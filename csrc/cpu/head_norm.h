#pragma once

// The norms of heads (marfast/reference/head_spec.py), by their moments:
//
//   layer  layer_norm_modulate.h's
//   rms    mean = 0, rstd = 1 / sqrt(sum(x^2) / w + eps)
//   std    mean = 0, rstd = 1 / sqrt(sum((x - mean of x)^2) / (w - 1) + eps)

#include "layer_norm_modulate.h"

namespace marfast {

template <class V>
RowMoments<V> moments_of(Norm norm, const float* x, int64_t w, float eps) {
  if (norm == Norm::layer) return row_moments<V>(x, w, eps);
  const V zero(0.0f), one(1.0f);
  const bool rms = norm == Norm::rms;
  const V squares = row_squares(x, w, rms ? zero : row_mean<V>(x, w));
  const V count(static_cast<float>(rms ? w : w - 1));
  return {zero, one / sqrt(squares / count + V(eps))};
}

}  // namespace marfast
