#pragma once

// One launcher an op: enqueues it on a stream, allocates nothing, waits for nothing, so that graphs
// capture it. Each returns null, or what the launch failed with. csrc/cuda/kernels.cu defines them
// for the GPU; head.cpp composes adaln_mlp and denoise of the others.

#include "cuda/ops.h"

namespace marfast::cuda {

using Stream = void*;
using Status = const char*;

Status ddpm_step(const DdpmStep& a, Stream stream);
Status layer_norm_modulate(const NormModulate& a, Stream stream);
Status silu_sum(const SiluSum& a, Stream stream);
Status linear(const LinearLayer& a, Stream stream);
Status attention(const Attention& a, Stream stream);
// Only what follows a product, which is in x [R, J] of dtype; weight and inputs aren't read.
Status linear_epilogue(const LinearLayer& a, Stream stream);
Status sample_tables(const SampleTables& a, Stream stream);
Status ddpm_sample(const PersistentSample& a, Stream stream);

// Of the current device: how many blocks of such a launch it holds at once, 0 on an error; and its
// sizes.
int64_t resident_blocks(const PersistentSample& a);
struct DeviceSizes {
  int sms, shared_bytes, l2_bytes;
};
DeviceSizes device_sizes();

Status adaln_mlp(const ResidualBlock& a, Stream stream);
Status denoise(const HeadOnce& a, Stream stream);

}  // namespace marfast::cuda
