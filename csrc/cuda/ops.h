#pragma once

// What the device kernels are called with, beside marfast/ops.h: weights are read where they lie,
// row-major [outputs, inputs], and nothing is packed. Elements of a row are adjacent.

#include "marfast/head_weights.h"
#include "marfast/ops.h"

namespace marfast::cuda {

// out = LN(x) (1 + scale) + shift; x of dtype, shift and scale of modulation_dtype, weight and bias
// of affine_dtype, out of out_dtype. Any mix of dtypes that variants.h lists.
struct NormModulate : LayerNormModulate {
  DType modulation_dtype;
  DType affine_dtype;
  DType out_dtype;
};

// out[r] = SiLU(time[r / group] + condition[r % period]), rounded to dtype.
struct SiluSum {
  void* out;               // [R, w] of dtype
  const float* time;       // [R / group, w]
  const float* condition;  // [period, w]
  int64_t rows;            // R
  int64_t group;
  int64_t period;
  int64_t width;  // w
  DType dtype;
};

// What follows a product y of weights of dtype: y + b, then | act | residual + gate times it.
struct Epilogue {
  void* out;              // [R, J], of dtype when activated, else float32
  const void* bias;       // [J] of dtype
  const void* gate;       // [R, J] of gate_dtype, or null: no gate, no residual
  const float* residual;  // [R, J], with gate; may be out
  int64_t rows;           // R
  int64_t outputs;        // J
  int64_t out_stride;
  int64_t gate_stride;
  int64_t residual_stride;
  DType dtype;
  DType gate_dtype;  // float32, or after a library's product dtype
  bool activated;    // by SiLU
};

// y = x W^T
struct LinearLayer : Epilogue {
  const void* x;       // [R, K] of dtype
  const void* weight;  // [J, K] of dtype
  int64_t inputs;      // K
  int64_t x_stride;
};

// y is a library's.
struct LinearEpilogue : Epilogue {
  const void* product;  // [R, J] of dtype
  int64_t product_stride;
};

// How the persistent kernel shares its work (plan.h), on P x Q CTAs.
struct PersistentPlan {
  int64_t row_groups;     // P
  int64_t column_groups;  // Q
  int64_t row_tile;       // rows that a CTA takes at a time, 8 ... 128
  int64_t columns;        // the most outputs of a CTA
  int64_t stationary;     // of the 2 d products: those whose weights stay in shared memory
  bool staged;            // the others' weights go through shared memory, else they are read in L2
  bool normalise_once;
};

template <class Visit>
void fields(PersistentPlan& a, Visit visit) {
  visit(FIELD(row_groups));
  visit(FIELD(column_groups));
  visit(FIELD(row_tile));
  visit(FIELD(columns));
  visit(FIELD(stationary));
  visit(FIELD(staged));
  visit(FIELD(normalise_once));
}

// Consecutive steps of ddpm_sample, by the persistent kernel. Its size is bounded: a kernel has
// 4 KiB of parameters.
struct PersistentSample {
  static constexpr int64_t kMostDepth = 32;
  // Of dtype, dense, the 2 d products' at multiples of 16 bytes.
  const void* weights[HeadWeights::count(kMostDepth)];
  float* out;                        // [N, C]: the state after them
  const float* before;               // [N, C]: the state before them
  const float* step_noise;           // [S, N, C]
  const StepCoefficients* schedule;  // [S]
  const float* guidance;             // [S], read only when guided
  const float* modulation;           // [S, R, (3 d + 2) w]
  float* x;                          // [R, w] to work in, as the next four
  float* state;                      // [4, N, C]
  float* output;                     // [R, 2 C]
  void* normed;                      // [R, w] of dtype
  void* hidden;                      // [R, w] of dtype
  uint32_t* barrier;                 // [1], 0
  float* x0;                         // [N, C], as ddpm_step's
  HeadShape shape;
  PersistentPlan plan;
  HeadOptions options;
  int64_t tokens;  // N
  int64_t steps;   // S
  int64_t step_noise_stride;
  DType dtype;
  uint64_t limit_ns;  // of a wait at a barrier
};
static_assert(sizeof(PersistentSample) <= 4 << 10, "a kernel's parameters");

}  // namespace marfast::cuda
