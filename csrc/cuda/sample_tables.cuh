#pragma once

// sample_tables: pointers and zeros into device memory, by one block; a thread a word.

#include "cuda/launch_shape.h"
#include "cuda/ops.h"
#include "cuda/ptx.cuh"

namespace marfast::cuda {

inline LaunchShape shape_of(const SampleTables&) { return {1, 1, SampleTables::kSlots, 0}; }

template <int64_t kSlots>
__global__ void sample_tables(const __grid_constant__ SampleTables a) {
  if (threadIdx.x < a.count) a.weights[a.first + threadIdx.x] = a.values[threadIdx.x];
  for (int64_t i = threadIdx.x; i < a.barrier_count; i += kSlots) a.barriers[i] = 0;
}

}  // namespace marfast::cuda
