#pragma once

// linear for float32, in the order of docs/numerics.md: an FMA chain over each block of 256 of k,
// from 0; the blocks' sums added in order; then epilogue.cuh, which adds the bias.
//
// A block of 128 threads computes 64 outputs x 4 kRows rows. Thread t has the outputs t % 32 and
// t % 32 + 32 of the rows t / 32 + 4 i. W and x pass through shared memory in two tiles of 32 of k,
// and are read there four of k at a time: eight rows' 16 bytes lie in different banks (tile.cuh).
// Bytes moved: W once for each 4 kRows rows. Floor: the larger of 4 J K over bandwidth and 2 R J K
// flops without tensor cores.

#include "cuda/epilogue.cuh"
#include "cuda/launch_shape.h"
#include "cuda/tile.cuh"

namespace marfast::cuda {

template <int kRows>
struct FmaTiles {
  static constexpr int kDepth = 32, kChain = 8, kStages = 2, kThreads = 128;
  using Weights = Tile<float, 64, kDepth>;
  using Rows = Tile<float, 4 * kRows, kDepth>;
  static constexpr int kStageBytes = Weights::kBytes + Rows::kBytes;
  static_assert(kChain * kDepth == 256, "a chain is as long as docs/numerics.md says");
  static_assert(kStages * kStageBytes <= 48 << 10, "more shared memory than needs no opting in");

  static LaunchShape shape_of(const LinearLayer& a) {
    return {ceil_div(a.outputs, 64), ceil_div(a.rows, 4 * kRows), kThreads, kStages * kStageBytes};
  }
};

template <int kRows, int kCopy>
__global__ void __launch_bounds__(128, 2) linear_fp32(const LinearLayer a) {
  using Tiles = FmaTiles<kRows>;
  constexpr int kDepth = Tiles::kDepth;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first_output = int64_t{blockIdx.x} * 64;
  const int64_t first_row = int64_t{blockIdx.y} * 4 * kRows;
  const Matrix<float> w{static_cast<const float*>(a.weight), a.outputs, a.inputs, a.inputs};
  const Matrix<float> x{static_cast<const float*>(a.x), a.rows, a.inputs, a.x_stride};

  unsigned char* shared = ptx::shared_memory();
  auto weights_of = [&](int stage) {
    return typename Tiles::Weights{reinterpret_cast<float*>(shared + stage * Tiles::kStageBytes)};
  };
  auto rows_of = [&](int stage) {
    return typename Tiles::Rows{
        reinterpret_cast<float*>(shared + stage * Tiles::kStageBytes + Tiles::Weights::kBytes)};
  };
  const int steps = ceil_div(a.inputs, kDepth);
  auto copy = [&](int step) {
    if (step < steps) {
      const int64_t k = int64_t{step} * kDepth;
      weights_of(step % 2).template load<kCopy, Tiles::kThreads>(w, first_output, k);
      rows_of(step % 2).template load<kCopy, Tiles::kThreads>(x, first_row, k);
    }
    ptx::cp_async_commit_group();
  };

  Lane total[kRows][2] = {}, chain[kRows][2] = {};
  copy(0);
  for (int step = 0; step < steps; ++step) {
    ptx::cp_async_wait_group<0>();
    ptx::bar_sync();  // this step's tiles have arrived for all; all are done with the last step's
    copy(step + 1);
    const auto weights = weights_of(step % 2);
    const auto rows = rows_of(step % 2);
    const int64_t left = a.inputs - int64_t{step} * kDepth;
    const int count = left < kDepth ? static_cast<int>(left) : kDepth;
    auto add = [&](int k, int products) {  // 4, or what is left of the last four
      const ptx::Vec4 first = ptx::ld_shared_v4(weights.at(lane, k));
      const ptx::Vec4 second = ptx::ld_shared_v4(weights.at(lane + 32, k));
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const ptx::Vec4 values = ptx::ld_shared_v4(rows.at(warp + 4 * i, k));
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (e >= products) break;
          const Lane value(from_bits(values.v[e]));
          chain[i][0] = fma(value, Lane(from_bits(first.v[e])), chain[i][0]);
          chain[i][1] = fma(value, Lane(from_bits(second.v[e])), chain[i][1]);
        }
      }
    };
    int k = 0;
    for (; k + 4 <= count; k += 4) add(k, 4);
    if (k < count) add(k, count - k);
    if ((step + 1) % Tiles::kChain == 0 || step + 1 == steps) {
      const bool only = step < Tiles::kChain;  // the first block's sum is taken as it is
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          total[i][c] = only ? chain[i][c] : total[i][c] + chain[i][c];
          chain[i][c] = Lane(0.0f);
        }
      }
    }
  }

#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int64_t r = first_row + warp + 4 * i;
    epilogue<float>(a, r, first_output + lane, total[i][0].value);
    epilogue<float>(a, r, first_output + lane + 32, total[i][1].value);
  }
}

}  // namespace marfast::cuda
