// The launchers of the GPU: every variant is instantiated here.

#include "cuda/variants.h"

namespace marfast::cuda {
namespace {

struct Launch {
  cudaStream_t stream;

  template <class Args>
  Status operator()(void (*kernel)(Args), const LaunchShape& shape, const Args& a) const {
    kernel<<<dim3(shape.grid_x, shape.grid_y), shape.block, shape.shared, stream>>>(a);
    const cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
  }
};

Launch on(Stream stream) { return {static_cast<cudaStream_t>(stream)}; }

}  // namespace

Status ddpm_step(const DdpmStep& a, Stream stream) { return ddpm_step_by(a, on(stream)); }
Status layer_norm_modulate(const NormModulate& a, Stream stream) {
  return layer_norm_modulate_by(a, on(stream));
}
Status silu_sum(const SiluSum& a, Stream stream) { return silu_sum_by(a, on(stream)); }
Status linear(const LinearLayer& a, Stream stream) { return linear_by(a, on(stream)); }
Status attention(const Attention& a, Stream stream) { return attention_by(a, on(stream)); }

}  // namespace marfast::cuda
