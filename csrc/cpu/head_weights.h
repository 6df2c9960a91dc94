#pragma once

// The head's weights as the sampler reads them: one buffer of panels (linear.h), packed once.

#include <cstdint>

#include "linear.h"
#include "marfast/ops.h"

namespace marfast {

int64_t padded(int64_t size);  // to whole panels

struct BlockWeights {
  Linear in, out;            // w -> w
  const float* norm_weight;  // [w]
  const float* norm_bias;    // [w]
};

// Where every part lies in a packed buffer.
class HeadWeights {
 public:
  HeadWeights(const HeadShape& shape, const float* packed);

  Linear time_in, time_out, condition, input, modulation, final;
  BlockWeights block(int64_t index) const;
  int64_t size() const;  // floats in the whole buffer

 private:
  HeadShape shape_;
  const float* blocks_;
  int64_t before_blocks_, block_size_;
};

// `weights` are the float32, dense tensors of a SimpleMLPAdaLN, in the order of its state_dict.
void pack_head(const HeadShape& shape, const float* const* weights, float* packed);

}  // namespace marfast
