// Compiled without any instruction-set flag.

#include "packed_head.h"

#include <sys/mman.h>

#include <cstring>
#include <initializer_list>

namespace marfast {

namespace {

// Hands out the parts of a buffer, one after another.
struct Cursor {
  DType dtype;
  const float* packed;
  int64_t used = 0;

  const float* take(int64_t floats) {
    const float* part = packed ? packed + used : nullptr;  // null: only the size is wanted
    used += floats;
    return part;
  }
  Linear linear(int64_t inputs, int64_t outputs) {
    const int64_t size = packed_size(linear_at(nullptr, inputs, outputs, dtype));
    return linear_at(take(size), inputs, outputs, dtype);
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

PackedHead::PackedHead(const HeadShape& shape, DType dtype, const float* packed)
    : shape_(shape), dtype_(dtype) {
  Cursor cursor{dtype, packed};
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

BlockWeights PackedHead::block(int64_t index) const {
  return Cursor{dtype_, blocks_ + index * block_size_}.block(shape_.width);
}

int64_t PackedHead::size() const { return before_blocks_ + shape_.depth * block_size_; }

void pack_head(const HeadShape& shape, DType dtype, DType from, const HeadWeights& weights,
               float* packed) {
  PackedHead head(shape, dtype, packed);
  use_huge_pages(packed, head.size());
  std::memset(packed, 0, sizeof(float) * head.size());
  const auto pack_as = [&](const Linear& layer, int64_t first, int64_t outputs, Layer given) {
    pack(layer, dtype, first, outputs, from, given.weight, given.bias);
  };
  const int64_t w = shape.width, d = shape.depth;
  pack_as(head.time_in, 0, w, weights.time_in());
  pack_as(head.time_out, 0, w, weights.time_out());
  pack_as(head.condition, 0, w, weights.condition());
  pack_as(head.input, 0, w, weights.input());
  for (int64_t b = 0; b < d; ++b) {
    const BlockWeights block = head.block(b);
    unpack(w, from, weights.norm(b).weight, const_cast<float*>(block.norm_weight));
    unpack(w, from, weights.norm(b).bias, const_cast<float*>(block.norm_bias));
    pack_as(block.in, 0, w, weights.in(b));
    pack_as(block.out, 0, w, weights.out(b));
    pack_as(head.modulation, 3 * w * b, 3 * w, weights.modulation(b));
  }
  pack_as(head.final, 0, 2 * shape.channels, weights.final());
  pack_as(head.modulation, 3 * w * d, 2 * w, weights.final_modulation());
}

}  // namespace marfast
