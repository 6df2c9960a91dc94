// Compiled without any instruction-set flag.

#include "attention_scratch.h"

#include "packed_linear.h"

namespace marfast {

int64_t attention_scratch(int64_t length, int64_t head_dim) {
  const int64_t keys = padded(length), dims = padded(head_dim);
  return keys * dims + length * dims + kMostQueries * (keys + 2 * dims);
}

}  // namespace marfast
