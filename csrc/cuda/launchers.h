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

Status adaln_mlp(const ResidualBlock& a, Stream stream);
Status denoise(const HeadOnce& a, Stream stream);

}  // namespace marfast::cuda
