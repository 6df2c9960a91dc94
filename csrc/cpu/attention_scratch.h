#pragma once

// What a thread of attention.h works in.

#include <cstdint>

namespace marfast {

constexpr int64_t kMostQueries = 56;  // taken at a time

int64_t attention_scratch(int64_t length, int64_t head_dim);  // in floats

}  // namespace marfast
