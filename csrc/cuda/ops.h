#pragma once

// What the device kernels are called with, beside marfast/ops.h: weights are read where they lie,
// row-major [outputs, inputs], and nothing is packed. Elements of a row are adjacent.

#include "marfast/ops.h"

namespace marfast::cuda {

// out = LN(x) (1 + scale) + shift; x, shift and scale of dtype, weight and bias of affine_dtype,
// out of out_dtype. Any mix of dtypes that kernels.cu's table lists.
struct NormModulate {
  LayerNormModulate rows;
  DType affine_dtype;
  DType out_dtype;
};

// out[r] = SiLU(a[r / group] + b[r % period]), rounded to dtype.
struct SiluSum {
  void* out;       // [R, w] of dtype
  const float* a;  // [R / group, w]
  const float* b;  // [period, w]
  int64_t rows;    // R
  int64_t group;
  int64_t period;
  int64_t width;  // w
  DType dtype;
};

// y = x W^T + b; out = y | SiLU(y) | residual + gate y.
struct LinearLayer {
  void* out;              // [R, J], of dtype when silu, else float32
  const void* x;          // [R, K] of dtype
  const void* weight;     // [J, K] of dtype
  const void* bias;       // [J] of dtype
  const float* gate;      // [R, J], or null: no gate, no residual
  const float* residual;  // [R, J], with gate
  int64_t rows;           // R
  int64_t inputs;         // K
  int64_t outputs;        // J
  int64_t out_stride;
  int64_t x_stride;
  int64_t gate_stride;
  int64_t residual_stride;
  DType dtype;
  bool silu;
};

struct ResidualBlock {
  float* out;               // [R, w], may be x
  const float* x;           // [R, w]
  const float* shift;       // [R, w]
  const float* scale;       // [R, w]
  const float* gate;        // [R, w]
  const void* norm_weight;  // [w] of affine_dtype
  const void* norm_bias;    // [w] of affine_dtype
  const void* w1;           // [w, w] of dtype, as the next three
  const void* b1;           // [w]
  const void* w2;           // [w, w]
  const void* b2;           // [w]
  void* normed;             // [R, w] of dtype to work in, as the next
  void* hidden;             // [R, w]
  int64_t rows;             // R
  int64_t width;            // w
  int64_t x_stride;
  int64_t shift_stride;
  int64_t scale_stride;
  int64_t gate_stride;
  DType affine_dtype;
  DType dtype;
  float eps;
};

// softmax(Q K^T / sqrt(hd)) V; a query that isn't a position 0 ... L - 1 gives NaN.
struct Attention {
  void* out;               // [B, Lq, H, hd] of dtype, dense
  const void* qkv;         // [B, L, 3, H, hd] of dtype
  const int64_t* queries;  // [B, Lq], dense; or null: all positions
  int64_t batch;           // B
  int64_t length;          // L, below 2^31, as B H Lq
  int64_t wanted;          // Lq
  int64_t heads;           // H
  int64_t head_dim;        // hd
  int64_t batch_stride;
  int64_t position_stride;
  int64_t part_stride;
  int64_t head_stride;
  DType dtype;
  bool causal;
  float scale;  // 1 / sqrt(hd)
};

struct HeadOnce {
  float* out;                  // [R, 2C]
  const void* x;               // [R, C] of dtype, as the next two
  const void* condition;       // [R, D]
  const void* time_embedding;  // [R, frequencies]
  const void* const* weights;  // the 12 + 8 d tensors of the state_dict, of dtype, dense
  float* workspace;  // float32: time, condition, x [R, w] each, modulation [R, (3 d + 2) w]
  void* elements;    // of dtype: three times [R, w]
  HeadShape shape;
  int64_t rows;  // R
  DType dtype;
};

// Consecutive steps of ddpm_sample, by the persistent kernel.
struct PersistentSample {
  float* out;                  // [N, C]: the state after them
  const float* in;             // [N, C]: the state before them
  const float* step_noise;     // [S, N, C]
  const float* schedule;       // [S, 7]
  const float* guidance;       // [1], read only when guided
  const float* modulation;     // [S, R, (3 d + 2) w]
  const void* const* weights;  // on the device: the 12 + 8 d tensors of the state_dict, of dtype,
                               // dense, the 2 d products' at multiples of 16 bytes
  float* x;                    // [R, w] to work in, as the next three
  float* state;                // [N, C]
  void* normed;                // [R, w] of dtype
  void* hidden;                // [R, w] of dtype
  uint32_t* barrier;           // [1], 0
  HeadShape shape;
  int64_t tokens;  // N
  int64_t steps;   // S
  int64_t step_noise_stride;
  int64_t row_groups;  // of the plan (plan.h), as the next five
  int64_t column_groups;
  int64_t row_tile;
  int64_t columns;
  int64_t stationary;
  bool staged;
  bool normalise_once;
  DType dtype;
  bool guided;
  float temperature;
  bool clip_denoised;
  uint64_t limit_ns;  // of a wait at a barrier
};

// What PersistentSample reads on the device and the host alone knows, written by a launch and not a
// copy: a graph keeps it.
struct SampleTables {
  static constexpr int64_t kSlots = 256;
  const void** weights;  // [first + count] at least
  uint32_t* barrier;     // [1], set to 0
  int64_t first;
  int64_t count;
  const void* values[kSlots];  // weights[first ...]
};

}  // namespace marfast::cuda
