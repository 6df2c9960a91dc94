#pragma once

// The CUDA runtime as csrc/cuda/kernels.cu calls it, over the emulator: a device with few and small
// multiprocessors, each of which holds one block, and that refuses what a GPU refuses. The includer
// has said, by know(marfast::cuda::Memory&, args), what memory a launch's arguments speak of.

#include <map>
#include <string>

#include "emulator.h"

using dim3 = marfast::emulation::Dim3;
using cudaStream_t = void*;
using cudaError_t = int;

enum : cudaError_t {
  cudaSuccess,
  cudaErrorInvalidValue,
  cudaErrorNoDevice,
  cudaErrorTooManyBlocks
};
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrL2CacheSize,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaLaunchAttributeID { cudaLaunchAttributeCooperative };

struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    int cooperative;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

namespace marfast::emulation {

struct Driver {
  bool has_device = true;
  int multiprocessors = 4;
  int shared_bytes = 64 << 10;
  cudaStream_t stream = nullptr;              // of the latest launch
  std::map<const void*, int> allowed_shared;  // by kernel, where it was asked for
  std::string report;                         // what the emulator stopped a launch for
};
inline Driver driver;

constexpr cudaError_t kStopped = -1;

}  // namespace marfast::emulation

inline const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case marfast::emulation::kStopped:
      return marfast::emulation::driver.report.c_str();
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorTooManyBlocks:
      return "too many blocks in cooperative launch";
    default:
      return "invalid argument";
  }
}

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return marfast::emulation::driver.has_device ? cudaSuccess : cudaErrorNoDevice;
}

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const auto& driver = marfast::emulation::driver;
  *value = attribute == cudaDevAttrMultiProcessorCount            ? driver.multiprocessors
           : attribute == cudaDevAttrMaxSharedMemoryPerBlockOptin ? driver.shared_bytes
                                                                  : 1 << 20;
  return cudaSuccess;
}

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
  auto& driver = marfast::emulation::driver;
  if (bytes > driver.shared_bytes) return cudaErrorInvalidValue;
  driver.allowed_shared[reinterpret_cast<const void*>(kernel)] = bytes;
  return cudaSuccess;
}

template <class Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel*, int, size_t) {
  *blocks = 1;
  return cudaSuccess;
}

template <class Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Args),
                               const Args& args) {
  auto& driver = marfast::emulation::driver;
  driver.stream = config->stream;
  const auto allowed = driver.allowed_shared.find(reinterpret_cast<const void*>(kernel));
  const int most = allowed == driver.allowed_shared.end() ? 48 << 10 : allowed->second;
  const dim3 grid = config->gridDim;
  const bool cooperative = config->numAttrs && config->attrs->val.cooperative;
  if (config->dynamicSmemBytes > static_cast<size_t>(most)) return cudaErrorInvalidValue;
  if (grid.x == 0 || grid.y == 0) return cudaErrorInvalidValue;
  if (cooperative && grid.x * grid.y > static_cast<unsigned>(driver.multiprocessors))
    return cudaErrorTooManyBlocks;
  marfast::cuda::Memory memory;
  know(memory, args);
  try {
    marfast::emulation::launch({grid, config->blockDim, config->dynamicSmemBytes, cooperative},
                               kernel, args);
  } catch (const marfast::emulation::Report& report) {
    driver.report = report.what();
    return marfast::emulation::kStopped;
  }
  return cudaSuccess;
}
