#pragma once

// What marfast._cpu is put together from, a file each.

#include <pybind11/pybind11.h>

#include <cstdint>

#include "cpu/packed_linear.h"

namespace marfast {

inline int64_t packed_linear_size(int64_t inputs, int64_t outputs, DType dtype) {
  return packed_size(linear_at(nullptr, inputs, outputs, dtype));
}

void def_packing(pybind11::module_& m);
void def_plan(pybind11::module_& m);

}  // namespace marfast
