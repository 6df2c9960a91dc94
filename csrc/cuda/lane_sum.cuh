#pragma once

// csrc/cpu/lane_sum.h's sum by one warp: thread t holds lanes t and t + 32 of the 64; the fold's
// first half is the thread's own, the others are shuffles. Every thread gets the sum.

#include "cuda/lane.cuh"
#include "cuda/ptx.cuh"

namespace marfast {

// value(j) -> Lane, called for every j < width with j % 32 = thread.
template <class Value>
__device__ __forceinline__ Lane lane_sum(int thread, int64_t width, Value value) {
  Lane low(0.0f), high(0.0f);
  for (int64_t j = thread; j < width; j += 64) {
    low = low + value(j);
    if (j + 32 < width) high = high + value(j + 32);
  }
  float sum = low.value + high.value;
  for (int half = 16; half > 0; half /= 2) sum = sum + ptx::shfl_xor(sum, half);
  return Lane(sum);
}

}  // namespace marfast
