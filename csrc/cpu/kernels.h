#pragma once

// Every kernel, for one vector type: what the ISA files compile.

#include "ddpm_sample.h"
#include "ddpm_step.h"
#include "fused_linear.h"
#include "group_norm_silu.h"
#include "kernel_table.h"
#include "layer_norm_modulate.h"

namespace marfast {

template <class V>
constexpr Kernels kernels_of() {
  return {
      &ddpm_sample<V>,     &ddpm_step<V>,           &fused_linear<V>,
      &group_norm_silu<V>, &layer_norm_modulate<V>,
  };
}

}  // namespace marfast
