#pragma once

#include <cstdint>

// A record's fields, by name: visit("width", a.width).
#define FIELD(name) #name, a.name

namespace marfast {

enum class DType : int32_t { f32 = 0, bf16 = 1, f16 = 2 };

struct bfloat16 {
  uint16_t bits;
};

struct float16 {
  uint16_t bits;
};

}  // namespace marfast
