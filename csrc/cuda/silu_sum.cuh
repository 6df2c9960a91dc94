#pragma once

// silu_sum: out[r] = SiLU(time[r / group] + condition[r % period]), rounded to T; a thread an
// element, 256 a block. Bytes moved: R w (8 + s), or R w s where the terms stay in cache; over the
// memory's bandwidth that is the floor.

#include "cuda/launch_shape.h"
#include "cuda/operand.cuh"
#include "cuda/ops.h"
#include "cuda/ptx.cuh"
#include "marfast/silu.h"

namespace marfast::cuda {

inline LaunchShape shape_of(const SiluSum& a) {
  return {ceil_div(a.rows * a.width, 256), 1, 256, 0};
}

template <class T>
__global__ void __launch_bounds__(256) silu_sum(const SiluSum a) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= a.rows * a.width) return;
  const int64_t r = i / a.width, j = i % a.width;
  const Lane time(a.time[r / a.group * a.width + j]);
  const Lane condition(a.condition[r % a.period * a.width + j]);
  store_operand(silu(time + condition), static_cast<T*>(a.out) + i);
}

}  // namespace marfast::cuda
