// The launchers of the GPU: every variant is instantiated here.

#include "cuda/variants.h"

namespace marfast::cuda {
namespace {

Status named(cudaError_t error) {
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

// More shared memory than 48 KB has to be asked for, once a kernel and device.
template <class Kernel>
cudaError_t allow_shared(Kernel* kernel, const LaunchShape& shape) {
  if (shape.shared <= 48 << 10) return cudaSuccess;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(shape.shared));
}

struct Launch {
  cudaStream_t stream;

  template <class Args>
  Status operator()(void (*kernel)(Args), const LaunchShape& shape, const Args& a) const {
    if (const cudaError_t error = allow_shared(kernel, shape)) return named(error);
    cudaLaunchAttribute cooperative{};
    cooperative.id = cudaLaunchAttributeCooperative;
    cooperative.val.cooperative = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(shape.grid_x, shape.grid_y);
    config.blockDim = dim3(shape.block);
    config.dynamicSmemBytes = shape.shared;
    config.stream = stream;
    config.attrs = &cooperative;
    config.numAttrs = shape.cooperative;
    return named(cudaLaunchKernelEx(&config, kernel, a));
  }
};

// Asks instead of launching.
struct Resident {
  int64_t* blocks;

  template <class Args>
  Status operator()(void (*kernel)(Args), const LaunchShape& shape, const Args&) const {
    int each = 0;
    cudaError_t error = allow_shared(kernel, shape);
    if (!error) {
      error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(
          &each, kernel, static_cast<int>(shape.block), shape.shared);
    }
    *blocks = error ? 0 : device_sizes().sms * each;
    return named(error);
  }
};

Launch on(Stream stream) { return {static_cast<cudaStream_t>(stream)}; }

}  // namespace

#define LAUNCHER(op, Args) \
  Status op(const Args& a, Stream stream) { return op##_by(a, on(stream)); }
MARFAST_CUDA_LAUNCHERS(LAUNCHER)
#undef LAUNCHER

int64_t resident_blocks(const PersistentSample& a) {
  int64_t blocks = 0;
  ddpm_sample_by(a, Resident{&blocks});
  return blocks;
}
DeviceSizes device_sizes() {
  const cudaDeviceAttr attributes[] = {cudaDevAttrMultiProcessorCount,
                                       cudaDevAttrMaxSharedMemoryPerBlockOptin,
                                       cudaDevAttrL2CacheSize};
  int device = 0, values[3] = {};
  cudaGetDevice(&device);
  for (int i = 0; i < 3; ++i) cudaDeviceGetAttribute(&values[i], attributes[i], device);
  return {values[0], values[1], values[2]};
}

}  // namespace marfast::cuda
