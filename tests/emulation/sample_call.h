#pragma once

// A call of the persistent ddpm_sample in the emulator: its tensors, filled by chance, and its
// arguments.

#include <memory>

#include "cases.h"
#include "marfast/head_weights.h"

struct Sizes {
  int64_t channels, width, depth, tokens, steps;
  bool guided, clip;
  bool multistep = false;  // with x0 of the step before, and sigma by the table
};

// The inputs of one call, and what it works in.
template <class T>
struct SampleCall {
  const Sizes s;
  const int64_t rows, modulated;
  Buffer<float> in, noise, schedule, guidance, x0, modulation;
  std::vector<std::unique_ptr<Buffer<T>>> buffers;  // time's and the condition's are not read
  std::vector<const void*> tensors;
  Buffer<uint32_t> barrier;
  Buffer<float> out, own, output, x;
  Buffer<T> normed, hidden;

  explicit SampleCall(const Sizes& s)
      : s(s),
        rows(s.guided ? 2 * s.tokens : s.tokens),
        modulated((3 * s.depth + 2) * s.width),
        in((state = 3, s.tokens), s.channels, s.channels),
        noise(s.steps, s.tokens * s.channels, s.tokens * s.channels + 5),
        schedule(s.steps, kCoefficients, kCoefficients),
        guidance(1, s.steps, s.steps),
        x0(s.tokens, s.channels, s.channels),
        modulation(s.steps * rows, modulated, modulated),
        barrier(1, true),
        out(s.tokens * s.channels, false),
        own(4 * s.tokens * s.channels, false),
        output(rows * 2 * s.channels, false),
        x(rows * s.width, false),
        normed(rows * s.width, false),
        hidden(rows * s.width, false) {
    const int64_t w = s.width, c = s.channels;
    auto add = [&](int64_t outputs, int64_t inputs) {
      buffers.push_back(std::make_unique<Buffer<T>>(outputs, inputs, inputs));
      Buffer<T>& values = *buffers.back();
      tensors.push_back(values.data());
      const float size = inputs > 1 ? 1.7f / std::sqrt(static_cast<float>(inputs)) : 0.5f;
      for (int64_t i = 0; i < outputs * inputs; ++i)
        from_float(values[i] * size, values.data() + i);
    };
    for (int i = 0; i < 6; ++i) add(1, 1);
    add(w, c), add(w, 1);
    for (int64_t b = 0; b < s.depth; ++b) {
      add(w, 1), add(w, 1), add(w, w), add(w, 1), add(w, w), add(w, 1), add(1, 1), add(1, 1);
    }
    add(2 * c, w), add(2 * c, 1);
  }

  const StepCoefficients* rows_of_schedule() {
    return reinterpret_cast<const StepCoefficients*>(schedule.data());
  }
  HeadWeights weights() const { return HeadWeights(tensors.data(), s.depth); }

  // Null, or what the launch failed with.
  const char* run(const cuda::PersistentPlan& plan) {
    cuda::PersistentSample a{};
    a.out = out.data(), a.before = in.data(), a.step_noise = noise.data();
    a.schedule = rows_of_schedule(), a.guidance = guidance.data();
    if (s.multistep) a.x0 = x0.data();
    a.modulation = modulation.data(), *barrier.data() = 0;
    std::copy(tensors.begin(), tensors.end(), a.weights);
    a.x = x.data(), a.state = own.data(), a.output = output.data();
    a.normed = normed.data(), a.hidden = hidden.data();
    a.barrier = barrier.data();
    a.shape = {s.channels, 1, s.width, s.depth, 1, s.width};
    a.tokens = s.tokens, a.steps = s.steps, a.step_noise_stride = s.tokens * s.channels + 5;
    a.plan = plan, a.options = {s.guided ? 2 : 1, 0.75f, s.clip, !s.multistep};
    a.dtype = dtype<T>, a.limit_ns = 20'000'000'000;
    return cuda::ddpm_sample_by(a, emu::Emulated{});
  }
};
