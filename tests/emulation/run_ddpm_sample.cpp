// The persistent ddpm_sample in the emulator, by hostile plans, against the head written out here:
// float32 to the bit, halves beside the same with exact sums.

#include "marfast/silu.h"
#include "sample_call.h"

namespace {

// What plain loops make of a call.
template <class T>
struct Head : SampleCall<T> {
  using Call = SampleCall<T>;
  using Call::Call, Call::s, Call::modulated, Call::modulation, Call::rows, Call::weights;

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
    std::vector<float> now(this->in.data(), this->in.data() + s.tokens * c);
    std::vector<float> before(this->x0.data(), this->x0.data() + s.tokens * c);
    for (int64_t step = 0; step < s.steps; ++step) {
      std::vector<float> next;
      const StepCoefficients& k = this->rows_of_schedule()[step];
      for (int64_t n = 0; n < s.tokens; ++n) {
        const std::vector<float> y = pass(step, n, &now[n * c]);
        const std::vector<float> u =
            s.guided ? pass(step, s.tokens + n, &now[n * c]) : std::vector<float>();
        for (int64_t j = 0; j < c; ++j) {
          const float eps = s.guided ? u[j] + this->guidance[step] * (y[j] - u[j]) : y[j];
          const float fraction = (y[c + j] + 1.0f) * 0.5f;
          const float log_variance = fraction * k.log_beta + (1.0f - fraction) * k.log_posterior;
          const float learned = exp(Lane(0.5f * log_variance)).value;
          const float sigma = s.multistep ? k.noise : k.noise * learned;
          float x0 = k.p * now[n * c + j] - k.q * eps;
          if (s.clip) x0 = std::min(1.0f, std::max(-1.0f, x0));
          float mean = k.x0 * x0 + k.x * now[n * c + j];
          if (s.multistep) mean = mean + k.previous * before[n * c + j];
          before[n * c + j] = x0;
          const float drawn = this->noise[step * (s.tokens * c + 5) + n * c + j];
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
  if (const char* error = head.run(plan)) return error;
  const int64_t n = sizes.tokens * sizes.channels;
  float largest = 0;
  for (float value : wanted) largest = std::max(largest, std::abs(value));
  const float bound = sizeof(T) == 4 ? 0.0f : 4 * static_cast<float>(unit<T>) * largest;
  for (int64_t i = 0; i < n; ++i)
    if (!(std::abs(head.out[i] - wanted[i]) <= bound))
      return differs("out", i, head.out[i], wanted[i]);
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
  if (sizeof(T) < 4) add(guided, "weights in L2", {1, 4, 8, 16, 0, false, true});
  add(guided, "several tiles of rows", {1, 4, 8, 16, 0, true, true});
  add(guided, "several tiles, each normalised by all", {1, 4, 8, 16, 1, true, false});
  add(guided, "one row a block", {10, 1, 8, 64, 3, true, false});
  add({16, 96, 1, 41, 2, false, false}, "four tiles of a warp", {1, 3, 64, 32, 2, true, false});
  add({20, 288, 1, 1, 2, true, false}, "blocks of k", {1, 6, 8, 48, 0, true, true});
  add({64, 32, 1, 1, 2, true, true}, "more channels than width", {1, 2, 8, 16, 2, true, false});
  add({5, 64, 1, 3, 3, true, true, true}, "multistep", {2, 2, 8, 32, 1, true, false});
  add({3, 32, 1, 2, 1, false, true}, "one step, idle blocks", {2, 5, 8, 7, 1, true, false});
  add({3, 32, 1, 20, 1, false, true}, "once, more than 8 rows a block",
      {1, 2, 8, 16, 1, true, true});
  add({3, 32, 1, 2, 1, true, true}, "two outputs a block", {1, 16, 8, 2, 1, true, false});
  add({3, 32, 32, 1, 1, false, true}, "as deep as it goes", {1, 2, 8, 16, 5, true, false});
}

}  // namespace

int main(int count, char** words) {
  std::vector<Case> cases;
  each_dtype([&](auto element, const char* name) { add_cases<decltype(element)>(cases, name); });
  return run_cases(cases, count, words);
}
