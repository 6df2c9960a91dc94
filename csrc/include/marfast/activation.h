#pragma once

// The activation of a head's blocks, the same on every vector type.

#include "marfast/ops.h"
#include "marfast/silu.h"

namespace marfast {

template <class V>
MARFAST_HD inline V activate(V v, const HeadOptions&) {
  return silu(v);
}

}  // namespace marfast
