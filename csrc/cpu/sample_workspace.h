#pragma once

// How ddpm_sample divides its workspace.

#include <cstdint>

#include "marfast/ops.h"

namespace marfast {

struct SampleWorkspace {
  explicit SampleWorkspace(const DdpmSample& a);

  int64_t stride, modulation_stride, output_stride;
  float* time;         // [S, stride]: T
  float* time_hidden;  // [S, stride]
  float* condition;    // [R, stride]: c
  float* activated;    // [chunk * R, stride]: y
  float* modulation;   // [chunk * R, modulation_stride]: M
  float* x;            // [R, stride]
  float* normed;       // [R, stride]
  float* hidden;       // [R, stride]
  float* output;       // [R, output_stride]: epsilon and v
  float* state[2];     // [N, C], at the start of even and of odd steps
  int64_t size;        // floats in all
};

}  // namespace marfast
