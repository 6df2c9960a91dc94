#pragma once

// denoise: the head (head_pass.h) once, row r at a timestep of its own. Bytes moved: all weights
// once, (5 d + 2) w^2 and the ends; flops: twice that for each row. Floor: the larger of the two.

#include "head_pass.h"

namespace marfast {

template <class V, class F>
void denoise_as(const Denoise& a, const Team& team) {
  const int64_t c = a.shape.channels, outputs = a.spec.outputs(c);
  const HeadWorkspace at(a.shape, a.spec, a.rows, a.rows, a.rows, a.workspace);
  HeadPass<V, F> pass(a.shape, a.spec, a.weight_dtype, a.packed, at, a.rows, team);
  const Range own = team.share(a.rows);
  pass.embed(a.time_embedding, a.rows, a.condition);
  for (int64_t r = own.begin; r < own.end; ++r) pass.input(a.x + r * c, r, a.rows);
  pass.modulate(a.rows, [](int64_t p) { return p; });
  pass.blocks(0);
  team.barrier();
  for (int64_t r = own.begin; r < own.end; ++r) {
    pass.final(0, r, a.rows, a.out + r * outputs, outputs);
  }
}

template <class V, class BFloat16>
void denoise(const Denoise& a) {
  run_team(a.threads, [&a](const Team& team) {
    a.weight_dtype == DType::bf16 ? denoise_as<V, BFloat16>(a, team)
                                  : denoise_as<V, Float32<V>>(a, team);
  });
}

}  // namespace marfast
