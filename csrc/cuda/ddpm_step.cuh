#pragma once

// ddpm_step on a device: csrc/cpu/ddpm_step.h's formula, operation for operation, in float32.
//
// A thread a channel of a token, 256 a block; nothing is shared, and out may be x. Bytes moved and
// floor: as there, N C (12 + 2 s), or N C (12 + 3 s) when guided, over the memory's bandwidth.

#include "cuda/lane.cuh"
#include "cuda/launch_shape.h"
#include "cuda/ptx.cuh"
#include "marfast/exp.h"
#include "marfast/ops.h"

namespace marfast::cuda {

// One channel: eps and v at its place of a row of outputs, x0 (or null) at its own.
template <class T>
__device__ __forceinline__ Lane ddpm_update(Lane x, Lane eps, const T* v, Lane noise, float* x0_at,
                                            StepCoefficients c, const HeadOptions& options) {
  const Lane one(1.0f), half(0.5f);
  Lane x0 = Lane(c.p) * x - Lane(c.q) * eps;
  if (options.clip_denoised) x0 = min(one, max(Lane(-1.0f), x0));
  Lane mean = Lane(c.x0) * x0 + Lane(c.x) * x;
  if (x0_at) {
    mean = mean + Lane(c.previous) * Lane(*x0_at);
    x0.store(x0_at);
  }
  Lane sigma(c.noise);
  if (options.learned_range) {
    const Lane fraction = (Lane::load(v) + one) * half;
    sigma = sigma *
            exp(half * (fraction * Lane(c.log_beta) + (one - fraction) * Lane(c.log_posterior)));
  }
  return mean + sigma * noise * Lane(options.temperature);
}

inline LaunchShape shape_of(const DdpmStep& a) {
  return {ceil_div(a.tokens * a.channels, 256), 1, 256, 0};
}

template <class T>
__global__ void __launch_bounds__(256) ddpm_step(const DdpmStep a) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= a.tokens * a.channels) return;
  const int64_t n = i / a.channels, j = i % a.channels;
  const T* row = static_cast<const T*>(a.model_output) + n * a.model_output_stride;  // [2C]
  Lane eps = Lane::load(row + j);
  if (a.options.branches > 1) {
    const Lane uncond = Lane::load(row + a.tokens * a.model_output_stride + j);
    eps = uncond + Lane(a.guidance[0]) * (eps - uncond);
  }
  ddpm_update(Lane(a.x[n * a.x_stride + j]), eps, row + a.channels + j,
              Lane(a.noise[n * a.noise_stride + j]), a.x0 ? a.x0 + i : nullptr, *a.coefficients,
              a.options)
      .store(a.out + i);
}

}  // namespace marfast::cuda
