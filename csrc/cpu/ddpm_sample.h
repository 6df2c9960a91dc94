#pragma once

// ddpm_sample: the S denoising steps of the head (head_pass.h) for N tokens: all by one team of
// threads, or each group of tokens by one thread alone, which never waits and whose rows stay in
// its caches. A row's bits depend on neither.
//
//   step s: x = input_proj(state); blocks; state = ddpm_step(state, final(modulate(LN(x))))
//
// The modulation is computed for a chunk of steps at once. What is left is sequential: 2 d w^2
// weights, each read once a step. Every thread owns a slice of each product's outputs, and the
// rows' (or tokens') LayerNorm, final layer and update; three barriers a block.
//
// Row r < N is token r's conditional row, rows N + r, 2N + r its others; all read the same state,
// which is float32, as all that no product reads. Floor a step: max(2 d w^2 weights over
// bandwidth, R (5 d + 2) w^2 multiply-adds over their peak).

#include <cstring>

#include "ddpm_step.h"
#include "head_pass.h"

namespace marfast {

template <class V, class F>
class Sampler {
 public:
  Sampler(const DdpmSample& a, const Team& team)
      : a_(a),
        team_(team),
        at_(a),
        pass_(a.shape, a.spec, a.weight_dtype, a.packed, at_.head, rows(), team) {}

  void run() {
    const Range own = team_.share(a_.tokens);
    const int64_t c = a_.shape.channels, bytes = sizeof(float) * (own.end - own.begin) * c;
    if (a_.step_begin == 0) {
      pass_.embed(a_.time_embedding, a_.steps, a_.condition);
      std::memcpy(at_.state[0] + own.begin * c, a_.noise + own.begin * c, bytes);
    }
    pass_.modulate((a_.step_end - a_.step_begin) * rows(),
                   [this](int64_t p) { return a_.step_begin + p / rows(); });
    for (int64_t s = a_.step_begin; s < a_.step_end; ++s) step(s, own);
    if (a_.step_end == a_.steps) {
      std::memcpy(a_.out + own.begin * c, at_.state[a_.steps % 2] + own.begin * c, bytes);
    }
  }

 private:
  int64_t rows() const { return a_.options.branches * a_.tokens; }

  void step(int64_t s, Range own_tokens) {
    const int64_t c = a_.shape.channels, first_pair = (s - a_.step_begin) * rows();
    for (int64_t n = own_tokens.begin; n < own_tokens.end; ++n) {
      pass_.input(at_.state[s % 2] + n * c, n, a_.tokens);
    }
    team_.barrier();
    pass_.blocks(first_pair);
    team_.barrier();
    for (int64_t n = own_tokens.begin; n < own_tokens.end; ++n) end_token(s, first_pair, n);
  }

  void end_token(int64_t s, int64_t first_pair, int64_t token) {
    const int64_t c = a_.shape.channels, between = a_.tokens * at_.head.channels_stride;
    float* output = at_.head.output + token * at_.head.channels_stride;
    pass_.final(first_pair, token, a_.tokens, output, between);
    DdpmStep update{};
    update.out = at_.state[(s + 1) % 2] + token * c;
    update.x = at_.state[s % 2] + token * c;
    update.model_output = output;
    update.noise = a_.step_noise + s * a_.step_noise_stride + token * c;
    update.coefficients = a_.schedule + s;
    update.guidance = a_.guidance + s * a_.options.scales();
    update.x0 = a_.x0 ? a_.x0 + token * c : nullptr;
    update.tokens = 1;
    update.channels = c;
    update.model_output_stride = between;
    update.options = a_.options;
    ddpm_step_rows<V, float>(update);
  }

  const DdpmSample& a_;
  const Team& team_;
  const SampleWorkspace at_;
  HeadPass<V, F> pass_;
};

template <class V, class F>
void sample_groups(const DdpmSample& a, const Team& team) {
  if (a.tokens <= a.group) return Sampler<V, F>(a, team).run();
  const Range own = team.share(groups_of(a));
  for (int64_t g = own.begin; g < own.end; ++g) {
    const DdpmSample group = group_of(a, g);
    Sampler<V, F>(group, team.alone()).run();
  }
}

template <class V, class BFloat16>
void ddpm_sample(const DdpmSample& a) {
  run_team(a.threads, [&a](const Team& team) {
    a.weight_dtype == DType::bf16 ? sample_groups<V, BFloat16>(a, team)
                                  : sample_groups<V, Float32<V>>(a, team);
  });
}

}  // namespace marfast
