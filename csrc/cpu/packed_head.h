#pragma once

// The head's weights as its kernels read them: one buffer of panels (packed_linear.h), packed once.
// Modulations lie in the order shift, scale, gate, whatever the head's own is.

#include <cstdint>

#include "marfast/ops.h"
#include "packed_linear.h"

namespace marfast {

struct Affine {
  const float* weight = nullptr;  // [w], or null: 1
  const float* bias = nullptr;    // [w], or null: 0
};

struct TimeWeights {
  Linear in, out;  // frequencies -> w -> w
  Affine norm;
};

struct BlockWeights {
  Linear in, out;  // w -> h -> w; gated, `in` has pairs of outputs (packed_linear.h)
  Affine norm, after;
};

// Where every part lies in a packed buffer.
class PackedHead {
 public:
  PackedHead(const HeadShape& shape, const HeadSpec& spec, DType dtype, const float* packed);

  Linear condition_in, condition, input, modulation, final;  // condition_in of an MLP alone
  TimeWeights time(int64_t index) const;
  BlockWeights block(int64_t index) const;
  int64_t size() const;  // floats in the whole buffer

 private:
  HeadShape shape_;
  HeadSpec spec_;
  DType dtype_;
  const float *times_, *blocks_;
  int64_t time_size_, block_size_, others_;
};

// How many tensors such a head has.
int64_t head_tensors(const HeadShape& shape, const HeadSpec& spec);

// `tensors` are dense and of type `from`, in the order of marfast/reference/head_weights.py's
// layout; those of products are stored as dtype (f32 or bf16), the rest as float32.
void pack_head(const HeadShape& shape, const HeadSpec& spec, DType dtype, DType from,
               const void* const* tensors, float* packed);

}  // namespace marfast
