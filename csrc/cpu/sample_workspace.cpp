// Compiled without any instruction-set flag.

#include "sample_workspace.h"

#include "head_weights.h"

namespace marfast {

SampleWorkspace::SampleWorkspace(const DdpmSample& a) : size(0) {
  const auto take = [&](int64_t floats) {
    float* part = a.workspace ? a.workspace + size : nullptr;  // null: only the size is wanted
    size += padded(floats);
    return part;
  };
  const int64_t rows = a.guided ? 2 * a.tokens : a.tokens, pairs = a.chunk * rows;
  stride = padded(a.shape.width) + kPanel;
  modulation_stride = padded((3 * a.shape.depth + 2) * a.shape.width) + kPanel;
  output_stride = padded(2 * a.shape.channels);
  time = take(a.steps * stride);
  time_hidden = take(a.steps * stride);
  condition = take(rows * stride);
  activated = take(pairs * stride);
  modulation = take(pairs * modulation_stride);
  x = take(rows * stride);
  normed = take(rows * stride);
  hidden = take(rows * stride);
  output = take(rows * output_stride);
  for (float*& s : state) s = take(a.tokens * a.shape.channels);
}

}  // namespace marfast
