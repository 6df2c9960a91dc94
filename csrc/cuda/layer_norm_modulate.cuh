#pragma once

// layer_norm_modulate on a device: csrc/cpu/layer_norm_modulate.h's formula and order.
//
// What is narrower than x enters a product (operand.cuh). A warp a row, four a block; sums as
// lane_sum.cuh says. Four passes over a row, all but the first from cache. Bytes moved: x, shift,
// scale and out once, R w of their sizes; the floor is that over the memory's bandwidth.

#include "cuda/lane_sum.cuh"
#include "cuda/launch_shape.h"
#include "cuda/operand.cuh"
#include "cuda/ops.h"

namespace marfast::cuda {

struct Moments {
  Lane mean, rstd;
};

// sum(f): of f(x), Lane to Lane, over a row's w numbers.
template <class Sum>
__device__ __forceinline__ Moments row_moments(Sum sum, int64_t w, float eps) {
  const Lane width(static_cast<float>(w));
  const Lane m = sum([](Lane x) { return x; }) / width;
  const Lane mean = m + sum([=](Lane x) { return x - m; }) / width;
  const Lane squares = sum([=](Lane x) { return (x - mean) * (x - mean); });
  return {mean, Lane(1.0f) / sqrt(squares / width + Lane(eps))};
}

// One row by one warp; x, shift, scale [w]; weight, bias [w] or null. Each result goes to
// write(j, value).
template <class In, class Mod, class Affine, class Write>
__device__ __forceinline__ void layer_norm_modulate_row(int thread, const In* x, const Mod* shift,
                                                        const Mod* scale, const Affine* weight,
                                                        const Affine* bias, int64_t w, float eps,
                                                        Write write) {
  const auto sum = [=](auto value) {
    return lane_sum(thread, w, [=](int64_t j) { return value(Lane::load(x + j)); });
  };
  const auto [mean, rstd] = row_moments(sum, w, eps);
  const auto part = [](const Mod* p) {
    if constexpr (sizeof(Mod) < sizeof(In)) return load_in_range(p);
    return Lane::load(p);
  };
  for (int64_t j = thread; j < w; j += 32) {
    Lane y = (Lane::load(x + j) - mean) * rstd;
    if (weight) y = y * Lane::load(weight + j);
    if (bias) y = y + Lane::load(bias + j);
    write(j, y * (Lane(1.0f) + part(scale + j)) + part(shift + j));
  }
}

inline LaunchShape shape_of(const NormModulate& a) { return {ceil_div(a.rows, 4), 1, 128, 0}; }

template <class In, class Mod, class Affine, class Out>
__global__ void __launch_bounds__(128) layer_norm_modulate(const NormModulate a) {
  const int64_t row = int64_t{blockIdx.x} * 4 + threadIdx.x / 32;
  if (row >= a.rows) return;
  Out* out = static_cast<Out*>(a.out) + row * a.width;
  layer_norm_modulate_row(
      static_cast<int>(threadIdx.x % 32), static_cast<const In*>(a.x) + row * a.x_stride,
      static_cast<const Mod*>(a.shift) + row * a.shift_stride,
      static_cast<const Mod*>(a.scale) + row * a.scale_stride, static_cast<const Affine*>(a.weight),
      static_cast<const Affine*>(a.bias), a.width, a.eps, [=](int64_t j, Lane y) {
        if constexpr (sizeof(In) > sizeof(Out)) return store_operand(y, out + j);
        y.store(out + j);
      });
}

}  // namespace marfast::cuda
