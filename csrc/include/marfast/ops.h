#pragma once

// What each op's kernel is called with: raw pointers, sizes, and strides in elements. Elements of a
// row are adjacent; rows lie at any stride; outputs are dense and overlap no input. Whoever fills a
// struct has checked it: kernels check nothing.

#include <cstdint>

#include "marfast/head_spec.h"
#include "marfast/types.h"

namespace marfast {

// A head's sizes.
struct HeadShape {
  int64_t channels;     // C
  int64_t condition;    // D
  int64_t width;        // w
  int64_t depth;        // d
  int64_t frequencies;  // of the timestep embedding
  int64_t hidden;       // h, of the MLPs
};

template <class Visit>
void fields(HeadShape& a, Visit visit) {
  visit(FIELD(channels));
  visit(FIELD(condition));
  visit(FIELD(width));
  visit(FIELD(depth));
  visit(FIELD(frequencies));
  visit(FIELD(hidden));
}

// How a head is sampled: marfast/reference/diffusion.py's HeadOptions.
struct HeadOptions {
  int64_t branches;  // R = N, or 2N or 3N rows under guidance, conditional ones first
  float temperature;
  bool clip_denoised;
  bool learned_range;              // sigma is the head's, within a range, else the table's
  float dynamic_threshold = 0.0f;  // the quantile of |x_0| that limits a token's x_0, or 0

  int64_t scales() const { return branches > 2 ? branches - 1 : 1; }  // of guidance, of a step
};

template <class Visit>
void fields(HeadOptions& a, Visit visit) {
  visit(FIELD(branches));
  visit(FIELD(temperature));
  visit(FIELD(clip_denoised));
  visit(FIELD(learned_range));
  visit(FIELD(dynamic_threshold));
}

// A step's row of a sampler's table (marfast/reference/samplers.py): what each factor multiplies.
struct StepCoefficients {
  float p, q;  // x_0 = p x - q eps
  float x0, x;
  float log_beta, log_posterior;  // log sigma^2 at the ends of the learned range
  float noise;                    // sigma, or a factor of the learned one
  float previous;                 // x_0 of the step before
};

constexpr int64_t kCoefficients = sizeof(StepCoefficients) / sizeof(float);

struct DdpmStep {
  float* out;                            // [N, C]
  const float* x;                        // [N, C]
  const void* model_output;              // [R, 2C] of model_output_dtype: eps, then v; or [R, C]
  const float* noise;                    // [N, C]
  const StepCoefficients* coefficients;  // see csrc/cpu/ddpm_step.h
  const float* guidance;                 // [branches - 1], [1] at least
  float* x0;         // [N, C], x_0 of the step before, replaced by this one's; or null: not needed
  int64_t tokens;    // N
  int64_t channels;  // C
  int64_t x_stride;
  int64_t model_output_stride;
  int64_t noise_stride;
  DType model_output_dtype;
  HeadOptions options;
};

struct AdalnMlp {
  float* out;                // [R, w]
  const float* x;            // [R, w]
  const float* shift;        // [R, w]
  const float* scale;        // [R, w]
  const float* gate;         // [R, w]
  const float* norm_weight;  // [w]
  const float* norm_bias;    // [w]
  const float* packed;       // both linear layers (csrc/cpu/packed_linear.h), one after the other
  float* workspace;          // [2, group, padded(w) + 32]
  int64_t rows;              // R
  int64_t width;             // w
  int64_t group;             // rows taken at a time
  int64_t x_stride;
  int64_t shift_stride;
  int64_t scale_stride;
  int64_t gate_stride;
  DType weight_dtype;  // of the packed weights: f32 or bf16
  int threads;
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

// On the CPU.
struct TeamAttention : Attention {
  float* workspace;  // [threads, scratch]
  int64_t scratch;   // csrc/cpu/attention.h
  int threads;
};

struct FusedLinear {
  float* out;                // [R, J]
  const float* x;            // [R, K]
  const float* packed;       // the layer (csrc/cpu/packed_linear.h)
  const float* norm_weight;  // [K], or null: no LayerNorm
  const float* norm_bias;    // [K], with norm_weight
  const float* residual;     // [R, J], or null
  float* workspace;          // [threads, group, scratch_stride]
  int64_t rows;              // R
  int64_t inputs;            // K
  int64_t outputs;           // J
  int64_t group;             // rows taken at a time
  int64_t x_stride;
  int64_t residual_stride;
  int64_t scratch_stride;  // padded(K) at least
  DType weight_dtype;      // of the packed weights: f32 or bf16
  int threads;
  bool gelu;
  float eps;
};

// Channels last: the C values of a position are adjacent. All are dense.
struct GroupNormSilu {
  void* out;             // [B, P, C] of dtype, as are x, weight and bias
  const void* x;         // [B, P, C]
  const void* weight;    // [C]
  const void* bias;      // [C]
  float* moments;        // [3, B, G, chunks] to work in, as the next two
  float* group_moments;  // [2, B, C]
  float* scratch;        // [threads, 2, C]
  int64_t images;        // B
  int64_t positions;     // P
  int64_t channels;      // C
  int64_t groups;        // G, which divides C
  int64_t chunks;        // ceil(P / 64)
  int threads;
  DType dtype;
  bool silu;
  float eps;
};

struct LayerNormModulate {
  void* out;           // [R, w] of dtype, as are all the others
  const void* x;       // [R, w]
  const void* shift;   // [R, w]
  const void* scale;   // [R, w]
  const void* weight;  // [w], or null: 1
  const void* bias;    // [w], or null: 0
  int64_t rows;        // R
  int64_t width;       // w
  int64_t x_stride;
  int64_t shift_stride;
  int64_t scale_stride;
  DType dtype;
  float eps;
};

struct Denoise {
  float* out;                   // [R, 2C], or [R, C] without variance
  const float* x;               // [R, C]
  const float* condition;       // [R, D]
  const float* time_embedding;  // [times, R, frequencies]
  const float* packed;          // pack_head's buffer
  float* workspace;             // of denoise_workspace floats
  HeadShape shape;
  int64_t rows;        // R
  DType weight_dtype;  // of the packed weights: f32 or bf16
  int threads;
  HeadSpec spec;
};

// Steps step_begin ... step_end - 1 of the sampling loop. The first call must begin at 0, the next
// where the last ended; `workspace` keeps what passes between them. Tokens come in groups: where
// there are several, each is one thread's alone.
struct DdpmSample {
  float* out;                        // [N, C], written when step_end = S
  const float* noise;                // [N, C]
  const float* step_noise;           // [S, N, C]
  const float* condition;            // [R, D], group by group
  const float* packed;               // pack_head's buffer
  const StepCoefficients* schedule;  // [S]
  const float* time_embedding;       // [times, S, frequencies]
  const float* guidance;             // [S, branches - 1], [S, 1] at least
  float* x0;                         // [N, C], as ddpm_step's, from call to call
  float* workspace;                  // of ddpm_sample_workspace floats
  HeadShape shape;
  int64_t tokens;  // N
  int64_t group;   // tokens of a group; the last one may have fewer
  int64_t steps;   // S
  int64_t step_begin;
  int64_t step_end;
  int64_t chunk;              // the largest step_end - step_begin of these calls
  int64_t step_noise_stride;  // between steps
  DType weight_dtype;         // of the packed weights: f32 or bf16
  HeadOptions options;
  int threads;
  HeadSpec spec;
};

}  // namespace marfast
