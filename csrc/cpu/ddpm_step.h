#pragma once

// ddpm_step: one guided DDPM step of N tokens of C channels, in float32.
//
//   c = coefficients: [0] sqrt(1/abar)  [1] sqrt(1/abar - 1)  [2], [3] posterior mean of x0, of x
//                     [4] log beta      [5] log posterior variance, clipped   [6] 0 at t = 0, else
//                     1
//   eps   = eps_u + guidance (eps_c - eps_u) when guided, else the row's own; v of the first N rows
//   f     = (v + 1) / 2
//   sigma = exp(0.5 (f c4 + (1 - f) c5))
//   x0    = c0 x - c1 eps, clamped to [-1, 1] on request; NaN stays NaN
//   out   = (c2 x0 + c3 x) + ((c6 sigma) noise) temperature
//
// Every product and sum is rounded on its own, in the order written; no FMA outside exp.
// Lanes run across channels of one token, a token's last vector is partial. Nothing is reduced.
// Bytes moved: N C (12 + 2 s), or N C (12 + 3 s) when guided, s = sizeof(model_output's dtype):
// each is touched once, so the floor is that over the memory's bandwidth; at C = 16 exp dominates.

#include "marfast/exp.h"
#include "marfast/ops.h"

namespace marfast {

template <class V, class T>
void ddpm_step_rows(const DdpmStep& a) {
  const V c0(a.coefficients[0]), c1(a.coefficients[1]), c2(a.coefficients[2]);
  const V c3(a.coefficients[3]), c4(a.coefficients[4]), c5(a.coefficients[5]);
  const V c6(a.coefficients[6]), temperature(a.options.temperature);
  const V guidance(a.options.guided ? a.guidance[0] : 0.0f), one(1.0f), half(0.5f);

  for (int64_t row = 0; row < a.tokens; ++row) {
    const float* x_row = a.x + row * a.x_stride;              // [C]
    const float* noise_row = a.noise + row * a.noise_stride;  // [C]
    const T* eps_row = static_cast<const T*>(a.model_output) + row * a.model_output_stride;
    const T* v_row = eps_row + a.channels;                             // [C]
    const T* uncond_row = eps_row + a.tokens * a.model_output_stride;  // [C], when guided
    float* out_row = a.out + row * a.channels;                         // [C]

    for (int64_t j = 0; j < a.channels; j += V::lanes) {
      const int64_t count = a.channels - j < V::lanes ? a.channels - j : V::lanes;
      const V x = V::load(x_row + j, count);
      V eps = V::load(eps_row + j, count);
      if (a.options.guided) {
        const V uncond = V::load(uncond_row + j, count);
        eps = uncond + guidance * (eps - uncond);
      }
      const V fraction = (V::load(v_row + j, count) + one) * half;
      const V log_variance = fraction * c4 + (one - fraction) * c5;
      const V sigma = exp(half * log_variance);

      V x0 = c0 * x - c1 * eps;
      if (a.options.clip_denoised) x0 = min(one, max(V(-1.0f), x0));
      const V mean = c2 * x0 + c3 * x;
      const V noise = c6 * sigma * V::load(noise_row + j, count) * temperature;
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
