#pragma once

// SiLU(v) = v / (1 + exp(-v)), each operation rounded on its own; exp as marfast/exp.h defines it.

#include "marfast/exp.h"

namespace marfast {

template <class V>
MARFAST_HD inline V silu(V v) {
  const V one(1.0f);
  return v / (one + exp(V(0.0f) - v));
}

}  // namespace marfast
