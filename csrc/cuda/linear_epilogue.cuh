#pragma once

// linear_epilogue: epilogue.cuh of a product that a library computed, whose sums past float16's
// range are the largest float16. A block takes 1,024 outputs of a row, 256 threads four each. Bytes
// moved: R J (2 s), or R J (2 s + 8) with gate and residual; over the memory's bandwidth that is
// the floor.

#include "cuda/epilogue.cuh"
#include "cuda/launch_shape.h"
#include "cuda/ptx.cuh"

namespace marfast::cuda {

struct ProductRows {
  static constexpr int kOutputs = 1024, kThreads = 256;

  static LaunchShape shape_of(const LinearEpilogue& a) {
    return {static_cast<uint32_t>(a.rows) * ceil_div(a.outputs, kOutputs), 1, kThreads, 0};
  }
};

template <class T, class Gate>
__global__ void __launch_bounds__(256) linear_epilogue(const LinearEpilogue a) {
  constexpr int kOutputs = ProductRows::kOutputs, kThreads = ProductRows::kThreads;
  const uint32_t parts = ceil_div(a.outputs, kOutputs);
  const int64_t r = blockIdx.x / parts, first = int64_t{blockIdx.x % parts} * kOutputs;
  const int64_t end = first + kOutputs < a.outputs ? first + kOutputs : a.outputs;
  const T* product = static_cast<const T*>(a.product) + r * a.product_stride;
  for (int64_t j = first + threadIdx.x; j < end; j += kThreads) {
    epilogue<T, Gate>(a, r, j, load_in_range(product + j).value);
  }
}

}  // namespace marfast::cuda
