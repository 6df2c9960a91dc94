#pragma once

// Small kernels for the emulator's own tests. One named right_* is correct, and each of its
// synchronisations is needed; any other is broken, and the lines marked `report: KIND` are where
// the emulator may say so.

#include <math.h>

#include "cuda/ptx.cuh"

namespace marfast {

struct Io {
  float* out;
  const float* in;
  uint32_t* count;
};

__device__ __forceinline__ float* shared() {
  return reinterpret_cast<float*>(ptx::shared_memory());
}

// out[block] = the sum of the block's 64 values.
__global__ void right_sum(const Io a) {
  const int t = threadIdx.x;
  shared()[t] = a.in[blockIdx.x * 64 + t];
  ptx::bar_sync();
  for (int half = 32; half > 0; half /= 2) {
    if (t < half) shared()[t] += shared()[t + half];
    ptx::bar_sync();
  }
  if (t == 63) a.out[blockIdx.x] = shared()[0];
}

__global__ void race_missing_barrier(const Io a) {
  const int t = threadIdx.x;
  shared()[t] = a.in[t];        // report: race
  a.out[t] = shared()[63 - t];  // report: race uninitialised
}

__global__ void race_in_global_memory(const Io a) {
  a.out[0] = a.in[threadIdx.x];  // report: race
}

__global__ void race_between_blocks(const Io a) {
  if (threadIdx.x == 0) a.out[0] = a.in[blockIdx.x];  // report: race
}

// A warp's barrier orders that warp alone.
__global__ void race_warp_barrier_only(const Io a) {
  const int t = threadIdx.x;
  shared()[t] = a.in[t];  // report: race
  ptx::bar_warp_sync();
  a.out[t] = shared()[63 - t];  // report: race uninitialised
}

__global__ void right_warp_barrier(const Io a) {
  const int t = threadIdx.x;
  shared()[t] = a.in[t];
  ptx::bar_warp_sync();
  a.out[t] = shared()[t ^ 31];
}

// Two pairs of warps, each with a barrier of its own, in two rounds.
__global__ void right_named_barriers(const Io a) {
  const int t = threadIdx.x, pair = t / 64;
  for (int round = 0; round < 2; ++round) {
    shared()[t] = a.in[t + round];
    ptx::bar_sync(1 + pair, 64);
    a.out[128 * round + t] = shared()[t ^ 32];
    ptx::bar_sync(1 + pair, 64);
  }
}

// The other pair meets at another barrier.
__global__ void race_another_named_barrier(const Io a) {
  const int t = threadIdx.x, pair = t / 64;
  shared()[t] = a.in[t];  // report: race
  ptx::bar_sync(1 + pair, 64);
  a.out[t] = shared()[t ^ 64];  // report: race uninitialised
}

// The third warp passes the barrier that two others have met at.
__global__ void race_too_few_at_named_barrier(const Io a) {
  const int t = threadIdx.x;
  shared()[t] = a.in[t];  // report: race
  if (t < 64) ptx::bar_sync(1, 64);
  a.out[t] = shared()[95 - t];  // report: race uninitialised
}

__global__ void divergence_counts_at_named_barrier(const Io) {
  ptx::bar_sync(1, threadIdx.x < 32 ? 64 : 96);  // report: divergence
}

__global__ void divergence_part_of_a_warp(const Io) {
  ptx::bar_sync(1, 48);  // report: divergence
}

__global__ void right_shuffles(const Io a) {
  float sum = a.in[threadIdx.x];
  for (int i = 16; i > 0; i /= 2) sum += ptx::shfl_xor(sum, i);
  const float first = ptx::shfl_idx(a.in[threadIdx.x], 0);
  const float next = ptx::shfl_down(a.in[threadIdx.x], 1);  // lane 31: its own
  const uint32_t odd = ptx::vote_ballot(threadIdx.x & 1);
  a.out[threadIdx.x] = sum + first + next + (odd == 0xaaaaaaaa ? 0 : 1);
}

// Nothing that communicates for long: no deadlock.
__global__ void right_long_stretch(const Io a) {
  float sum = 0;
  for (int i = 0; i < 20000; ++i) sum += a.in[(threadIdx.x + i) % 64];
  a.out[threadIdx.x] = sum;
}

// Two stages in flight: each is awaited, then met.
__global__ void right_copies(const Io a) {
  const int t = threadIdx.x;
  for (int stage = 0; stage < 2; ++stage) {
    ptx::cp_async_4(shared() + stage * 64 + t, a.in + stage * 64 + t);
    ptx::cp_async_commit_group();
  }
  ptx::cp_async_wait_group<1>();
  ptx::bar_sync();
  const float first = shared()[63 - t];
  ptx::cp_async_wait_group<0>();
  ptx::bar_sync();
  a.out[t] = first + shared()[127 - t];
}

__global__ void not_arrived_missing_wait(const Io a) {
  const int t = threadIdx.x;
  ptx::cp_async_4(shared() + t, a.in + t);
  ptx::cp_async_commit_group();
  ptx::bar_sync();
  a.out[t] = shared()[t];  // report: not_arrived
}

__global__ void not_arrived_wait_too_weak(const Io a) {
  const int t = threadIdx.x;
  ptx::cp_async_4(shared() + t, a.in + t);
  ptx::cp_async_commit_group();
  ptx::cp_async_wait_group<1>();
  a.out[t] = shared()[t];  // report: not_arrived
}

// A wait is for the thread's own copies; others need a barrier, too.
__global__ void race_wait_without_barrier(const Io a) {
  const int t = threadIdx.x;
  ptx::cp_async_4(shared() + t, a.in + t);  // report: race
  ptx::cp_async_commit_group();
  ptx::cp_async_wait_group<0>();
  a.out[t] = shared()[63 - t];  // report: race not_arrived uninitialised
}

__global__ void out_of_bounds_global(const Io a) {
  a.out[threadIdx.x] = a.in[threadIdx.x + 256 - 63];  // report: out_of_bounds
}

__global__ void out_of_bounds_shared(const Io a) {
  shared()[threadIdx.x + 1024 - 63] = a.in[0];  // report: out_of_bounds
}

// Launched with all that a block can have, 227 KiB.
__global__ void right_most_shared_memory(const Io a) {
  float& last = shared()[(227 << 8) - 1 - threadIdx.x];
  last = a.in[threadIdx.x];
  a.out[threadIdx.x] = last;
}

// With a byte more; reported at the launch.
__global__ void shared_memory_too_much(const Io) {}

__global__ void misaligned_vector(const Io a) {
  ptx::st_global_v4(a.out + 1, {});  // report: misaligned
}

__global__ void misaligned_copy(const Io a) {
  ptx::cp_async_16(shared(), a.in + 2);  // report: misaligned
}

__global__ void address_space_global_load_of_shared_memory(const Io a) {
  shared()[threadIdx.x] = a.in[threadIdx.x];
  ptx::bar_sync();
  ptx::st_global_v4(a.out, ptx::ld_global_v4(shared()));  // report: address_space
}

__global__ void address_space_shared_store_to_global_memory(const Io a) {
  ptx::st_shared_v4(a.out, {});  // report: address_space
}

__global__ void address_space_matrix_in_global_memory(const Io a) {
  uint32_t r[2];
  ptx::ldmatrix_x2(r, a.in + 4 * threadIdx.x);  // report: address_space
}

__global__ void address_space_copy_of_shared_memory(const Io a) {
  shared()[threadIdx.x] = a.in[threadIdx.x];
  ptx::cp_async_4(shared() + 64 + threadIdx.x, shared() + threadIdx.x);  // report: address_space
}

// Blocks wait for each other, but aren't launched so that all are resident.
__global__ void residency_not_cooperative(const Io a) {
  if (threadIdx.x != 0) return;
  ptx::atom_add_release_gpu(a.count, 1);
  do {
    ptx::nanosleep(20);  // report: residency
  } while (ptx::ld_acquire_gpu(a.count) < gridDim.x);
}

__global__ void uninitialised_shared(const Io a) {
  a.out[threadIdx.x] = shared()[threadIdx.x];  // report: uninitialised
}

__global__ void divergence_at_barrier(const Io) {
  if (threadIdx.x < 32) {
    ptx::bar_sync();  // report: divergence
  } else {
    ptx::bar_sync();  // report: divergence
  }
}

__global__ void divergence_ended_thread(const Io) {
  if (threadIdx.x == 5) return;
  ptx::bar_sync();  // report: divergence
}

__global__ void missing_lane_in_shuffle(const Io a) {
  if (threadIdx.x == 7) return;
  a.out[threadIdx.x] = ptx::shfl_xor(1.0f, 1);  // report: missing_lane
}

__global__ void deadlock_named_barrier(const Io) {
  if (threadIdx.x < 32) ptx::bar_sync(1, 64);  // report: deadlock
}

__global__ void deadlock_spin(const Io a) {
  while (ptx::ld_acquire_gpu(a.count) == 0) {  // report: deadlock
  }
}

__global__ void trap_always(const Io) {
  ptx::trap();  // report: trap
}

// One warp: out[16, 8] = in[16, 16] in[256 ...][8, 16]^T, in bfloat16.
__global__ void right_mma(const Io a) {
  const int lane = threadIdx.x;
  auto* tile = ptx::shared_memory();  // [24][16] of bfloat16
  ptx::cp_async_16(tile + 16 * lane, a.in + 4 * lane);
  if (lane < 16) ptx::cp_async_16(tile + 512 + 16 * lane, a.in + 128 + 4 * lane);
  ptx::cp_async_commit_group();
  ptx::cp_async_wait_group<0>();
  ptx::bar_warp_sync();
  uint32_t left[4], right[2];
  ptx::ldmatrix_x4(left, tile + lane % 16 * 32 + lane / 16 * 16);
  ptx::ldmatrix_x2(right, tile + 512 + lane % 8 * 32 + lane / 8 % 2 * 16);
  float d[4] = {};
  ptx::mma_m16n8k16(d, left, right, bfloat16{});
  for (int i = 0; i < 4; ++i) a.out[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
}

// The same by the transpose of in[256 ...] as it lies, [16, 8], by ldmatrix.trans.
__global__ void right_mma_trans(const Io a) {
  const int lane = threadIdx.x;
  auto* tile = ptx::shared_memory();  // [16][16], [16][8], [16][8] of bfloat16
  ptx::cp_async_16(tile + 16 * lane, a.in + 4 * lane);
  if (lane < 16) {
    ptx::cp_async_16(tile + 512 + 16 * lane, a.in + 128 + 4 * lane);
    ptx::cp_async_16(tile + 768 + 16 * lane, a.in + 128 + 4 * lane);
  }
  ptx::cp_async_commit_group();
  ptx::cp_async_wait_group<0>();
  ptx::bar_warp_sync();
  uint32_t left[4], right[2], both[4];
  ptx::ldmatrix_x4(left, tile + lane % 16 * 32 + lane / 16 * 16);
  ptx::ldmatrix_x2_trans(right, tile + 512 + lane % 16 * 16);
  ptx::ldmatrix_x4_trans(both, tile + 512 + lane * 16);  // twice the same
  if (both[0] != right[0] || both[1] != right[1] || both[2] != right[0] || both[3] != right[1]) {
    ptx::trap();
  }
  float d[4] = {};
  ptx::mma_m16n8k16(d, left, right, bfloat16{});
  for (int i = 0; i < 4; ++i) a.out[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
}

// Each lane of the first 8, 16 or 32 names a row of 16 bytes, at a multiple of 16.
__global__ void misaligned_matrix(const Io) {
  uint32_t r[4];
  ptx::ldmatrix_x4_trans(r, ptx::shared_memory() + 16 * threadIdx.x + 8);  // report: misaligned
}

__global__ void uninitialised_matrix(const Io a) {
  shared()[threadIdx.x] = a.in[threadIdx.x];
  ptx::bar_sync();
  uint32_t r[4];
  ptx::ldmatrix_x4_trans(r, ptx::shared_memory() + 16 * threadIdx.x);  // report: uninitialised
}

__global__ void not_arrived_matrix(const Io a) {
  ptx::cp_async_16(ptx::shared_memory() + 16 * threadIdx.x, a.in + 4 * threadIdx.x);
  ptx::cp_async_commit_group();
  uint32_t r[2];
  ptx::ldmatrix_x2_trans(r, ptx::shared_memory() + 16 * threadIdx.x);  // report: not_arrived
}

__global__ void missing_lane_in_matrix(const Io a) {
  ptx::st_shared_v4(ptx::shared_memory() + 16 * threadIdx.x, {});
  if (threadIdx.x == 20) return;
  uint32_t r[2];  // lanes 16 to 31 name no row, and must be there
  ptx::ldmatrix_x2_trans(r, ptx::shared_memory() + 16 * threadIdx.x);  // report: missing_lane
  a.out[threadIdx.x] = static_cast<float>(r[0]);
}

// 2^x is exact where x is 0, and flushed where it is subnormal; halves are rounded to nearest even.
__global__ void right_conversions(const Io a) {
  const bool powers = ptx::ex2_approx_ftz(0.0f) == 1 && ptx::ex2_approx_ftz(-INFINITY) == 0 &&
                      ptx::ex2_approx_ftz(-126.5f) == 0 &&
                      fabsf(ptx::ex2_approx_ftz(10.5f) - 1448.1547f) < 1448 * 0x1p-21f;
  const uint32_t pair = ptx::cvt_rn_x2(1.00390625f, -3.0f, bfloat16{});  // 1 + 2^-8: to even, 1
  const uint32_t halves = ptx::cvt_rn_x2(65536.0f, 0.5f, float16{});     // to infinity
  a.out[threadIdx.x] = powers && pair == 0xc0403f80 && halves == 0x38007c00 ? 0.0f : 1.0f;
}

}  // namespace marfast
