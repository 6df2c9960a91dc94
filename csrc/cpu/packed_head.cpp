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
  Affine affine(Norm norm, int64_t width) {
    Affine parts;
    if (norm != Norm::none) parts.weight = take(padded(width));
    if (norm == Norm::layer) parts.bias = take(padded(width));
    return parts;
  }
  TimeWeights time(const HeadShape& shape, const HeadSpec& spec) {
    TimeWeights weights;
    weights.in = linear(shape.frequencies, shape.width);
    weights.out = linear(shape.width, shape.width);
    weights.norm = affine(spec.time_norm, shape.width);
    return weights;
  }
  BlockWeights block(const HeadShape& shape, const HeadSpec& spec) {
    BlockWeights weights;
    weights.norm = affine(before(spec), shape.width);
    weights.in = linear(shape.width, spec.gated() ? paired(shape.hidden) : shape.hidden);
    weights.out = linear(shape.hidden, shape.width);
    weights.after = affine(after(spec), shape.width);
    return weights;
  }

  static Norm before(const HeadSpec& spec) { return spec.affine ? spec.norm : Norm::none; }
  static Norm after(const HeadSpec& spec) { return spec.norm_after ? spec.norm : Norm::none; }
};

// A head's tensors, one after another.
struct Tensors {
  const void* const* next;
  DType from;
  bool bias;

  void affine(Norm norm, int64_t width, const Affine& to) {
    if (norm != Norm::none) unpack(width, from, *next++, const_cast<float*>(to.weight));
    if (norm == Norm::layer) unpack(width, from, *next++, const_cast<float*>(to.bias));
  }
  struct Layer {
    const void *weight, *bias;
  };
  Layer layer() {
    Layer found{*next++, nullptr};
    if (bias) found.bias = *next++;
    return found;
  }
};

// The place of a part in an order such as "scale shift gate", among those of `wanted`.
int64_t place_of(const char* order, const char* part, bool gate) {
  int64_t place = 0;
  for (const char* at = order; *at && std::strncmp(at, part, std::strlen(part)) != 0; ++at) {
    const bool first = at == order || at[-1] == ' ';
    if (*at != ' ' && first && (gate || std::strncmp(at, "gate", 4) != 0)) ++place;
  }
  return place;
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

PackedHead::PackedHead(const HeadShape& shape, const HeadSpec& spec, DType dtype,
                       const float* packed)
    : shape_(shape), spec_(spec), dtype_(dtype) {
  Cursor cursor{dtype, packed};
  const int64_t w = shape.width;
  const bool deep = spec.condition == Condition::mlp;
  condition_in = cursor.linear(shape.condition, w);
  condition = deep ? cursor.linear(w, w) : condition_in;
  input = cursor.linear(shape.channels, w);
  modulation = cursor.linear(w, (3 * spec.groups(shape.depth) + 2) * w);
  final = cursor.linear(w, spec.outputs(shape.channels));
  others_ = cursor.used;
  times_ = packed ? packed + others_ : nullptr;
  cursor.time(shape, spec);
  time_size_ = cursor.used - others_;
  blocks_ = packed ? times_ + spec.times * time_size_ : nullptr;
  cursor.used = 0;
  cursor.block(shape, spec);
  block_size_ = cursor.used;
}

TimeWeights PackedHead::time(int64_t index) const {
  return Cursor{dtype_, times_ ? times_ + index * time_size_ : nullptr}.time(shape_, spec_);
}

BlockWeights PackedHead::block(int64_t index) const {
  return Cursor{dtype_, blocks_ ? blocks_ + index * block_size_ : nullptr}.block(shape_, spec_);
}

int64_t PackedHead::size() const {
  return others_ + spec_.times * time_size_ + shape_.depth * block_size_;
}

int64_t head_tensors(const HeadShape& shape, const HeadSpec& spec) {
  const auto affine = [](Norm norm) {
    return norm == Norm::none ? 0 : norm == Norm::layer ? 2 : 1;
  };
  const int64_t layer = spec.bias ? 2 : 1, conditions = spec.condition == Condition::mlp ? 2 : 1;
  const int64_t time = 2 * layer + affine(spec.time_norm);
  const int64_t block = 2 * layer + affine(Cursor::before(spec)) + affine(Cursor::after(spec));
  return spec.times * time + (conditions + 1 + spec.groups(shape.depth) + 2) * layer +
         shape.depth * block;
}

void pack_head(const HeadShape& shape, const HeadSpec& spec, DType dtype, DType from,
               const void* const* tensors, float* packed) {
  PackedHead head(shape, spec, dtype, packed);
  use_huge_pages(packed, head.size());
  std::memset(packed, 0, sizeof(float) * head.size());
  Tensors given{tensors, from, spec.bias};
  const int64_t w = shape.width, h = shape.hidden, outputs = spec.outputs(shape.channels);
  const auto pack_next = [&](const Linear& layer, int64_t size) {
    const Tensors::Layer next = given.layer();
    pack(layer, dtype, 0, size, from, next.weight, next.bias);
  };
  // Parts of w outputs, `place` of the head's own, into their order from `first` on.
  const auto pack_modulation = [&](int64_t first, bool gate) {
    const Tensors::Layer next = given.layer();
    int64_t part = 0;
    for (const char* name : {"shift", "scale", "gate"}) {
      if (part == 2 && !gate) break;
      const int64_t row = place_of(spec.order, name, gate) * w;
      pack(head.modulation, dtype, first + part * w, w, from, element(next.weight, from, row * w),
           element(next.bias, from, row));
      ++part;
    }
  };
  for (int64_t i = 0; i < spec.times; ++i) {
    const TimeWeights time = head.time(i);
    pack_next(time.in, w);
    pack_next(time.out, w);
    given.affine(spec.time_norm, w, time.norm);
  }
  pack_next(head.condition_in, w);
  if (spec.condition == Condition::mlp) pack_next(head.condition, w);
  pack_next(head.input, w);
  for (int64_t b = 0; b < shape.depth; ++b) {
    const BlockWeights block = head.block(b);
    given.affine(Cursor::before(spec), w, block.norm);
    if (spec.gated()) {
      const Tensors::Layer next = given.layer();
      pack_pairs(block.in, dtype, h, from, next.weight, next.bias);
    } else {
      pack_next(block.in, h);
    }
    pack_next(block.out, w);
    given.affine(Cursor::after(spec), w, block.after);
    if (b % spec.share == 0) pack_modulation(3 * w * (b / spec.share), true);
  }
  pack_next(head.final, outputs);
  pack_modulation(3 * w * spec.groups(shape.depth), false);
}

}  // namespace marfast
