// Compiled without any instruction-set flag.

#include "packed_linear.h"

#include <cstring>
#include <initializer_list>

#include "vec_portable.h"

namespace marfast {

namespace {

constexpr int64_t kPairs = kPanel / 2;  // of a panel

int64_t bytes_a_panel(int64_t inputs, DType dtype) {
  const int64_t pairs = (inputs + 1) / 2;
  return dtype == DType::bf16 ? pairs * kPanel * 4 : inputs * kPanel * 4;
}

// Value k of output j of a panel.
template <class To>
To& entry(const char* panel, int64_t k, int64_t place) {
  constexpr int64_t together = sizeof(float) / sizeof(To);
  To* values = reinterpret_cast<To*>(const_cast<char*>(panel));
  return values[(k / together * kPanel + place) * together + k % together];
}

template <class To, class From>
void pack_as(const Linear& layer, int64_t first, int64_t outputs, const From* weight,
             const From* bias) {
  float* to_bias = const_cast<float*>(layer.bias) + first;
  for (int64_t j = 0; j < outputs; ++j) {
    const char* panel = layer.panel((first + j) / kPanel);
    const From* row = weight + j * layer.inputs;
    for (int64_t k = 0; k < layer.inputs; ++k) {
      from_float(to_float(row[k]), &entry<To>(panel, k, (first + j) % kPanel));
    }
    if (bias) to_bias[j] = to_float(bias[j]);
  }
}

template <class From>
void pack_from(const Linear& layer, DType dtype, int64_t first, int64_t outputs, const void* weight,
               const void* bias) {
  const From *w = static_cast<const From*>(weight), *b = static_cast<const From*>(bias);
  dtype == DType::bf16 ? pack_as<bfloat16>(layer, first, outputs, w, b)
                       : pack_as<float>(layer, first, outputs, w, b);
}

}  // namespace

int64_t padded(int64_t size) { return (size + kPanel - 1) / kPanel * kPanel; }

int64_t paired(int64_t size) { return (size + kPairs - 1) / kPairs * kPanel; }

Linear linear_at(const float* packed, int64_t inputs, int64_t outputs, DType dtype) {
  Linear layer{};
  layer.inputs = inputs;
  layer.outputs = outputs;
  layer.panel_count = padded(outputs) / kPanel;
  layer.panel_bytes = bytes_a_panel(inputs, dtype);
  if (packed) {
    layer.panels = reinterpret_cast<const char*>(packed);
    layer.bias = reinterpret_cast<const float*>(layer.panel(layer.panel_count));
  }
  return layer;
}

int64_t packed_size(const Linear& layer) {
  return layer.panel_count * (layer.panel_bytes / 4 + kPanel);
}

void pack(const Linear& layer, DType dtype, int64_t first, int64_t outputs, DType from,
          const void* weight, const void* bias) {
  switch (from) {
    case DType::f32:
      return pack_from<float>(layer, dtype, first, outputs, weight, bias);
    case DType::bf16:
      return pack_from<bfloat16>(layer, dtype, first, outputs, weight, bias);
    case DType::f16:
      return pack_from<float16>(layer, dtype, first, outputs, weight, bias);
  }
}

void pack_pairs(const Linear& layer, DType dtype, int64_t pairs, DType from, const void* weight,
                const void* bias) {
  for (int64_t first = 0; first < pairs; first += kPairs) {
    const int64_t count = pairs - first < kPairs ? pairs - first : kPairs;
    for (const int64_t half : {0, 1}) {
      const int64_t row = half * pairs + first;
      pack(layer, dtype, 2 * first + half * kPairs, count, from,
           element(weight, from, row * layer.inputs), element(bias, from, row));
    }
  }
}

const void* element(const void* values, DType from, int64_t index) {
  const int64_t size = from == DType::f32 ? 4 : 2;
  return values ? static_cast<const char*>(values) + index * size : nullptr;
}

void pack_linear(int64_t inputs, int64_t outputs, DType dtype, DType from, const void* weight,
                 const void* bias, float* packed) {
  const Linear layer = linear_at(packed, inputs, outputs, dtype);
  std::memset(packed, 0, sizeof(float) * packed_size(layer));
  pack(layer, dtype, 0, outputs, from, weight, bias);
}

void unpack(int64_t size, DType from, const void* values, float* out) {
  for (int64_t i = 0; i < size; ++i) {
    out[i] = from == DType::f32    ? static_cast<const float*>(values)[i]
             : from == DType::bf16 ? to_float(static_cast<const bfloat16*>(values)[i])
                                   : to_float(static_cast<const float16*>(values)[i]);
  }
}

}  // namespace marfast
