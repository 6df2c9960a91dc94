#pragma once

// silu_sum: out[r] = SiLU(a[r / group] + b[r % period]), rounded to T; a thread an element, 256 a
// block. Bytes moved: R w (8 + s), or R w s where a and b stay in cache; over the memory's
// bandwidth that is the floor.

#include "cuda/lane.cuh"
#include "cuda/launch_shape.h"
#include "cuda/ops.h"
#include "cuda/ptx.cuh"
#include "marfast/silu.h"

namespace marfast::cuda {

inline LaunchShape shape_of(const SiluSum& a) {
  return {ceil_div(a.rows * a.width, 256), 1, 256, 0};
}

template <class T>
__global__ void silu_sum(const SiluSum args) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= args.rows * args.width) return;
  const int64_t r = i / args.width, j = i % args.width;
  const Lane a(args.a[r / args.group * args.width + j]);
  silu(a + Lane(args.b[r % args.period * args.width + j])).store(static_cast<T*>(args.out) + i);
}

}  // namespace marfast::cuda
