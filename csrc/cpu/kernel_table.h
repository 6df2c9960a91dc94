#pragma once

#include "marfast/ops.h"

namespace marfast {

// One instruction set's entry for every op.
struct Kernels {
  void (*adaln_mlp)(const AdalnMlp&);
  void (*ddpm_sample)(const DdpmSample&);
  void (*ddpm_step)(const DdpmStep&);
  void (*denoise)(const Denoise&);
  void (*fused_linear)(const FusedLinear&);
  void (*group_norm_silu)(const GroupNormSilu&);
  void (*layer_norm_modulate)(const LayerNormModulate&);
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
