#pragma once

// linear for bfloat16 and float16: out[r][j] = sum_k x[r][k] W[j][k], by mma.sync m16n8k16 with
// float32 sums; then epilogue.cuh.
//
// Outputs lie on m, rows of x on n: few rows waste little. A block of 4 warps computes
// 64 kOutputs x 8 kRows; warp i has 16 kOutputs outputs of it and all rows. W [J, K] is the
// row-major operand as it lies, x [R, K] the column-major one. Both pass through shared memory in
// kStages tiles of 32 of k. A thread of the warp, g = lane / 4 and t = lane % 4, holds
//   d[0], d[1] = out[rows 2t, 2t + 1][output g],  d[2], d[3] = the same of output g + 8.
// Order: each mma adds 16 of k to the sum in the hardware's order; k ascends.
// Bytes moved: W once for each 8 kRows rows, x once for each 64 kOutputs outputs. Floor: the larger
// of 2 J K over bandwidth and 2 R J K flops.

#include "cuda/epilogue.cuh"
#include "cuda/launch_shape.h"
#include "cuda/tile.cuh"

namespace marfast::cuda {

template <class T, int kOutputs, int kRows>
struct MmaTiles {
  static constexpr int kDepth = 32, kStages = 3, kThreads = 128;
  using Weights = Tile<T, 64 * kOutputs, kDepth>;
  using Rows = Tile<T, 8 * kRows, kDepth>;
  static constexpr int kStageBytes = Weights::kBytes + Rows::kBytes;
  static_assert(kStages * kStageBytes <= 48 << 10, "more shared memory than needs no opting in");
  static_assert(Weights::kBytes % 16 == 0, "the rows' tile must start at a multiple of 16 bytes");

  static LaunchShape shape_of(const LinearLayer& a) {
    return {ceil_div(a.outputs, 64 * kOutputs), ceil_div(a.rows, 8 * kRows), kThreads,
            kStages * kStageBytes};
  }
};

template <class T, int kOutputs, int kRows, int kCopy>
__global__ void __launch_bounds__(128, 2) linear_mma(const LinearLayer a) {
  using Tiles = MmaTiles<T, kOutputs, kRows>;
  constexpr int kStages = Tiles::kStages, kDepth = Tiles::kDepth;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first_output = int64_t{blockIdx.x} * 64 * kOutputs;
  const int64_t first_row = int64_t{blockIdx.y} * 8 * kRows;
  const Matrix<T> w{static_cast<const T*>(a.weight), a.outputs, a.inputs, a.inputs};
  const Matrix<T> x{static_cast<const T*>(a.x), a.rows, a.inputs, a.x_stride};

  unsigned char* shared = ptx::shared_memory();
  auto weights_of = [&](int stage) {
    return typename Tiles::Weights{reinterpret_cast<T*>(shared + stage * Tiles::kStageBytes)};
  };
  auto rows_of = [&](int stage) {
    return typename Tiles::Rows{
        reinterpret_cast<T*>(shared + stage * Tiles::kStageBytes + Tiles::Weights::kBytes)};
  };
  const int steps = ceil_div(a.inputs, kDepth);
  auto copy = [&](int step) {
    if (step < steps) {
      const int64_t k = int64_t{step} * kDepth;
      weights_of(step % kStages).template load<kCopy, Tiles::kThreads>(w, first_output, k);
      rows_of(step % kStages).template load<kCopy, Tiles::kThreads>(x, first_row, k);
    }
    ptx::cp_async_commit_group();
  };

  float sum[kOutputs][kRows][4] = {};
  for (int step = 0; step < kStages - 1; ++step) copy(step);
  for (int step = 0; step < steps; ++step) {
    ptx::cp_async_wait_group<kStages - 2>();
    ptx::bar_sync();  // this step's tiles have arrived for all; all are done with the last step's
    copy(step + kStages - 1);
    const auto weights = weights_of(step % kStages);
    const auto rows = rows_of(step % kStages);
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      uint32_t fragment[kOutputs][4];
#pragma unroll
      for (int m = 0; m < kOutputs; ++m) {
        ptx::ldmatrix_x4(fragment[m],
                         weights.at(16 * (warp * kOutputs + m) + lane % 16, k + lane / 16 * 8));
      }
#pragma unroll
      for (int n = 0; n < kRows; ++n) {
        uint32_t column[2];
        ptx::ldmatrix_x2(column, rows.at(8 * n + lane % 8, k + lane / 8 % 2 * 8));
#pragma unroll
        for (int m = 0; m < kOutputs; ++m) {
          ptx::mma_m16n8k16(sum[m][n], fragment[m], column, T{});
        }
      }
    }
  }

#pragma unroll
  for (int m = 0; m < kOutputs; ++m) {
#pragma unroll
    for (int n = 0; n < kRows; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int64_t j = first_output + 16 * (warp * kOutputs + m) + lane / 4 + i / 2 * 8;
        epilogue<T>(a, first_row + 8 * n + lane % 4 * 2 + i % 2, j, sum[m][n][i]);
      }
    }
  }
}

}  // namespace marfast::cuda
