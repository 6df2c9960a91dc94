#pragma once

// The arguments that attention takes on every device.

#include <cmath>

#include "bindings/wire.h"

namespace marfast {

inline void fill(wire::Given& given, Attention& a) {
  const wire::View& qkv = given.view("qkv");
  a.dtype = qkv.dtype();
  given.expect(qkv.dims == 5 && qkv.sizes[2] == 3 && qkv.dense(4), "qkv",
               "has another shape or layout");
  a.qkv = qkv.data;
  a.batch = qkv.sizes[0];
  a.length = a.wanted = qkv.sizes[1];
  a.heads = qkv.sizes[3];
  a.head_dim = qkv.sizes[4];
  a.batch_stride = qkv.strides[0];
  a.position_stride = qkv.strides[1];
  a.part_stride = qkv.strides[2];
  a.head_stride = qkv.strides[3];
  if (given.has("queries")) {
    int64_t batch = 0;
    given.sizes("queries", {&batch, &a.wanted});
    given.dense(FIELD(queries), {a.batch, a.wanted});
  }
  given.dense(FIELD(out), {a.batch, a.wanted, a.heads * a.head_dim}, a.dtype);
  given.value(FIELD(causal));
  a.scale = static_cast<float>(std::pow(static_cast<double>(a.head_dim), -0.5));
}

}  // namespace marfast
