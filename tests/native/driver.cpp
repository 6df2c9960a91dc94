// Every kernel at hostile sizes, in buffers of exactly the size that it may touch: to be built with
// sanitizers (MARFAST_SANITIZE, CMakeLists.txt). Each instruction set's results are compared with
// the portable ones, bit for bit where bits are defined (docs/numerics.md). Exit status 0: all
// well.
// With an argument, one kernel is told of longer rows than there are: the sanitizers must stop it.
// They don't see masked loads and stores; tests/ops/test_memory_bounds.py does.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "cpu/attention_scratch.h"
#include "cpu/dispatch.h"
#include "cpu/head_workspace.h"
#include "cpu/packed_head.h"
#include "cpu/packed_linear.h"
#include "marfast/ops.h"

extern "C" int omp_get_max_threads();  // so that an OpenMP runtime is in the process

namespace {

using namespace marfast;

// So many floats on the heap, each with redzones of its own.
struct Floats {
  explicit Floats(int64_t size) : values(new float[size]), size(size) {}
  float* operator*() const { return values.get(); }

  std::unique_ptr<float[]> values;
  int64_t size;
};

class Random {
 public:
  Floats draw(int64_t size, float scale = 1.0f) {
    Floats result(size);
    for (int64_t i = 0; i < size; ++i) {
      state_ = state_ * 6364136223846793005u + 1442695040888963407u;
      (*result)[i] = scale * (static_cast<float>(state_ >> 40) * 0x1p-23f - 1.0f);
    }
    return result;
  }

 private:
  uint64_t state_ = 1;
};

Floats nans(int64_t size) {
  Floats result(size);
  for (int64_t i = 0; i < size; ++i) (*result)[i] = NAN;
  return result;
}

using Run = Floats (*)(const Kernels&, DType, const HeadShape&, int64_t rows, int threads);

// MAR's, or one with all that is otherwise. One number has no unbiased variance.
HeadSpec spec_of(int64_t rows, const HeadShape& s) {
  HeadSpec spec;
  if (rows != 3) return spec;
  spec.norm = Norm::rms, spec.time_norm = s.width > 1 ? Norm::std : Norm::layer,
  spec.activation = Activation::swiglu;
  spec.norm_after = true, spec.bias = false, spec.share = 2, spec.times = 2;
  spec.order = "gate scale shift", spec.condition = Condition::mlp;
  return spec;
}

Floats packed_head(Random& random, const HeadShape& s, const HeadSpec& spec, DType dtype) {
  std::vector<Floats> weights;
  const auto linear = [&](int64_t inputs, int64_t outputs) {
    weights.push_back(random.draw(inputs * outputs, 1.0f / std::sqrt(static_cast<float>(inputs))));
    if (spec.bias) weights.push_back(random.draw(outputs));
  };
  const int64_t w = s.width, h = s.hidden;
  const auto affine = [&](bool there, Norm norm) {
    if (there && norm != Norm::none) weights.push_back(random.draw(w));
    if (there && norm == Norm::layer) weights.push_back(random.draw(w));
  };
  for (int64_t i = 0; i < spec.times; ++i) {
    linear(s.frequencies, w), linear(w, w), affine(true, spec.time_norm);
  }
  linear(s.condition, w);
  if (spec.condition == Condition::mlp) linear(w, w);
  linear(s.channels, w);
  for (int64_t b = 0; b < s.depth; ++b) {
    affine(spec.affine, spec.norm);
    linear(w, spec.gated() ? 2 * h : h), linear(h, w);
    affine(spec.norm_after, spec.norm);
    if (b % spec.share == 0) linear(w, 3 * w);
  }
  linear(w, spec.outputs(s.channels)), linear(w, 2 * w);
  std::vector<const void*> pointers;
  for (const Floats& weight : weights) pointers.push_back(*weight);
  Floats packed = nans(PackedHead(s, spec, dtype, nullptr).size());
  pack_head(s, spec, dtype, DType::f32, pointers.data(), *packed);
  return packed;
}

Floats packed_layer(Random& random, int64_t inputs, int64_t outputs, DType dtype) {
  const Floats weight = random.draw(inputs * outputs), bias = random.draw(outputs);
  Floats packed = nans(packed_size(linear_at(nullptr, inputs, outputs, dtype)));
  pack_linear(inputs, outputs, dtype, DType::f32, *weight, *bias, *packed);
  return packed;
}

Floats ddpm_sample(const Kernels& kernels, DType dtype, const HeadShape& s, int64_t rows,
                   int threads) {
  Random random;
  const bool guided = rows % 2 == 0;
  const int64_t n = guided ? rows / 2 : rows, steps = 3, chunk = 2, c = s.channels;
  const HeadSpec spec = spec_of(rows, s);
  const Floats packed = packed_head(random, s, spec, dtype), noise = random.draw(n * c);
  const Floats step_noise = random.draw(steps * n * c), condition = random.draw(rows * s.condition);
  const Floats schedule = random.draw(steps * kCoefficients, 0.5f);
  const Floats embedding = random.draw(spec.times * steps * s.frequencies),
               guidance = random.draw(steps);
  DdpmSample a{};
  a.shape = s;
  a.tokens = n;
  a.group = rows % 5 == 0 ? (n + 2) / 3 : n;
  a.steps = steps;
  a.chunk = chunk;
  const bool clip = rows % 3 != 1;
  a.options = {guided ? 2 : 1, 0.9f, clip, rows % 4 != 0, clip ? 0.0 : 0.9};
  a.spec = spec;
  const Floats x0 = random.draw(n * c);
  const Floats workspace = nans(sample_workspace(a));
  Floats out = nans(n * c);
  a.out = *out;
  a.noise = *noise;
  a.step_noise = *step_noise;
  a.condition = *condition;
  a.packed = *packed;
  a.schedule = reinterpret_cast<const StepCoefficients*>(*schedule);
  a.x0 = rows % 3 ? nullptr : *x0;
  a.time_embedding = *embedding;
  a.guidance = *guidance;
  a.workspace = *workspace;
  a.step_noise_stride = n * c;
  a.weight_dtype = dtype;
  a.threads = threads;
  for (a.step_begin = 0; a.step_begin < steps; a.step_begin = a.step_end) {
    a.step_end = a.step_begin + chunk < steps ? a.step_begin + chunk : steps;
    run(kernels.ddpm_sample, a);
  }
  return out;
}

Floats attention(const Kernels& kernels, DType, const HeadShape& s, int64_t rows, int threads) {
  Random random;
  const int64_t batch = 2, heads = s.depth + 1, dim = s.condition, length = s.width;
  const Floats qkv = random.draw(batch * length * 3 * heads * dim);
  std::vector<int64_t> queries;
  for (int64_t i = 0; i < batch * rows; ++i) queries.push_back((7 * i + length - 1) % length);
  TeamAttention a{};
  Floats out = nans(batch * rows * heads * dim);
  a.out = *out;
  a.qkv = *qkv;
  a.queries = queries.data();
  a.batch = batch;
  a.length = length;
  a.wanted = rows;
  a.heads = heads;
  a.head_dim = a.head_stride = dim;
  a.part_stride = heads * dim;
  a.position_stride = 3 * a.part_stride;
  a.batch_stride = length * a.position_stride;
  a.causal = rows % 2 == 0;
  a.scale = 1.0f / std::sqrt(static_cast<float>(dim));
  a.scratch = attention_scratch(length, dim);
  const Floats workspace = nans(threads * a.scratch);
  a.workspace = *workspace;
  a.threads = threads;
  run(kernels.attention, a);
  return out;
}

Floats ddpm_step(const Kernels& kernels, DType, const HeadShape& s, int64_t rows, int) {
  Random random;
  const bool guided = rows % 2 == 0;
  const int64_t n = guided ? rows / 2 : rows, c = s.channels;
  const Floats x = random.draw(n * c), model_output = random.draw(rows * 2 * c);
  const Floats noise = random.draw(n * c), guidance = random.draw(1), x0 = random.draw(n * c);
  const Floats coefficients = random.draw(kCoefficients);
  Floats out = nans(n * c);
  run(kernels.ddpm_step, DdpmStep{*out,
                                  *x,
                                  *model_output,
                                  *noise,
                                  reinterpret_cast<const StepCoefficients*>(*coefficients),
                                  *guidance,
                                  rows % 3 ? nullptr : *x0,
                                  n,
                                  c,
                                  c,
                                  2 * c,
                                  c,
                                  DType::f32,
                                  {guided ? 2 : 1, 0.9f, true, rows % 4 != 0}});
  return out;
}

Floats denoise(const Kernels& kernels, DType dtype, const HeadShape& s, int64_t rows, int threads) {
  Random random;
  const HeadSpec spec = spec_of(rows, s);
  const Floats packed = packed_head(random, s, spec, dtype), x = random.draw(rows * s.channels);
  const Floats condition = random.draw(rows * s.condition);
  const Floats embedding = random.draw(spec.times * rows * s.frequencies);
  const Floats workspace = nans(HeadWorkspace(s, spec, rows, rows, rows, nullptr).size);
  Floats out = nans(rows * 2 * s.channels);
  run(kernels.denoise, Denoise{*out, *x, *condition, *embedding, *packed, *workspace, s, rows,
                               dtype, threads, spec});
  return out;
}

Floats adaln_mlp(const Kernels& kernels, DType dtype, const HeadShape& s, int64_t rows,
                 int threads) {
  Random random;
  const int64_t w = s.width, group = 16, stride = padded(w) + kPanel;
  const Floats x = random.draw(rows * w), modulation = random.draw(rows * 3 * w);
  const Floats weight = random.draw(w), bias = random.draw(w);
  const Floats in = packed_layer(random, w, w, dtype),
               out_layer = packed_layer(random, w, w, dtype);
  const Floats packed(in.size + out_layer.size), workspace = nans(2 * group * stride);
  std::memcpy(*packed, *in, sizeof(float) * in.size);
  std::memcpy(*packed + in.size, *out_layer, sizeof(float) * out_layer.size);
  Floats out = nans(rows * w);
  AdalnMlp a{};
  a.out = *out;
  a.x = *x;
  a.shift = *modulation;
  a.scale = a.shift + w;
  a.gate = a.scale + w;
  a.norm_weight = *weight;
  a.norm_bias = *bias;
  a.packed = *packed;
  a.workspace = *workspace;
  a.rows = rows;
  a.width = a.x_stride = w;
  a.group = group;
  a.shift_stride = a.scale_stride = a.gate_stride = 3 * w;
  a.weight_dtype = dtype;
  a.threads = threads;
  a.eps = 1e-6f;
  run(kernels.adaln_mlp, a);
  return out;
}

Floats fused_linear(const Kernels& kernels, DType dtype, const HeadShape& s, int64_t rows,
                    int threads) {
  Random random;
  const int64_t inputs = s.condition, outputs = s.width, group = 14;
  const Floats x = random.draw(rows * inputs), residual = random.draw(rows * outputs);
  const Floats weight = random.draw(inputs), bias = random.draw(inputs);
  const Floats packed = packed_layer(random, inputs, outputs, dtype);
  FusedLinear a{};
  a.scratch_stride = padded(inputs) + kPanel;
  const Floats workspace = nans(threads * group * a.scratch_stride);
  Floats out = nans(rows * outputs);
  a.out = *out;
  a.x = *x;
  a.packed = *packed;
  a.norm_weight = *weight;
  a.norm_bias = *bias;
  a.residual = *residual;
  a.workspace = *workspace;
  a.rows = rows;
  a.inputs = a.x_stride = inputs;
  a.outputs = a.residual_stride = outputs;
  a.group = group;
  a.weight_dtype = dtype;
  a.threads = threads;
  a.gelu = true;
  a.eps = 1e-6f;
  run(kernels.fused_linear, a);
  return out;
}

Floats layer_norm_modulate(const Kernels& kernels, DType, const HeadShape& s, int64_t rows, int) {
  Random random;
  const int64_t w = s.width;
  const Floats x = random.draw(rows * w), shift = random.draw(rows * w);
  const Floats scale = random.draw(rows * w), weight = random.draw(w), bias = random.draw(w);
  Floats out = nans(rows * w);
  run(kernels.layer_norm_modulate, LayerNormModulate{*out, *x, *shift, *scale, *weight, *bias, rows,
                                                     w, w, w, w, DType::f32, 1e-6f});
  return out;
}

Floats group_norm_silu(const Kernels& kernels, DType, const HeadShape& s, int64_t rows,
                       int threads) {
  Random random;
  const int64_t images = 2, positions = rows * 10, channels = s.width,
                chunks = (positions + 63) / 64;
  const int64_t groups = channels % 3 == 0 ? 3 : 1;
  const Floats x = random.draw(images * positions * channels);
  const Floats weight = random.draw(channels), bias = random.draw(channels);
  const Floats moments = nans(3 * images * groups * chunks);
  const Floats group_moments = nans(2 * images * channels);
  const Floats scratch = nans(threads * 2 * channels);
  Floats out = nans(images * positions * channels);
  run(kernels.group_norm_silu,
      GroupNormSilu{*out, *x, *weight, *bias, *moments, *group_moments, *scratch, images, positions,
                    channels, groups, chunks, threads, DType::f32, true, 1e-6f});
  return out;
}

bool same(const Floats& a, const Floats& b, bool to_the_bit) {
  for (int64_t i = 0; i < a.size; ++i) {
    const float x = (*a)[i], y = (*b)[i];
    if (!std::isfinite(x) || !std::isfinite(y)) return false;
    if (to_the_bit ? std::memcmp(&x, &y, sizeof x) != 0
                   : std::fabs(x - y) > 0.05f * (1.0f + std::fabs(y))) {
      return false;
    }
  }
  return true;
}

}  // namespace

int main(int argc, char**) {
  if (argc > 1) {
    const Floats rows = nans(3 * 16), out = nans(3 * 17);
    run(portable::kernels.layer_norm_modulate,
        LayerNormModulate{*out, *rows, *rows, *rows, nullptr, nullptr, 3, 17, 17, 17, 17,
                          DType::f32, 1e-6f});
    return 0;
  }
  const struct {
    const char* name;
    Run run;
#define KERNEL(op, Args) {#op, op},
  } kernels[] = {MARFAST_CPU_KERNELS(KERNEL)};
#undef KERNEL
  const HeadShape shapes[] = {{1, 1, 1, 0, 2, 1},
                              {3, 5, 33, 2, 7, 33},
                              {16, 300, 31, 1, 4, 50},
                              {17, 2, 257, 1, 3, 17},
                              {40, 15, 65, 3, 8, 65}};
  int cases = 0, failures = 0;
  for (const auto& kernel : kernels) {
    for (const HeadShape& shape : shapes) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        for (const int64_t rows : {1, 2, 3, 17}) {
          const Floats expected = kernel.run(portable::kernels, dtype, shape, rows, 1);
          for (const Isa* isa : usable_isas(cpu_features())) {
            const bool dots = (isa->needs & (kAvx512Bf16 | kAmxBf16)) && dtype == DType::bf16;
            for (const int threads : {1, 3}) {
              const Floats actual = kernel.run(*isa->kernels, dtype, shape, rows, threads);
              ++cases;
              if (same(actual, expected, !dots)) continue;
              ++failures;
              std::printf("%s on %s, %s, width %lld, %lld rows, %d threads: differs\n", kernel.name,
                          isa->name, dtype == DType::bf16 ? "bf16" : "f32",
                          static_cast<long long>(shape.width), static_cast<long long>(rows),
                          threads);
            }
          }
        }
      }
    }
  }
  std::printf("%d cases, %d failures, up to %d threads\n", cases, failures, omp_get_max_threads());
  return failures != 0;
}
