#pragma once

// ddpm_sample: the S denoising steps of the head for N tokens, in float32, by one team of threads.
//
//   y[s, r] = SiLU(T[s] + c[r])      T = time_embed(t), c = cond_embed(z)
//   M[s, r] = W y[s, r] + b          every block's shift, scale, gate, and the final shift, scale
//   step s: x = input_proj(state); blocks: x += gate (W2 SiLU(W1 modulate(LN(x))) + ...)
//           state = ddpm_step(state, final(modulate(LN(x))))
//
// M depends on no x, so it is computed for a chunk of steps at once, as one tall product (61-65 %
// of the head's work at the speed of large matrices). What is left is sequential: 2 d w^2 weights,
// each read once a step. Every thread owns a slice of each product's outputs, and the rows' (or
// tokens') LayerNorm, final layer and update; three barriers a block.
//
// Row r < N is token r's conditional row, row N + r its unconditional one; both read the same
// state. Rows lie padded(w) + 32 floats apart, so that they do not fall into the same cache sets.
// Order of operations: linear.h, layer_norm_modulate.h, ddpm_step.h; the rest as written, each
// operation rounded on its own. Floor a step: max(4 * 2 d w^2 bytes over bandwidth, R (5 d + 2) w^2
// FMAs over their peak).

#include <cstring>

#include "ddpm_step.h"
#include "head_weights.h"
#include "layer_norm_modulate.h"
#include "marfast/silu.h"
#include "sample_workspace.h"

namespace marfast {

template <class V>
class Sampler {
 public:
  Sampler(const DdpmSample& a, const Team& team)
      : a_(a), team_(team), head_(a.shape, a.packed), at_(a) {}

  void run() {
    if (a_.step_begin == 0) embed();
    modulate_chunk();
    for (int64_t s = a_.step_begin; s < a_.step_end; ++s) step(s);
    if (a_.step_end == a_.steps) {
      const Range own = tokens();
      const int64_t c = a_.shape.channels;
      std::memcpy(a_.out + own.begin * c, at_.state[a_.steps % 2] + own.begin * c,
                  sizeof(float) * (own.end - own.begin) * c);
    }
  }

 private:
  int64_t rows() const { return a_.guided ? 2 * a_.tokens : a_.tokens; }
  Range tokens() const { return team_.share(a_.tokens); }
  Range panels(const Linear& layer) const { return team_.share(layer.panel_count); }
  const float* first_panel(const Linear& layer) const {
    return panel_of(layer, panels(layer).begin);
  }

  static auto store_to(float* out, int64_t stride) {
    return [=](int64_t row, int64_t j, int64_t count, V value) {
      value.store(out + row * stride + j, count);
    };
  }
  static auto store_silu_to(float* out, int64_t stride) {
    return [=](int64_t row, int64_t j, int64_t count, V value) {
      silu(value).store(out + row * stride + j, count);
    };
  }

  void embed() {
    const Linear &in = head_.time_in, &out = head_.time_out, &condition = head_.condition;
    linear<V>(in, a_.time_embedding, in.inputs, a_.steps, panels(in), first_panel(out),
              store_silu_to(at_.time_hidden, at_.stride));
    linear<V>(condition, a_.condition, condition.inputs, rows(), panels(condition),
              first_panel(out), store_to(at_.condition, at_.stride));
    const Range own = tokens();
    const int64_t c = a_.shape.channels;
    std::memcpy(at_.state[0] + own.begin * c, a_.noise + own.begin * c,
                sizeof(float) * (own.end - own.begin) * c);
    team_.barrier();
    linear<V>(out, at_.time_hidden, at_.stride, a_.steps, panels(out),
              first_panel(head_.modulation), store_to(at_.time, at_.stride));
    team_.barrier();
  }

  void modulate_chunk() {
    const int64_t pairs = (a_.step_end - a_.step_begin) * rows();
    const Range own = team_.share(pairs);
    for (int64_t p = own.begin; p < own.end; ++p) {
      const float* time = at_.time + (a_.step_begin + p / rows()) * at_.stride;
      const float* condition = at_.condition + p % rows() * at_.stride;
      for (int64_t j = 0; j < a_.shape.width; j += V::lanes) {
        const int64_t left = a_.shape.width - j, count = left < V::lanes ? left : V::lanes;
        const V y = V::load(time + j, count) + V::load(condition + j, count);
        silu(y).store(at_.activated + p * at_.stride + j, count);
      }
    }
    team_.barrier();
    const Linear& layer = head_.modulation;
    linear<V>(layer, at_.activated, at_.stride, pairs, panels(layer), first_panel(head_.final),
              store_to(at_.modulation, at_.modulation_stride));
    team_.barrier();
  }

  // Row r's modulation in step s, from output `first` on.
  const float* modulation(int64_t s, int64_t r, int64_t first) const {
    return at_.modulation + ((s - a_.step_begin) * rows() + r) * at_.modulation_stride + first;
  }

  // modulate(LN(x)) of one row, shift and scale being the outputs from `first` on.
  void norm(int64_t s, int64_t r, int64_t first, const float* weight, const float* bias) {
    const float* shift = modulation(s, r, first);
    LayerNormModulate n{};
    n.out = at_.normed + r * at_.stride;
    n.x = at_.x + r * at_.stride;
    n.shift = shift;
    n.scale = shift + a_.shape.width;
    n.weight = weight;
    n.bias = bias;
    n.rows = 1;
    n.width = a_.shape.width;
    n.eps = 1e-6f;
    layer_norm_modulate_rows<V, float>(n);
  }

  void begin_token(int64_t s, int64_t token) {
    const float* state = at_.state[s % 2] + token * a_.shape.channels;
    const Linear& layer = head_.input;
    linear<V>(layer, state, layer.inputs, 1, {0, layer.panel_count}, layer.panels,
              [&](int64_t, int64_t j, int64_t count, V value) {
                for (int64_t r = token; r < rows(); r += a_.tokens) {
                  value.store(at_.x + r * at_.stride + j, count);
                }
              });
  }

  void end_token(int64_t s, int64_t token) {
    const Linear& layer = head_.final;
    const int64_t c = a_.shape.channels, between = a_.tokens * at_.stride;
    for (int64_t r = token; r < rows(); r += a_.tokens) {
      norm(s, r, 3 * a_.shape.depth * a_.shape.width, nullptr, nullptr);
    }
    float* output = at_.output + token * at_.output_stride;
    linear<V>(layer, at_.normed + token * at_.stride, between, a_.guided ? 2 : 1,
              {0, layer.panel_count}, layer.panels,
              store_to(output, a_.tokens * at_.output_stride));
    DdpmStep update{};
    update.out = at_.state[(s + 1) % 2] + token * c;
    update.x = at_.state[s % 2] + token * c;
    update.model_output = output;
    update.noise = a_.step_noise + s * a_.step_noise_stride + token * c;
    update.coefficients = a_.schedule + 7 * s;
    update.guidance = a_.guidance;
    update.tokens = 1;
    update.channels = c;
    update.model_output_stride = a_.tokens * at_.output_stride;
    update.guided = a_.guided;
    update.temperature = a_.temperature;
    update.clip_denoised = a_.clip_denoised;
    ddpm_step_rows<V, float>(update);
  }

  void step(int64_t s) {
    const Range own_tokens = tokens(), own_rows = team_.share(rows());
    const int64_t w = a_.shape.width, depth = a_.shape.depth;
    for (int64_t n = own_tokens.begin; n < own_tokens.end; ++n) begin_token(s, n);

    for (int64_t b = 0; b < depth; ++b) {
      const BlockWeights block = head_.block(b);
      team_.barrier();
      for (int64_t r = own_rows.begin; r < own_rows.end; ++r) {
        norm(s, r, 3 * w * b, block.norm_weight, block.norm_bias);
      }
      team_.barrier();
      linear<V>(block.in, at_.normed, at_.stride, rows(), panels(block.in), first_panel(block.out),
                store_silu_to(at_.hidden, at_.stride));
      team_.barrier();
      const float* then = first_panel(head_.block(b + 1 < depth ? b + 1 : 0).in);
      linear<V>(block.out, at_.hidden, at_.stride, rows(), panels(block.out), then,
                [&](int64_t r, int64_t j, int64_t count, V value) {
                  float* x = at_.x + r * at_.stride + j;
                  const V gate = V::load(modulation(s, r, 3 * w * b + 2 * w) + j, count);
                  (V::load(x, count) + gate * value).store(x, count);
                });
    }
    team_.barrier();
    for (int64_t n = own_tokens.begin; n < own_tokens.end; ++n) end_token(s, n);
  }

  const DdpmSample& a_;
  const Team& team_;
  HeadWeights head_;
  SampleWorkspace at_;
};

template <class V>
void ddpm_sample(const DdpmSample& a) {
  run_team(a.threads, [&a](const Team& team) { Sampler<V>(a, team).run(); });
}

}  // namespace marfast
