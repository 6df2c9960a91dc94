#pragma once

// sample_tables: pointers and a zero into device memory, by one block; a thread a word.

#include "cuda/launch_shape.h"
#include "cuda/ops.h"
#include "cuda/ptx.cuh"

namespace marfast::cuda {

inline LaunchShape shape_of(const SampleTables&) { return {1, 1, SampleTables::kSlots, 0}; }

template <int64_t kSlots>
__global__ void __launch_bounds__(kSlots) sample_tables(const __grid_constant__ SampleTables a) {
  if (threadIdx.x < a.count) a.weights[a.first + threadIdx.x] = a.values[threadIdx.x];
  if (threadIdx.x == 0) *a.barrier = 0;
}

}  // namespace marfast::cuda
