#pragma once

// One launcher an op: enqueues it on a stream, allocates nothing, waits for nothing, so that graphs
// capture it. Each function here returns null, or what it failed with. csrc/cuda/kernels.cu defines
// them.

#include "cuda/ops.h"

// Every launcher, and its struct: the one list.
#define MARFAST_CUDA_LAUNCHERS(LAUNCHER)      \
  LAUNCHER(attention, Attention)              \
  LAUNCHER(ddpm_sample, PersistentSample)     \
  LAUNCHER(ddpm_step, DdpmStep)               \
  LAUNCHER(layer_norm_modulate, NormModulate) \
  LAUNCHER(linear, LinearLayer)               \
  LAUNCHER(linear_epilogue, LinearEpilogue)   \
  LAUNCHER(silu_sum, SiluSum)

namespace marfast::cuda {

using Stream = void*;
using Status = const char*;

#define LAUNCHER(op, Args) Status op(const Args& a, Stream stream);
MARFAST_CUDA_LAUNCHERS(LAUNCHER)
#undef LAUNCHER

struct DeviceSizes {
  int64_t sms, shared_bytes, l2_bytes;
};

// Of the current device: its sizes, and how many blocks of such a launch it holds at once.
Status device_sizes(DeviceSizes& sizes);
Status resident_blocks(const PersistentSample& a, int64_t& blocks);

template <class Visit>
void fields(DeviceSizes& a, Visit visit) {
  visit(FIELD(sms));
  visit(FIELD(shared_bytes));
  visit(FIELD(l2_bytes));
}

}  // namespace marfast::cuda
