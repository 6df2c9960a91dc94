#pragma once

// A barrier of the whole grid, whose blocks are all resident (a cooperative launch sees to that).
//
// Each block's thread 0 adds 1 to a counter, after its block is done, and waits for all of this
// round; the counter only grows. Release and acquire at GPU scope order plain writes before it with
// plain reads after it. A wait longer than `limit_ns` traps: a lost block ends in an error and not
// in a hung GPU.

#include "cuda/ops.h"
#include "cuda/ptx.cuh"

namespace marfast::cuda {

class GridBarrier {
 public:
  __device__ GridBarrier(uint32_t* arrived, uint64_t limit_ns)
      : arrived_(arrived), limit_ns_(limit_ns) {}

  __device__ void wait() {
    target_ += gridDim.x;
    ptx::bar_sync();
    if (threadIdx.x == 0) {
      ptx::atom_add_release_gpu(arrived_, 1);
      const uint64_t start = ptx::globaltimer();
      while (ptx::ld_acquire_gpu(arrived_) < target_) {
        if (ptx::globaltimer() - start > limit_ns_) ptx::trap();
        ptx::nanosleep(20);
      }
    }
    ptx::bar_sync();
  }

 private:
  uint32_t* arrived_;  // 0 at launch
  uint64_t limit_ns_;
  uint32_t target_ = 0;
};

}  // namespace marfast::cuda
