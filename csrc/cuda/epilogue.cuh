#pragma once

// What becomes of out[r][j] of a product: y = value + bias; y | act(y) | residual + gate y.

#include "cuda/operand.cuh"
#include "cuda/ops.h"
#include "marfast/silu.h"

namespace marfast::cuda {

template <class T, class Gate = float>
__device__ __forceinline__ void epilogue(const Epilogue& a, int64_t r, int64_t j, float value) {
  if (r >= a.rows || j >= a.outputs) return;
  const Lane y = Lane(value) + Lane::load(static_cast<const T*>(a.bias) + j);
  if (a.activated) {
    T* out = static_cast<T*>(a.out) + r * a.out_stride + j;
    return store_operand(silu(y), out);
  }
  float* out = static_cast<float*>(a.out) + r * a.out_stride + j;
  if (!a.gate) return y.store(out);
  const Lane gate = load_in_range(static_cast<const Gate*>(a.gate) + r * a.gate_stride + j);
  const Lane x(a.residual[r * a.residual_stride + j]);
  (x + gate * y).store(out);
}

}  // namespace marfast::cuda
