#pragma once

// A linear layer's weights as products read them (linear.h).
//
// Panels of 32 outputs, [ceil(J / 32)][K][32] in float32; in bfloat16 two values of k lie side by
// side, [ceil(J / 32)][ceil(K / 2)][32][2], so that one 32-bit lane holds an output's pair. Then
// the bias, [ceil(J / 32) * 32] float32. Zeros beyond J and K.
//
// A layer whose outputs are multiplied in pairs (SwiGLU), j of the first half of 2h with j of the
// second, has 16 pairs a panel: the first of each in a panel's first 16 outputs.

#include <cstdint>

#include "marfast/types.h"

namespace marfast {

constexpr int64_t kPanel = 32;

int64_t padded(int64_t size);  // to whole panels
int64_t paired(int64_t size);  // outputs of so many pairs, in whole panels

struct Linear {
  const char* panels;
  const float* bias;
  int64_t inputs;   // K
  int64_t outputs;  // J
  int64_t panel_count;
  int64_t panel_bytes;

  const char* panel(int64_t p) const { return panels + p * panel_bytes; }
};

// Where the parts of a packed layer lie; `packed` may be null where only the size is wanted.
Linear linear_at(const float* packed, int64_t inputs, int64_t outputs, DType dtype);

int64_t packed_size(const Linear& layer);  // in floats

// weight [outputs, K] and bias [outputs], of type `from`, become the outputs from `first` on; all
// else must be 0. Weights are rounded to dtype, to nearest even.
void pack(const Linear& layer, DType dtype, int64_t first, int64_t outputs, DType from,
          const void* weight, const void* bias);

// The same of a layer of pairs: weight [2 pairs, K], bias [2 pairs]. A bias may be null: 0.
void pack_pairs(const Linear& layer, DType dtype, int64_t pairs, DType from, const void* weight,
                const void* bias);

// The element at an index of an array of type `from`; null of null.
const void* element(const void* values, DType from, int64_t index);

// A whole layer into a buffer of packed_size floats.
void pack_linear(int64_t inputs, int64_t outputs, DType dtype, DType from, const void* weight,
                 const void* bias, float* packed);

// Values of type `from` as float32.
void unpack(int64_t size, DType from, const void* values, float* out);

}  // namespace marfast
