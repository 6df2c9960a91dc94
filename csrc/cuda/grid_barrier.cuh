#pragma once

// A barrier of the whole grid, whose blocks are all resident (a cooperative launch sees to that).
//
// Each block's thread 0 adds 1 to a counter, after its block is done, and waits for all of this
// round; the counter only grows. Release and acquire at GPU scope order plain writes before it with
// plain reads after it. A wait longer than `limit_ns` gives up and sets `error`: a lost block ends
// in an error code and not in a hung GPU.

#include "cuda/ptx.cuh"

namespace marfast::cuda {

struct GridBarrierWords {
  uint32_t arrived;  // 0 at launch, as is `error`
  uint32_t error;
};

class GridBarrier {
 public:
  // `shared` is one word of shared memory, for this alone.
  __device__ GridBarrier(GridBarrierWords* words, uint32_t* shared, uint64_t limit_ns)
      : words_(words), shared_(shared), limit_ns_(limit_ns) {}

  // False for every thread of a block that gave up.
  __device__ bool wait() {
    target_ += gridDim.x;
    ptx::bar_sync();
    if (threadIdx.x == 0) {
      ptx::atom_add_release_gpu(&words_->arrived, 1);
      *shared_ = spin();
    }
    ptx::bar_sync();
    return *shared_ != 0;
  }

 private:
  __device__ uint32_t spin() {
    const uint64_t start = ptx::globaltimer();
    while (ptx::ld_acquire_gpu(&words_->arrived) < target_) {
      if (ptx::globaltimer() - start > limit_ns_) {
        ptx::atom_add_gpu(&words_->error, 1);
        return 0;
      }
      ptx::nanosleep(20);
    }
    return 1;
  }

  GridBarrierWords* words_;
  uint32_t* shared_;
  uint64_t limit_ns_;
  uint32_t target_ = 0;
};

}  // namespace marfast::cuda
