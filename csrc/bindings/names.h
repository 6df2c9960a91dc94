#pragma once

// The names that Python has for the values of enumerations, in their order.

#include <cstring>
#include <stdexcept>
#include <string>

#include "marfast/head_spec.h"

namespace marfast::wire {

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

template <class Enum>
Enum named(const char* name) {
  const char* const* names = names_of(Enum{});
  for (int i = 0; names[i]; ++i) {
    if (std::strcmp(names[i], name) == 0) return static_cast<Enum>(i);
  }
  throw std::invalid_argument(std::string("no kernel knows ") + name);
}

}  // namespace marfast::wire
