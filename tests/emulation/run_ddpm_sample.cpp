// The persistent ddpm_sample in the emulator, by hostile plans, against the head written out here:
// float32 to the bit, halves beside the same with exact sums.

#include <memory>

#include "cases.h"
#include "marfast/head_weights.h"
#include "marfast/silu.h"

namespace {

struct Sizes {
  int64_t channels, width, depth, tokens, steps;
  bool guided, clip;
  bool multistep = false;  // with x0 of the step before, and sigma by the table
};

// The inputs of one call, and what plain loops make of them.
template <class T>
struct Head {
  const Sizes s;
  const int64_t rows, modulated;
  Buffer<float> in, noise, schedule, guidance, x0, modulation;
  std::vector<std::unique_ptr<Buffer<T>>> buffers;  // time's and the condition's are not read
  std::vector<const void*> tensors;

  explicit Head(const Sizes& s)
      : s(s),
        rows(s.guided ? 2 * s.tokens : s.tokens),
        modulated((3 * s.depth + 2) * s.width),
        in((state = 3, s.tokens), s.channels, s.channels),
        noise(s.steps, s.tokens * s.channels, s.tokens * s.channels + 5),
        schedule(s.steps, kCoefficients, kCoefficients),
        guidance(1, s.steps, s.steps),
        x0(s.tokens, s.channels, s.channels),
        modulation(s.steps * rows, modulated, modulated) {
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
  static float at(const void* tensor, int64_t i) {
    return to_float(static_cast<const T*>(tensor)[i]);
  }

  static float rounded(float x) {
    T narrow;
    from_float(x, &narrow);
    return to_float(narrow);
  }

  // docs/numerics.md: blocks of 256, or of 128 and sums in double.
  static float output(const Layer& layer, const std::vector<float>& x, int64_t j) {
    const int64_t inputs = static_cast<int64_t>(x.size());
    float total = 0, chain = 0;
    double sum = 0;
    for (int64_t k = 0; k < inputs; ++k) {
      const float v = at(layer.weight, j * inputs + k);
      chain = std::fmaf(x[k], v, chain);
      sum += double{x[k]} * v;
      if (k % 256 == 255 || k + 1 == inputs) total = k < 256 ? chain : total + chain, chain = 0;
    }
    return (sizeof(T) == 4 ? total : static_cast<float>(sum)) + at(layer.bias, j);
  }

  static std::vector<float> linear(const Layer& layer, const std::vector<float>& x,
                                   size_t outputs) {
    std::vector<float> y;
    while (y.size() < outputs) y.push_back(output(layer, x, y.size()));
    return y;
  }

  std::vector<float> normalised(const std::vector<float>& x, int64_t pair, int64_t b) {
    const int64_t w = s.width;
    const float* shift = modulation.data() + pair * modulated + 3 * w * b;
    const Layer norm = b < s.depth ? weights().norm(b) : Layer{};
    const float m = lane_sum(w, [&](int64_t j) { return x[j]; }) / w;
    const float mean = m + lane_sum(w, [&](int64_t j) { return x[j] - m; }) / w;
    const float squares = lane_sum(w, [&](int64_t j) { return (x[j] - mean) * (x[j] - mean); });
    const float rstd = 1.0f / std::sqrt(squares / w + 1e-6f);
    std::vector<float> y;
    for (int64_t j = 0; j < w; ++j) {
      float value = (x[j] - mean) * rstd;
      if (b < s.depth) value = value * at(norm.weight, j) + at(norm.bias, j);
      y.push_back(rounded(value * (1.0f + shift[w + j]) + shift[j]));
    }
    return y;
  }

  std::vector<float> pass(int64_t step, int64_t row, const float* token) {
    const int64_t w = s.width, c = s.channels, pair = step * rows + row;
    std::vector<float> x(token, token + c);
    for (float& value : x) value = rounded(value);
    x = linear(weights().input(), x, w);
    for (int64_t b = 0; b < s.depth; ++b) {
      std::vector<float> h = linear(weights().in(b), normalised(x, pair, b), w);
      for (float& value : h) value = rounded(silu(Lane(value)).value);
      const std::vector<float> y = linear(weights().out(b), h, w);
      const float* gate = modulation.data() + pair * modulated + 3 * w * b + 2 * w;
      for (int64_t j = 0; j < w; ++j) x[j] = x[j] + gate[j] * y[j];
    }
    return linear(weights().final(), normalised(x, pair, s.depth), 2 * c);
  }

  std::vector<float> expected() {
    const int64_t c = s.channels;
    std::vector<float> now(in.data(), in.data() + s.tokens * c);
    std::vector<float> before(x0.data(), x0.data() + s.tokens * c);
    for (int64_t step = 0; step < s.steps; ++step) {
      std::vector<float> next;
      const StepCoefficients& k = rows_of_schedule()[step];
      for (int64_t n = 0; n < s.tokens; ++n) {
        const std::vector<float> y = pass(step, n, &now[n * c]);
        const std::vector<float> u =
            s.guided ? pass(step, s.tokens + n, &now[n * c]) : std::vector<float>();
        for (int64_t j = 0; j < c; ++j) {
          const float eps = s.guided ? u[j] + guidance[step] * (y[j] - u[j]) : y[j];
          const float fraction = (y[c + j] + 1.0f) * 0.5f;
          const float log_variance = fraction * k.log_beta + (1.0f - fraction) * k.log_posterior;
          const float learned = exp(Lane(0.5f * log_variance)).value;
          const float sigma = s.multistep ? k.noise : k.noise * learned;
          float x0 = k.p * now[n * c + j] - k.q * eps;
          if (s.clip) x0 = std::min(1.0f, std::max(-1.0f, x0));
          float mean = k.x0 * x0 + k.x * now[n * c + j];
          if (s.multistep) mean = mean + k.previous * before[n * c + j];
          before[n * c + j] = x0;
          const float drawn = noise[step * (s.tokens * c + 5) + n * c + j];
          next.push_back(mean + sigma * drawn * 0.75f);
        }
      }
      now = next;
    }
    return now;
  }
};

template <class T>
std::string sample(const Sizes& sizes, const cuda::PersistentPlan& plan) {
  Head<T> head(sizes);
  const std::vector<float> wanted = head.expected();
  const int64_t n = sizes.tokens * sizes.channels, all = head.rows * sizes.width;
  Buffer<const void*> table(head.tensors.size(), false);
  Buffer<uint32_t> barrier(1, false);
  Buffer<float> out(n, false), own(n, false), x(all, false);
  Buffer<T> normed(all, false), hidden(all, false);
  cuda::SampleTables tables{table.data(), barrier.data(), 0, 0, {}};
  for (const void* tensor : head.tensors) tables.values[tables.count++] = tensor;
  if (const char* error = cuda::sample_tables_by(tables, emu::Emulated{})) return error;

  cuda::PersistentSample a{};
  a.out = out.data(), a.before = head.in.data(), a.step_noise = head.noise.data();
  a.schedule = head.rows_of_schedule(), a.guidance = head.guidance.data();
  if (sizes.multistep) a.x0 = head.x0.data();
  a.modulation = head.modulation.data(), a.weights = table.data();
  a.x = x.data(), a.state = own.data(), a.normed = normed.data(), a.hidden = hidden.data();
  a.barrier = barrier.data();
  a.shape = {sizes.channels, 1, sizes.width, sizes.depth, 1, sizes.width};
  a.tokens = sizes.tokens, a.steps = sizes.steps, a.step_noise_stride = n + 5;
  a.plan = plan, a.options = {sizes.guided ? 2 : 1, 0.75f, sizes.clip, !sizes.multistep};
  a.dtype = dtype<T>, a.limit_ns = 2'000'000'000;
  if (const char* error = cuda::ddpm_sample_by(a, emu::Emulated{})) return error;
  float largest = 0;
  for (float value : wanted) largest = std::max(largest, std::abs(value));
  const float bound = sizeof(T) == 4 ? 0.0f : 4 * static_cast<float>(unit<T>) * largest;
  for (int64_t i = 0; i < n; ++i)
    if (!(std::abs(out[i] - wanted[i]) <= bound)) return differs("out", i, out[i], wanted[i]);
  return "ok";
}

template <class T>
void add_cases(std::vector<Case>& all, const std::string& type) {
  auto add = [&](const Sizes& sizes, const char* name, const cuda::PersistentPlan& plan) {
    all.push_back({type + " " + name, [=] { return sample<T>(sizes, plan); }});
  };
  const Sizes guided{5, 64, 2, 5, 2, true, true};
  add(guided, "all weights stay", {1, 3, 8, 22, 4, true, false});
  add(guided, "some stream", {2, 2, 8, 32, 1, true, false});
  add(guided, "normalised once", {2, 2, 8, 32, 0, true, true});
  add(guided, "weights in L2, several tiles of rows", {1, 4, 8, 16, 0, false, true});
  add(guided, "one row a block", {10, 1, 8, 64, 3, true, false});
  add({16, 96, 1, 41, 2, false, false}, "four tiles of a warp", {1, 3, 64, 32, 2, true, false});
  add({20, 288, 1, 1, 2, true, false}, "blocks of k", {1, 6, 8, 48, 0, true, true});
  add({64, 32, 1, 1, 2, true, true}, "more channels than width", {1, 2, 8, 16, 2, true, false});
  add({5, 64, 1, 3, 3, true, true, true}, "multistep", {2, 2, 8, 32, 1, true, false});
  add({3, 32, 1, 2, 1, false, true}, "one step, idle blocks", {2, 5, 8, 7, 1, true, false});
}

}  // namespace

int main(int count, char** words) {
  std::vector<Case> cases;
  add_cases<float>(cases, "float32");
  add_cases<bfloat16>(cases, "bfloat16");
  add_cases<float16>(cases, "float16");
  return run_cases(cases, count, words);
}
