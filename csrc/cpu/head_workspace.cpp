// Compiled without any instruction-set flag.

#include "head_workspace.h"

#include "packed_linear.h"

namespace marfast {

namespace {

int64_t rows_of(const DdpmSample& a) { return a.options.branches * a.tokens; }

int64_t row_stride(int64_t size) { return padded(size) + kPanel; }

int64_t workspace_of_group(DdpmSample a) {
  a.tokens = a.group;
  return SampleWorkspace(a).size;
}

}  // namespace

HeadWorkspace::HeadWorkspace(const HeadShape& shape, const HeadSpec& spec, int64_t rows,
                             int64_t times, int64_t pairs, float* buffer)
    : size(0) {
  const auto take = [&](int64_t floats) {
    float* part = buffer ? buffer + size : nullptr;  // null: only the size is wanted
    size += floats;
    return part;
  };
  stride = row_stride(shape.width);
  hidden_stride = row_stride(shape.hidden);
  modulation_stride = row_stride((3 * spec.groups(shape.depth) + 2) * shape.width);
  frequencies_stride = row_stride(shape.frequencies);
  condition_stride = row_stride(shape.condition);
  channels_stride = row_stride(2 * shape.channels);
  frequencies = take(times * frequencies_stride);
  condition_in = take(rows * condition_stride);
  condition_hidden = take(spec.condition == Condition::mlp ? rows * stride : 0);
  time_hidden = take(times * stride);
  time = take(times * stride);
  other_time = take(spec.times > 1 ? times * stride : 0);
  condition = take(rows * stride);
  activated = take(pairs * stride);
  modulation = take(pairs * modulation_stride);
  tokens = take(rows * channels_stride);
  x = take(rows * stride);
  normed = take(rows * stride);
  hidden = take(rows * hidden_stride);
  output = take(rows * channels_stride);
}

int64_t groups_of(const DdpmSample& a) { return (a.tokens + a.group - 1) / a.group; }

DdpmSample group_of(const DdpmSample& a, int64_t g) {
  const int64_t first = g * a.group, left = a.tokens - first, c = a.shape.channels;
  DdpmSample part = a;
  part.tokens = part.group = left < a.group ? left : a.group;
  part.out += first * c;
  part.noise += first * c;
  part.step_noise += first * c;
  part.condition += a.options.branches * first * a.shape.condition;
  if (a.x0) part.x0 += first * c;
  part.workspace += g * workspace_of_group(a);
  return part;
}

SampleWorkspace::SampleWorkspace(const DdpmSample& a)
    : head(a.shape, a.spec, rows_of(a), a.steps, a.chunk * rows_of(a), a.workspace) {
  const int64_t tokens = padded(a.tokens * a.shape.channels);
  size = head.size;
  for (float*& s : state) {
    s = a.workspace ? a.workspace + size : nullptr;
    size += tokens;
  }
}

int64_t sample_workspace(const DdpmSample& a) { return groups_of(a) * workspace_of_group(a); }

}  // namespace marfast
