#pragma once

// How a kernel is launched; every kernel's file has a function that gives its own.

#include <cstdint>

#include "marfast/host_device.h"

namespace marfast {

struct LaunchShape {
  uint32_t grid_x, grid_y;
  uint32_t block;   // threads
  uint32_t shared;  // dynamic, bytes
};

MARFAST_HD inline uint32_t ceil_div(int64_t a, int64_t b) {
  return static_cast<uint32_t>((a + b - 1) / b);
}

}  // namespace marfast
