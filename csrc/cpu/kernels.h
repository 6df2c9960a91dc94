#pragma once

// Every kernel, for one vector type and its way to multiply bfloat16 (operands.h): what the ISA
// files compile.

#include "adaln_mlp.h"
#include "attention.h"
#include "ddpm_sample.h"
#include "ddpm_step.h"
#include "denoise.h"
#include "fused_linear.h"
#include "group_norm_silu.h"
#include "kernel_table.h"
#include "layer_norm_modulate.h"

namespace marfast {

template <class V, class Pairs = BFloat16<V>>
constexpr Kernels kernels_of() {
#define KERNEL(op, Args) &op<V, Pairs>,
  return {MARFAST_CPU_KERNELS(KERNEL)};
#undef KERNEL
}

}  // namespace marfast
