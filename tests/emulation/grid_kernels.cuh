#pragma once

// As kernels.cuh: kernels whose blocks wait for each other, by barriers of the grid and by flags.
// One named late_* fails only a block that is late.

#include "kernels.cuh"

namespace marfast {

// The last to arrive sets the counter to 0, which the others wait for: one that looks late sees the
// next round's count.
__global__ void late_block_misses_a_reset(const Io a) {
  for (int round = 0; round < 2; ++round) {
    if (threadIdx.x == 0) {
      if (ptx::atom_add_release_gpu(a.count, 1) + 1 == gridDim.x) {
        ptx::st_release_gpu(a.count, 0);
      } else {
        while (ptx::ld_acquire_gpu(a.count) != 0) {  // report: deadlock
        }
      }
    }
    ptx::bar_sync();
  }
}

// The counter is taken to be 0 at a block's start, as it isn't if others have arrived before.
__global__ void late_block_takes_the_counter_as_found(const Io a) {
  const uint32_t target = ptx::ld_relaxed_gpu(a.count) + gridDim.x;
  ptx::bar_sync();
  if (threadIdx.x == 0) {
    ptx::atom_add_release_gpu(a.count, 1);
    while (ptx::ld_acquire_gpu(a.count) < target) {  // report: deadlock
    }
  }
}

// The last block to arrive adds what all have written.
__global__ void right_grid_barrier(const Io a) {
  const int t = threadIdx.x, blocks = gridDim.x;
  a.out[1 + blockIdx.x * 64 + t] = a.in[t];
  ptx::bar_sync();
  if (t == 0) {
    ptx::atom_add_release_gpu(a.count, 1);
    while (ptx::ld_acquire_gpu(a.count) < static_cast<uint32_t>(blocks)) ptx::nanosleep(20);
  }
  ptx::bar_sync();
  const int other = (blockIdx.x + 1) % blocks;
  const float sum = ptx::ld_global_cg(a.out + 1 + other * 64 + t);
  if (sum != a.in[t]) ptx::trap();
}

__global__ void right_fences(const Io a) {
  if (threadIdx.x != 0) return;
  if (blockIdx.x == 0) {
    a.out[1] = a.in[0];
    ptx::fence_gpu();
    ptx::atom_add_gpu(a.count, 1);
  } else {
    while (ptx::ld_relaxed_gpu(a.count) == 0) ptx::nanosleep(20);
    ptx::fence_gpu();
    a.out[2 + blockIdx.x] = a.out[1];
  }
}

__global__ void right_release_store(const Io a) {
  if (threadIdx.x != 0) return;
  if (blockIdx.x == 0) {
    a.out[1] = a.in[0];
    ptx::st_release_gpu(a.count, 1);
  } else {
    while (ptx::ld_acquire_gpu(a.count) == 0) ptx::nanosleep(20);
    a.out[2 + blockIdx.x] = a.out[1];
  }
}

__global__ void race_relaxed_flag(const Io a) {
  if (threadIdx.x != 0) return;
  if (blockIdx.x == 0) {
    a.out[1] = a.in[0];
    ptx::atom_add_gpu(a.count, 1);
  } else {
    while (ptx::ld_acquire_gpu(a.count) == 0) ptx::nanosleep(20);
    a.out[2 + blockIdx.x] = a.out[1];  // report: race
  }
}

__global__ void race_relaxed_reader(const Io a) {
  if (threadIdx.x != 0) return;
  if (blockIdx.x == 0) {
    a.out[1] = a.in[0];
    ptx::st_release_gpu(a.count, 1);
  } else {
    while (ptx::ld_relaxed_gpu(a.count) == 0) ptx::nanosleep(20);
    a.out[2 + blockIdx.x] = a.out[1];  // report: race
  }
}

}  // namespace marfast
