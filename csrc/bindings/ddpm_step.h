#pragma once

// ddpm_step's arguments, which the CPU's kernel and the GPU's take alike.

#include "bindings/wire.h"

namespace marfast {

inline int64_t rows_of(const HeadOptions& options, int64_t tokens) {
  return options.branches * tokens;
}

// Rows of a table, as tensors have them: numbers side by side.
inline void fill_coefficients(wire::Given& given, const char* name, const StepCoefficients*& rows,
                              std::initializer_list<int64_t> sizes) {
  const float* numbers = nullptr;
  given.dense(name, numbers, sizes);
  rows = reinterpret_cast<const StepCoefficients*>(numbers);
}

inline void fill(wire::Given& given, DdpmStep& a) {
  given.sizes("x", {&a.tokens, &a.channels});
  given.record(FIELD(options));
  a.model_output_dtype = given.dtype("model_output");
  given.dense(FIELD(out), {a.tokens, a.channels});
  given.rows(ROWS(x), a.tokens, a.channels);
  given.rows(ROWS(model_output), rows_of(a.options, a.tokens),
             a.options.learned_range ? 2 * a.channels : a.channels, a.model_output_dtype);
  given.rows(ROWS(noise), a.tokens, a.channels);
  fill_coefficients(given, FIELD(coefficients), {kCoefficients});
  if (given.has("x0")) given.dense(FIELD(x0), {a.tokens, a.channels});
  given.dense(FIELD(guidance), {a.options.scales()});
}

}  // namespace marfast
