#pragma once

// How the head's kernels divide their workspace.

#include <cstdint>

#include "marfast/ops.h"

namespace marfast {

// For R rows, whose condition meets T timesteps in P pairs at a time. Rows lie padded(size) + 32
// elements apart, so that they do not fall into the same cache sets. What a product reads (void*)
// is stored as its operands are (operands.h), in at most 4 bytes an element.
struct HeadWorkspace {
  HeadWorkspace(const HeadShape& shape, const HeadSpec& spec, int64_t rows, int64_t times,
                int64_t pairs, float* buffer);

  int64_t stride;              // of rows of w
  int64_t hidden_stride;       // of rows of h
  int64_t modulation_stride;   // of rows of (3 d + 2) w, or fewer where blocks share
  int64_t frequencies_stride;  // of rows of frequencies
  int64_t condition_stride;    // of rows of D
  int64_t channels_stride;     // of rows of 2C
  void* frequencies;           // [T, frequencies_stride]: the timesteps' embedding
  void* condition_in;          // [R, condition_stride]: z
  void* condition_hidden;      // [R, stride], of a condition's MLP
  void* time_hidden;           // [T, stride]
  float* time;                 // [T, stride]: e
  float* other_time;           // [T, stride], of several times
  float* condition;            // [R, stride]: c
  void* activated;             // [P, stride]: y
  float* modulation;           // [P, modulation_stride]: M
  void* tokens;                // [R, channels_stride]: the tokens that enter
  float* x;                    // [R, stride]
  void* normed;                // [R, stride]
  void* hidden;                // [R, hidden_stride]
  float* output;               // [R, channels_stride]: epsilon and v
  int64_t size;                // floats in all
};

// How many groups of tokens there are, and the g-th as a call of its own.
int64_t groups_of(const DdpmSample& a);
DdpmSample group_of(const DdpmSample& a, int64_t g);

// ddpm_sample's, of one group: the head's, then the tokens' state [N, C] at the start of even and
// of odd steps.
struct SampleWorkspace {
  explicit SampleWorkspace(const DdpmSample& a);

  HeadWorkspace head;
  float* state[2];
  int64_t size;
};

// Floats of all groups' workspaces, one after the other.
int64_t sample_workspace(const DdpmSample& a);

}  // namespace marfast
