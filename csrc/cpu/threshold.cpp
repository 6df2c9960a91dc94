#include "threshold.h"

#include <algorithm>
#include <cmath>

namespace marfast {

float threshold_of(float* sizes, int64_t count, double quantile) {
  const auto before = [](float a, float b) { return a < b || (!std::isnan(a) && std::isnan(b)); };
  const double place = quantile * static_cast<double>(count - 1);
  float* const end = sizes + count;
  float* const below = sizes + static_cast<int64_t>(place);
  std::nth_element(sizes, below, end, before);
  const float low = *below;
  const float high = below + 1 < end ? *std::min_element(below + 1, end, before) : low;
  const float found = low + (high - low) * static_cast<float>(place - std::floor(place));
  return found < 1.0f ? 1.0f : found;
}

}  // namespace marfast
