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
    config.gridDim = {shape.grid_x, shape.grid_y};
    config.blockDim = {shape.block};
    config.dynamicSmemBytes = shape.shared;
    config.stream = stream;
    config.attrs = &cooperative;
    config.numAttrs = shape.cooperative;
    return named(cudaLaunchKernelEx(&config, kernel, a));
  }
};

// Asks instead of launching: how many blocks a multiprocessor holds.
struct Resident {
  int64_t& blocks;

  template <class Args>
  Status operator()(void (*kernel)(Args), const LaunchShape& shape, const Args&) const {
    int each = 0;
    cudaError_t error = allow_shared(kernel, shape);
    if (!error) {
      error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(
          &each, kernel, static_cast<int>(shape.block), shape.shared);
    }
    blocks = each;
    return named(error);
  }
};

Launch on(Stream stream) { return {static_cast<cudaStream_t>(stream)}; }

}  // namespace

#define LAUNCHER(op, Args) \
  Status op(const Args& a, Stream stream) { return op##_by(a, on(stream)); }
MARFAST_CUDA_LAUNCHERS(LAUNCHER)
#undef LAUNCHER

Status device_sizes(DeviceSizes& sizes) {
  const struct {
    cudaDeviceAttr attribute;
    int64_t& size;
  } asked[] = {{cudaDevAttrMultiProcessorCount, sizes.sms},
               {cudaDevAttrMaxSharedMemoryPerBlockOptin, sizes.shared_bytes},
               {cudaDevAttrL2CacheSize, sizes.l2_bytes}};
  int device = 0, value = 0;
  cudaError_t error = cudaGetDevice(&device);
  for (const auto& a : asked) {
    if (!error) error = cudaDeviceGetAttribute(&value, a.attribute, device);
    a.size = value;
  }
  return named(error);
}

Status resident_blocks(const PersistentSample& a, int64_t& blocks) {
  DeviceSizes sizes{};
  if (const Status failed = device_sizes(sizes)) return failed;
  const Status failed = ddpm_sample_by(a, Resident{blocks});
  blocks *= sizes.sms;
  return failed;
}

}  // namespace marfast::cuda
