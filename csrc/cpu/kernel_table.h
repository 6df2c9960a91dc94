#pragma once

#include "marfast/ops.h"

// Every op with CPU kernels, and its struct: the one list. Dispatch, bindings and the sanitizers'
// driver come from it.
#define MARFAST_CPU_KERNELS(KERNEL)      \
  KERNEL(adaln_mlp, AdalnMlp)            \
  KERNEL(attention, TeamAttention)       \
  KERNEL(ddpm_sample, DdpmSample)        \
  KERNEL(ddpm_step, DdpmStep)            \
  KERNEL(denoise, Denoise)               \
  KERNEL(fused_linear, FusedLinear)      \
  KERNEL(group_norm_silu, GroupNormSilu) \
  KERNEL(layer_norm_modulate, LayerNormModulate)

namespace marfast {

// One instruction set's entry for every op.
struct Kernels {
#define KERNEL(op, Args) void (*op)(const Args&);
  MARFAST_CPU_KERNELS(KERNEL)
#undef KERNEL
};

// Each defined by the file of its name.
namespace portable {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
namespace avx512_amx {
extern const Kernels kernels;
}
namespace avx512_bf16 {
extern const Kernels kernels;
}

}  // namespace marfast
