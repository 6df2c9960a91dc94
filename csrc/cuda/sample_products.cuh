#pragma once

// The products of the persistent sampler: sums[block][row][output] of rows [., w] in shared memory
// and rows of W, w a multiple of 32. One (row, output, block of k) is one chain of additions:
//   fp32        blocks of 256, one FMA after another; a thread has kDown x kAcross chains at once,
//               and reads four of k at a time
//   bf16, fp16  blocks of 128 by mma.sync m16n8k16, a warp 16 outputs (m) x up to 32 rows (n), all
//               of a block's operands read before the first mma
// Rows lie 16 bytes off a multiple of 128: eight of them, 16 bytes each, are in different banks.

#include "cuda/plan.h"
#include "cuda/ptx.cuh"
#include "marfast/convert.h"

namespace marfast::cuda {

constexpr int kSampleThreads = 256;

// kShared: whether W is in shared memory, too.
template <class T, bool kShared>
class SampleProduct {
  static constexpr int kBlock = product_block(sizeof(T) == 4 ? DType::f32 : DType::bf16);
  static constexpr int kSteps = kBlock / 16, kTiles = 4;  // of 8 rows, that a warp takes

 public:
  const T* rows;
  int pitch, count;
  const T* weights;
  int weight_pitch, outputs;
  int width;
  float* sums;

  __device__ int blocks() const { return (width + kBlock - 1) / kBlock; }

  __device__ void run() const {
    if constexpr (sizeof(T) == 4) {
      const int chains = blocks() * count * outputs;
      if (chains > 4 * kSampleThreads) return fma_chains<4, 4>();
      if (chains > kSampleThreads) return fma_chains<2, 2>();
      fma_chains<1, 1>();
    } else {
      mma_chains();
    }
  }

 private:
  static __device__ int clamp(int i, int size) { return i < size ? i : size - 1; }

  template <int kDown, int kAcross>
  __device__ void fma_chains() const {
    static_assert(kShared, "rows of W in global memory would be 32 cache lines a load");
    const int across = (outputs + kAcross - 1) / kAcross, down = (count + kDown - 1) / kDown;
    for (int i = threadIdx.x; i < blocks() * across * down; i += kSampleThreads) {
      const int j = i % across, r = i / across % down, b = i / across / down;
      const int end = (b + 1) * kBlock < width ? (b + 1) * kBlock : width;
      const T *x[kDown], *y[kAcross];
#pragma unroll
      for (int d = 0; d < kDown; ++d) x[d] = rows + clamp(r + d * down, count) * pitch;
#pragma unroll
      for (int c = 0; c < kAcross; ++c) {
        y[c] = weights + clamp(j + c * across, outputs) * weight_pitch;
      }
      float sum[kDown][kAcross] = {};
#pragma unroll(kDown == 1 ? 4 : 1)
      for (int k = b * kBlock; k < end; k += 4) {
        ptx::Vec4 left[kDown], right[kAcross];
#pragma unroll
        for (int d = 0; d < kDown; ++d) left[d] = ptx::ld_shared_v4(x[d] + k);
#pragma unroll
        for (int c = 0; c < kAcross; ++c) right[c] = ptx::ld_shared_v4(y[c] + k);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
#pragma unroll
          for (int d = 0; d < kDown; ++d) {
#pragma unroll
            for (int c = 0; c < kAcross; ++c) {
              sum[d][c] = ptx::fma_rn(from_bits(left[d].v[e]), from_bits(right[c].v[e]), sum[d][c]);
            }
          }
        }
      }
#pragma unroll
      for (int d = 0; d < kDown; ++d) {
#pragma unroll
        for (int c = 0; c < kAcross; ++c) put(b, r + d * down, j + c * across, sum[d][c]);
      }
    }
  }

  __device__ void mma_chains() const {
    const int lane = threadIdx.x % 32;
    const int across = (outputs + 15) / 16, down = (count + 8 * kTiles - 1) / (8 * kTiles);
    for (int i = threadIdx.x / 32; i < blocks() * across * down; i += kSampleThreads / 32) {
      const int j0 = i % across * 16, r0 = i / across % down * 8 * kTiles, b = i / across / down;
      const int left = (width - b * kBlock) / 16, steps = left < kSteps ? left : kSteps;
      uint32_t m[kSteps][4];
#pragma unroll
      for (int k = 0; k < kSteps; ++k) {
        if (k < steps) operand(j0, b * kBlock + 16 * k, m[k]);
      }
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        if (r0 + 8 * n >= count) break;
        const T* row = rows + clamp(r0 + 8 * n + lane % 8, count) * pitch + b * kBlock;
        uint32_t columns[kSteps / 2][4];  // of two steps each
#pragma unroll
        for (int k = 0; k < kSteps / 2; ++k) {
          if (2 * k < steps) ptx::ldmatrix_x4(columns[k], row + 32 * k + lane / 8 * 8);
        }
        float sum[4] = {};
#pragma unroll
        for (int k = 0; k < kSteps; ++k) {
          const uint32_t column[2] = {columns[k / 2][k % 2 * 2], columns[k / 2][k % 2 * 2 + 1]};
          if (k < steps) ptx::mma_m16n8k16(sum, m[k], column, T{});
        }
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          put(b, r0 + 8 * n + lane % 4 * 2 + e % 2, j0 + lane / 4 + e / 2 * 8, sum[e]);
        }
      }
    }
  }

  // W[j0 ...][k ...] as mma.sync's 16 x 16 operand.
  __device__ void operand(int j0, int k, uint32_t (&m)[4]) const {
    const int lane = threadIdx.x % 32;
    if constexpr (kShared) {
      const int j = clamp(j0 + lane % 16, outputs);
      ptx::ldmatrix_x4(m, weights + j * weight_pitch + k + lane / 16 * 8);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int j = clamp(j0 + lane / 4 + i % 2 * 8, outputs);
        const T* two = weights + int64_t{j} * weight_pitch + k + lane % 4 * 2 + i / 2 * 8;
        m[i] = *reinterpret_cast<const uint32_t*>(two);
      }
    }
  }

  __device__ void put(int b, int r, int j, float sum) const {
    if (r < count && j < outputs) sums[(b * count + r) * outputs + j] = sum;
  }
};

}  // namespace marfast::cuda
