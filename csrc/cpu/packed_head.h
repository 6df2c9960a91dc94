#pragma once

// The head's weights as its kernels read them: one buffer of panels (packed_linear.h), packed once.

#include <cstdint>

#include "marfast/head_weights.h"
#include "marfast/ops.h"
#include "packed_linear.h"

namespace marfast {

struct BlockWeights {
  Linear in, out;            // w -> w
  const float* norm_weight;  // [w]
  const float* norm_bias;    // [w]
};

// Where every part lies in a packed buffer.
class PackedHead {
 public:
  PackedHead(const HeadShape& shape, DType dtype, const float* packed);

  Linear time_in, time_out, condition, input, modulation, final;
  BlockWeights block(int64_t index) const;
  int64_t size() const;  // floats in the whole buffer

 private:
  HeadShape shape_;
  DType dtype_;
  const float* blocks_;
  int64_t before_blocks_, block_size_;
};

// `weights` are dense and of type `from`; those of products are stored as dtype (f32 or bf16), the
// rest as float32.
void pack_head(const HeadShape& shape, DType dtype, DType from, const HeadWeights& weights,
               float* packed);

}  // namespace marfast
