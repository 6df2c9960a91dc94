#pragma once

// What a head computes, as named choices: marfast/reference/head_spec.py's HeadSpec, MAR's by
// default. Kernels take modulations in one order; packing puts them into it. bindings/names.h has
// the enumerations' names.

#include <cstdint>

#include "marfast/types.h"

namespace marfast {

enum class Norm : int32_t { none, layer, rms, std };
enum class Activation : int32_t { silu, gelu, swiglu };
enum class Condition : int32_t { linear, mlp };

struct HeadSpec {
  Norm norm = Norm::layer;
  bool affine = true;
  float eps = 1e-6f;
  bool norm_after = false;
  float eps_after = 1e-5f;
  Activation activation = Activation::silu;
  bool bias = true;
  int64_t share = 1;
  const char* order = "shift scale gate";
  bool modulation_silu = true;
  bool variance = true;
  int64_t times = 1;
  Norm time_norm = Norm::none;
  float time_eps = 1e-5f;
  Condition condition = Condition::linear;

  bool gated() const { return activation == Activation::swiglu; }
  int64_t groups(int64_t depth) const { return (depth + share - 1) / share; }
  int64_t outputs(int64_t channels) const { return variance ? 2 * channels : channels; }
};

template <class Visit>
void fields(HeadSpec& a, Visit visit) {
  visit(FIELD(norm));
  visit(FIELD(affine));
  visit(FIELD(eps));
  visit(FIELD(norm_after));
  visit(FIELD(eps_after));
  visit(FIELD(activation));
  visit(FIELD(bias));
  visit(FIELD(share));
  visit(FIELD(order));
  visit(FIELD(modulation_silu));
  visit(FIELD(variance));
  visit(FIELD(times));
  visit(FIELD(time_norm));
  visit(FIELD(time_eps));
  visit(FIELD(condition));
}

}  // namespace marfast
