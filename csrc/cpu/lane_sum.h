#pragma once

// The package's row reduction: one order of additions, whatever the width of the registers.
//
// 64 lanes; lane l adds the elements l, l + 64, l + 128, ... in that order, starting from 0; then
// the lanes are folded by halves, lane l + 32 onto lane l, then 16, 8, 4, 2, 1. A row shorter than
// 64, or a last group that is, adds 0 where there is no element.

#include <cstdint>

namespace marfast {

// value(j, count): the elements j ... j + count - 1 in the first `count` lanes, 0 in the others.
template <class V, class Value>
float lane_sum(int64_t width, Value value) {
  static_assert(V::lanes == 16, "four vectors make the 64 lanes");
  V lane[4] = {V(0.0f), V(0.0f), V(0.0f), V(0.0f)};
  int64_t j = 0;
  for (; j + 64 <= width; j += 64) {
    for (int k = 0; k < 4; ++k) lane[k] = lane[k] + value(j + 16 * k, 16);
  }
  for (int k = 0; k < 4; ++k) {
    const int64_t left = width - (j + 16 * k);
    if (left > 0) lane[k] = lane[k] + value(j + 16 * k, left < 16 ? left : 16);
  }
  return ((lane[0] + lane[2]) + (lane[1] + lane[3])).fold();
}

}  // namespace marfast
