// Compiled without any instruction-set flag.

#include "head_weights.h"

#include <sys/mman.h>

#include <cstring>
#include <initializer_list>

namespace marfast {

namespace {

// Hands out the parts of a buffer, one after another.
struct Cursor {
  const float* packed;
  int64_t used = 0;

  const float* take(int64_t floats) {
    const float* part = packed ? packed + used : nullptr;  // null: only the size is wanted
    used += floats;
    return part;
  }
  Linear linear(int64_t inputs, int64_t outputs) {
    Linear layer{};
    layer.inputs = inputs;
    layer.outputs = outputs;
    layer.panel_count = padded(outputs) / kPanel;
    layer.panels = take(padded(outputs) * inputs);
    layer.bias = take(padded(outputs));
    return layer;
  }
  BlockWeights block(int64_t width) {
    BlockWeights weights{};
    weights.norm_weight = take(padded(width));
    weights.norm_bias = take(padded(width));
    weights.in = linear(width, width);
    weights.out = linear(width, width);
    return weights;
  }
};

// weight [outputs, inputs] and bias [outputs] become the outputs from `first` on.
void pack(const Linear& layer, int64_t first, int64_t outputs, const float* weight,
          const float* bias) {
  float* panels = const_cast<float*>(layer.panels);
  std::memcpy(const_cast<float*>(layer.bias) + first, bias, sizeof(float) * outputs);
  for (int64_t j = 0; j < outputs; ++j) {
    const int64_t output = first + j;
    float* column = panels + output / kPanel * layer.inputs * kPanel + output % kPanel;
    for (int64_t k = 0; k < layer.inputs; ++k) column[k * kPanel] = weight[j * layer.inputs + k];
  }
}

void use_huge_pages(float* data, int64_t size) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = 4096;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
  const uintptr_t end = reinterpret_cast<uintptr_t>(data + size) / page * page;
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data, (void)size;
#endif
}

}  // namespace

int64_t padded(int64_t size) { return (size + kPanel - 1) / kPanel * kPanel; }

HeadWeights::HeadWeights(const HeadShape& shape, const float* packed) : shape_(shape) {
  Cursor cursor{packed};
  const int64_t w = shape.width;
  time_in = cursor.linear(shape.frequencies, w);
  time_out = cursor.linear(w, w);
  condition = cursor.linear(shape.condition, w);
  input = cursor.linear(shape.channels, w);
  modulation = cursor.linear(w, (3 * shape.depth + 2) * w);
  final = cursor.linear(w, 2 * shape.channels);
  before_blocks_ = cursor.used;
  blocks_ = packed ? packed + cursor.used : nullptr;
  cursor.block(w);
  block_size_ = cursor.used - before_blocks_;
}

BlockWeights HeadWeights::block(int64_t index) const {
  return Cursor{blocks_ + index * block_size_}.block(shape_.width);
}

int64_t HeadWeights::size() const { return before_blocks_ + shape_.depth * block_size_; }

void pack_head(const HeadShape& shape, const float* const* weights, float* packed) {
  HeadWeights head(shape, packed);
  use_huge_pages(packed, head.size());
  std::memset(packed, 0, sizeof(float) * head.size());
  const auto next = [&weights] { return *weights++; };
  const auto pack_next = [&](const Linear& layer, int64_t first, int64_t outputs) {
    const float* weight = next();
    pack(layer, first, outputs, weight, next());
  };
  const int64_t w = shape.width;
  for (const Linear& layer : {head.time_in, head.time_out, head.condition, head.input}) {
    pack_next(layer, 0, w);
  }
  for (int64_t b = 0; b < shape.depth; ++b) {
    const BlockWeights block = head.block(b);
    std::memcpy(const_cast<float*>(block.norm_weight), next(), sizeof(float) * w);
    std::memcpy(const_cast<float*>(block.norm_bias), next(), sizeof(float) * w);
    pack_next(block.in, 0, w);
    pack_next(block.out, 0, w);
    pack_next(head.modulation, 3 * w * b, 3 * w);
  }
  pack_next(head.final, 0, 2 * shape.channels);
  pack_next(head.modulation, 3 * w * shape.depth, 2 * w);
}

}  // namespace marfast
