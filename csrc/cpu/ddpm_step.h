#pragma once

// ddpm_step: one guided sampling step of N tokens of C channels, in float32.
//
//   c = coefficients, a row of the sampler's table
//   eps   = eps_u + guidance (eps_c - eps_u) when guided, else the row's own; v of the first N rows
//           of three branches (eps_u2 + guidance_2 (eps_u1 - eps_u2)) + guidance (eps_c - eps_u1)
//   x0    = c.p x - c.q eps, clamped to [-1, 1] on request; NaN stays NaN; or clamped to [-s, s]
//           and divided by s, the larger of 1 and a quantile of the token's |x0| (threshold.h)
//   f     = (v + 1) / 2
//   sigma = c.noise exp(0.5 (f c.log_beta + (1 - f) c.log_posterior)), or c.noise alone
//   mean  = c.x0 x0 + c.x x, and c.previous x0' after them where x0', the step before's, is given
//   out   = mean + (sigma noise) temperature
//
// Every product and sum is rounded on its own, in the order written; no FMA outside exp.
// Lanes run across channels of one token, a token's last vector is partial. Nothing is reduced but
// for s, for which the token's |x0| are computed once before, into out.
// Bytes moved: N C (12 + 2 s), or N C (12 + 3 s) when guided, s = sizeof(model_output's dtype), s
// less without v, 8 more with x0': each is touched once, so the floor is that over the memory's
// bandwidth; at C = 16 exp dominates.

#include "marfast/exp.h"
#include "marfast/ops.h"
#include "threshold.h"

namespace marfast {

// x0 of channels j ... j + count - 1 of a token, whose x and eps are x_row and eps_row.
template <class V, class T>
V predicted_x0(const DdpmStep& a, const StepCoefficients& c, V x, const T* eps_row, int64_t j,
               int64_t count) {
  const int64_t between = a.tokens * a.model_output_stride, last = a.options.branches - 1;
  V after = V::load(eps_row + last * between + j, count), eps = after;
  for (int64_t branch = last - 1; branch >= 0; --branch) {
    const V here = V::load(eps_row + branch * between + j, count);
    eps = eps + V(a.guidance[branch]) * (here - after);
    after = here;
  }
  return V(c.p) * x - V(c.q) * eps;
}

template <class V, class T>
float threshold(const DdpmStep& a, const StepCoefficients& c, const float* x_row, const T* eps_row,
                float* sizes) {
  for (int64_t j = 0; j < a.channels; j += V::lanes) {
    const int64_t count = a.channels - j < V::lanes ? a.channels - j : V::lanes;
    const V x0 = predicted_x0(a, c, V::load(x_row + j, count), eps_row, j, count);
    max(x0, V(0.0f) - x0).store(sizes + j, count);
  }
  return threshold_of(sizes, a.channels, a.options.dynamic_threshold);
}

template <class V, class T>
void ddpm_step_rows(const DdpmStep& a) {
  const StepCoefficients c = *a.coefficients;
  const V temperature(a.options.temperature);
  const V one(1.0f), half(0.5f);
  const bool thresholded = a.options.dynamic_threshold != 0.0f && a.channels > 0;

  for (int64_t row = 0; row < a.tokens; ++row) {
    const float* x_row = a.x + row * a.x_stride;              // [C]
    const float* noise_row = a.noise + row * a.noise_stride;  // [C]
    const T* eps_row = static_cast<const T*>(a.model_output) + row * a.model_output_stride;
    const T* v_row = eps_row + a.channels;                     // [C], of a learned range
    float* x0_row = a.x0 ? a.x0 + row * a.channels : nullptr;  // [C]
    float* out_row = a.out + row * a.channels;                 // [C]
    const V limit(thresholded ? threshold<V>(a, c, x_row, eps_row, out_row) : 1.0f);

    for (int64_t j = 0; j < a.channels; j += V::lanes) {
      const int64_t count = a.channels - j < V::lanes ? a.channels - j : V::lanes;
      const V x = V::load(x_row + j, count);
      V x0 = predicted_x0(a, c, x, eps_row, j, count);
      if (thresholded) x0 = min(limit, max(V(0.0f) - limit, x0)) / limit;
      if (a.options.clip_denoised) x0 = min(one, max(V(-1.0f), x0));
      V mean = V(c.x0) * x0 + V(c.x) * x;
      if (x0_row) {
        mean = mean + V(c.previous) * V::load(x0_row + j, count);
        x0.store(x0_row + j, count);
      }
      V sigma(c.noise);
      if (a.options.learned_range) {
        const V fraction = (V::load(v_row + j, count) + one) * half;
        const V log_variance = fraction * V(c.log_beta) + (one - fraction) * V(c.log_posterior);
        sigma = sigma * exp(half * log_variance);
      }
      const V noise = sigma * V::load(noise_row + j, count) * temperature;
      (mean + noise).store(out_row + j, count);
    }
  }
}

template <class V, class>
void ddpm_step(const DdpmStep& a) {
  switch (a.model_output_dtype) {
    case DType::f32:
      return ddpm_step_rows<V, float>(a);
    case DType::bf16:
      return ddpm_step_rows<V, bfloat16>(a);
    case DType::f16:
      return ddpm_step_rows<V, float16>(a);
  }
}

}  // namespace marfast
