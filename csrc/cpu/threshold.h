#pragma once

// What limits a token's x0 under dynamic thresholding; for all instruction sets, none is in it.

#include <cstdint>

namespace marfast {

// The larger of 1 and a quantile of `sizes` [count > 0]: between the two that lie round place
// quantile (count - 1), in ascending order and NaN last: low + (high - low) (place's fraction).
// NaN stays NaN. The sizes are left in another order.
float threshold_of(float* sizes, int64_t count, double quantile);

}  // namespace marfast
