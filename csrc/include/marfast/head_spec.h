#pragma once

// What a head computes, as named choices: marfast/reference/head_spec.py's HeadSpec, MAR's by
// default. Kernels take modulations in one order; packing puts them into it.

#include <cstdint>

namespace marfast {

enum class Norm : int32_t { none, layer, rms, std };
enum class Activation : int32_t { silu, gelu, swiglu };
enum class Condition : int32_t { linear, mlp };

// The names of an enumeration's values, in their order.
inline const char* const* names_of(Norm) {
  static const char* const names[] = {"none", "layer", "rms", "std", nullptr};
  return names;
}
inline const char* const* names_of(Activation) {
  static const char* const names[] = {"silu", "gelu", "swiglu", nullptr};
  return names;
}
inline const char* const* names_of(Condition) {
  static const char* const names[] = {"linear", "mlp", nullptr};
  return names;
}

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
  visit("norm", a.norm);
  visit("affine", a.affine);
  visit("eps", a.eps);
  visit("norm_after", a.norm_after);
  visit("eps_after", a.eps_after);
  visit("activation", a.activation);
  visit("bias", a.bias);
  visit("share", a.share);
  visit("order", a.order);
  visit("modulation_silu", a.modulation_silu);
  visit("variance", a.variance);
  visit("times", a.times);
  visit("time_norm", a.time_norm);
  visit("time_eps", a.time_eps);
  visit("condition", a.condition);
}

}  // namespace marfast
