#pragma once

// A factor of a product of T. Past float16's range it is the largest float16, for an infinity would
// be NaN after the next LayerNorm; NaN stays NaN.

#include "cuda/lane.cuh"

namespace marfast::cuda {

template <class T>
__device__ __forceinline__ Lane in_range(Lane y, T) {
  return y;
}
__device__ __forceinline__ Lane in_range(Lane y, float16) {
  return min(Lane(65504.0f), max(Lane(-65504.0f), y));
}

// What a library's product may have made infinite.
template <class T>
__device__ __forceinline__ Lane load_in_range(const T* p) {
  return in_range(Lane::load(p), T{});
}

template <class T>
__device__ __forceinline__ void store_operand(Lane y, T* out) {
  in_range(y, T{}).store(out);
}

}  // namespace marfast::cuda
