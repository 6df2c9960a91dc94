// csrc/cuda's kernels in the emulator, at small and odd shapes, against formulas written out here:
// `run_kernels check SCHEDULE` runs every case; `run_kernels faults` drops or weakens each
// synchronisation that they reach, in turn. Prints a line each: "ok", a report, or the difference.

#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "launchers.h"

using namespace marfast;
namespace emu = marfast::emulation;

namespace {

uint32_t state;
float number() {  // in [-1, 1)
  state = state * 1664525 + 1013904223;
  return static_cast<float>(static_cast<int>(state >> 8) - (1 << 23)) / (1 << 23);
}

// Memory known to the emulator, between zones that aren't.
template <class T>
struct Buffer {
  static constexpr size_t zone = 512 / sizeof(T);
  std::vector<T> memory;
  size_t count;
  Buffer(size_t count, bool written) : memory(count + 2 * zone), count(count) {
    std::memset(memory.data(), 0xff, memory.size() * sizeof(T));  // NaN; -1
    emu::add_memory(data(), count * sizeof(T), written, "buffer");
  }
  // [rows, columns], NaN between the rows
  Buffer(size_t rows, size_t columns, size_t stride) : Buffer(rows * stride, true) {
    for (size_t r = 0; r < rows; ++r)
      for (size_t c = 0; c < columns; ++c) from_float(number(), data() + r * stride + c);
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { emu::remove_memory(data()); }
  T* data() { return memory.data() + zone; }
  float operator[](size_t i) { return to_float(data()[i]); }
};

template <class T>
constexpr DType dtype = sizeof(T) == 4                ? DType::f32
                        : std::is_same_v<T, bfloat16> ? DType::bf16
                                                      : DType::f16;
template <class T>
constexpr double unit = sizeof(T) == 4                ? 0x1p-24
                        : std::is_same_v<T, bfloat16> ? 0x1p-8
                                                      : 0x1p-11;

std::string differs(const char* what, size_t i, double got, double wanted) {
  char text[200];
  std::snprintf(text, sizeof text, "%s differs at %zu: %.9g, not %.9g", what, i, got, wanted);
  return text;
}

enum class Epilogue { none, silu, gate };

// float32: the same bits as the order in docs/numerics.md. Others: float32 sums, in any order.
template <class T>
std::string linear(int64_t R, int64_t K, int64_t J, Epilogue epilogue, int64_t gap) {
  state = 7;
  Buffer<T> x(R, K, K + gap), weight(J, K, K), bias(1, J, J);
  Buffer<float> gate(R, J, J + 3), residual(R, J, J + 1), out(R * (J + 2), false);
  Buffer<T> narrow(R * (J + 2), false);
  const bool silu = epilogue == Epilogue::silu, gated = epilogue == Epilogue::gate;
  cuda::LinearLayer a{};
  a.out = silu ? static_cast<void*>(narrow.data()) : out.data();
  a.x = x.data(), a.weight = weight.data(), a.bias = bias.data();
  a.gate = gated ? gate.data() : nullptr, a.residual = gated ? residual.data() : nullptr;
  a.rows = R, a.inputs = K, a.outputs = J;
  a.out_stride = J + 2, a.x_stride = K + gap, a.gate_stride = J + 3, a.residual_stride = J + 1;
  a.dtype = dtype<T>, a.silu = silu;
  if (const char* error = cuda::linear_by(a, emu::Emulated{})) return error;
  for (int64_t r = 0; r < R; ++r)
    for (int64_t j = 0; j < J; ++j) {
      float total = 0, chain = 0;
      double sum = bias[j], size = std::abs(sum);
      for (int64_t k = 0; k < K; ++k) {
        const float u = x[r * (K + gap) + k], v = weight[j * K + k];
        chain = std::fmaf(u, v, chain);
        sum += double{u} * v, size += std::abs(double{u} * v);
        if (k % 256 == 255 || k + 1 == K) {
          total = k < 256 ? chain : total + chain;
          chain = 0;
        }
      }
      const float g = gate[r * (J + 3) + j], left = residual[r * (J + 1) + j];
      const double got = silu ? narrow[r * (J + 2) + j] : out[r * (J + 2) + j];
      double wanted = sum, bound = (K + 4) * 0x1p-23 * size;
      if (silu)
        wanted = sum / (1 + std::exp(-sum)), bound = 2 * bound + 2 * unit<T> * std::abs(wanted);
      if (gated) wanted = left + g * sum, bound += 0x1p-22 * (std::abs(left) + std::abs(g * sum));
      if (sizeof(T) == 4 && !silu) {
        const float y = total + bias[j];
        wanted = gated ? left + g * y : y, bound = 0;
      }
      if (!(std::abs(got - wanted) <= bound + 1e-30)) return differs("out", r * J + j, got, wanted);
    }
  return "ok";
}

template <class T, bool kGuided, bool kClip>
std::string ddpm_step(int64_t N, int64_t C) {
  state = 9;
  const int64_t R = kGuided ? 2 * N : N;
  Buffer<float> x(N, C, C + 1), noise(N, C, C + 2), coefficients(1, 7, 7), guidance(1, 1, 1);
  Buffer<T> model_output(R, 2 * C, 2 * C + 3);
  Buffer<float> out(N * C, false);
  DdpmStep a{};
  a.out = out.data(), a.x = x.data(), a.model_output = model_output.data();
  a.noise = noise.data(), a.coefficients = coefficients.data(), a.guidance = guidance.data();
  a.tokens = N, a.channels = C;
  a.x_stride = C + 1, a.model_output_stride = 2 * C + 3, a.noise_stride = C + 2;
  a.model_output_dtype = dtype<T>, a.guided = kGuided, a.temperature = 0.75f;
  a.clip_denoised = kClip;
  if (const char* error = cuda::ddpm_step_by(a, emu::Emulated{})) return error;
  const auto c = [&](int i) { return double{coefficients[i]}; };
  for (int64_t n = 0; n < N; ++n)
    for (int64_t j = 0; j < C; ++j) {
      double eps = model_output[n * (2 * C + 3) + j];
      const double v = model_output[n * (2 * C + 3) + C + j];
      if (kGuided) {
        const double uncond = model_output[(N + n) * (2 * C + 3) + j];
        eps = uncond + guidance[0] * (eps - uncond);
      }
      const double fraction = (v + 1) / 2, at = x[n * (C + 1) + j];
      const double sigma = std::exp((fraction * c(4) + (1 - fraction) * c(5)) / 2);
      double x0 = c(0) * at - c(1) * eps;
      if (kClip) x0 = std::min(1.0, std::max(-1.0, x0));
      const double wanted = c(2) * x0 + c(3) * at + c(6) * sigma * noise[n * (C + 2) + j] * 0.75;
      if (!(std::abs(out[n * C + j] - wanted) <= 1e-6))
        return differs("out", n * C + j, out[n * C + j], wanted);
    }
  return "ok";
}

template <class T, class Affine, class Out>
std::string layer_norm_modulate(int64_t R, int64_t w, bool affine) {
  state = 11;
  Buffer<T> x(R, w, w + 1), shift(R, w, w + 2), scale(R, w, w + 3);
  Buffer<Affine> weight(1, w, w), bias(1, w, w);
  Buffer<Out> out(R * w, false);
  cuda::NormModulate args{};
  LayerNormModulate& a = args.rows;
  a.out = out.data(), a.x = x.data(), a.shift = shift.data(), a.scale = scale.data();
  a.weight = affine ? weight.data() : nullptr, a.bias = affine ? bias.data() : nullptr;
  a.rows = R, a.width = w, a.x_stride = w + 1, a.shift_stride = w + 2, a.scale_stride = w + 3;
  a.dtype = dtype<T>, a.eps = 1e-6f;
  args.affine_dtype = dtype<Affine>, args.out_dtype = dtype<Out>;
  if (const char* error = cuda::layer_norm_modulate_by(args, emu::Emulated{})) return error;
  for (int64_t r = 0; r < R; ++r) {
    double mean = 0, variance = 0;
    for (int64_t j = 0; j < w; ++j) mean += x[r * (w + 1) + j] / double(w);
    for (int64_t j = 0; j < w; ++j) variance += std::pow(x[r * (w + 1) + j] - mean, 2) / double(w);
    for (int64_t j = 0; j < w; ++j) {
      double y = (x[r * (w + 1) + j] - mean) / std::sqrt(variance + a.eps);
      if (affine) y = y * weight[j] + bias[j];
      const double wanted = y * (1.0 + scale[r * (w + 3) + j]) + shift[r * (w + 2) + j];
      const double bound = unit<Out> * std::abs(wanted) + 1e-5;
      if (!(std::abs(out[r * w + j] - wanted) <= bound))
        return differs("out", r * w + j, out[r * w + j], wanted);
    }
  }
  return "ok";
}

template <class T>
std::string silu_sum(int64_t R, int64_t w) {
  state = 13;
  Buffer<float> x(R, w, w), y(R, w, w);
  Buffer<T> out(R * w, false);
  const cuda::SiluSum a{out.data(), x.data(), y.data(), R, w, dtype<T>};
  if (const char* error = cuda::silu_sum_by(a, emu::Emulated{})) return error;
  for (int64_t i = 0; i < R * w; ++i) {
    const double sum = double{x[i]} + y[i], wanted = sum / (1 + std::exp(-sum));
    if (!(std::abs(out[i] - wanted) <= unit<T> * std::abs(wanted) + 1e-6))
      return differs("out", i, out[i], wanted);
  }
  return "ok";
}

struct Heads {
  int64_t batch, length, heads, head_dim;
  int64_t wanted;  // -1: all
  bool causal;
  int64_t gap = 8;  // between positions; odd: rows that whole copies can't read
};

// Scores are some units apart; or `steep`: hundreds, so that the weights of a wrong maximum
// overflow; or `far`: of the first keys -infinity. Positions of a list are drawn, but for three
// that aren't any.
enum class Scores { near, steep, far };

template <class T>
std::string attention(const Heads& h, Scores scores = Scores::near) {
  state = 17;
  const auto [B, L, H, hd, given, causal, gap] = h;
  const int64_t Lq = given < 0 ? L : given, stride = 3 * H * hd + gap, image = L * stride + 2 * gap;
  const int64_t last = B * L > 0 ? (B - 1) * image + (L - 1) * stride + 3 * H * hd : 0;
  Buffer<T> qkv(last, true), out(B * Lq * H * hd, false);
  Buffer<int64_t> queries(B * Lq, true);
  for (int64_t b = 0; b < B; ++b)
    for (int64_t l = 0; l < L; ++l)
      for (int64_t i = 0; i < 3 * H * hd; ++i) {
        const bool query = i < H * hd, key = !query && i < 2 * H * hd, far = scores == Scores::far;
        float value = number() * (!query ? 1 : scores == Scores::steep ? 1000 : 5);
        if (far && query) value = 1e3f;
        if (far && key && l < 70) value = -1e37f;
        from_float(value, qkv.data() + b * image + l * stride + i);
      }
  for (int64_t i = 0; i < B * Lq; ++i)
    queries.data()[i] = (given < 0 ? i : i * 37 + 11) % std::max<int64_t>(L, 1);
  if (given > 3) queries.data()[1] = -1, queries.data()[2] = L, queries.data()[3] = 1ll << 40;
  cuda::Attention a{};
  a.out = out.data(), a.qkv = qkv.data(), a.queries = given < 0 ? nullptr : queries.data();
  a.batch = B, a.length = L, a.wanted = Lq, a.heads = H, a.head_dim = hd;
  a.batch_stride = image, a.position_stride = stride, a.part_stride = H * hd, a.head_stride = hd;
  a.dtype = dtype<T>, a.causal = causal, a.scale = 1 / std::sqrt(static_cast<float>(hd));
  if (const char* error = cuda::attention_by(a, emu::Emulated{})) return error;
  const double unit_of_sum = scores == Scores::steep ? 0x1p-12 : 0x1p-18;
  std::vector<double> weight(L);
  for (int64_t row = 0; row < B * Lq * H; ++row) {
    const int64_t b = row / H / Lq, head = row % H, query = queries.data()[row / H];
    const bool exists = query >= 0 && query < L;
    const auto at = [&](int64_t l, int64_t part, int64_t d) {
      return double{qkv[b * image + l * stride + (part * H + head) * hd + d]};
    };
    double most = -INFINITY, total = 0;
    const int64_t seen = !exists ? 0 : causal ? query + 1 : L;
    for (int64_t l = 0; l < seen; ++l) {
      weight[l] = 0;
      for (int64_t d = 0; d < hd; ++d) weight[l] += at(query, 0, d) * at(l, 1, d) * a.scale;
      if (weight[l] < -1e30) weight[l] = -INFINITY;
      most = std::max(most, weight[l]);
    }
    for (int64_t l = 0; l < seen; ++l) total += weight[l] = std::exp(weight[l] - most);
    for (int64_t d = 0; d < hd; ++d) {
      double wanted = 0, sizes = 0;
      for (int64_t l = 0; l < seen; ++l) {
        wanted += weight[l] / total * at(l, 2, d),
            sizes += weight[l] / total * std::abs(at(l, 2, d));
      }
      const double got = out[row * hd + d],
                   bound = (unit<T> + unit_of_sum) * (std::abs(wanted) + sizes);
      if (exists ? !(std::abs(got - wanted) <= bound) : got == got)
        return differs("out", row * hd + d, got, exists ? wanted : NAN);
    }
  }
  return "ok";
}

struct Case {
  std::string name;
  std::function<std::string()> run;
};

template <class T>
void add_cases(std::vector<Case>& all, const std::string& type) {
  struct Shape {
    int64_t rows, inputs, outputs, gap;
  };
  constexpr Shape shapes[] = {{0, 8, 8, 0},    {1, 40, 70, 8},   {3, 33, 17, 1}, {9, 33, 131, 1},
                              {17, 136, 9, 8}, {66, 72, 130, 8}, {2, 520, 65, 0}};
  for (const auto& s : shapes)
    for (Epilogue e : {Epilogue::none, Epilogue::silu, Epilogue::gate}) {
      if (s.rows == 66 && e != Epilogue::gate) continue;
      all.push_back({"linear " + type + " " + std::to_string(s.rows) + "x" +
                         std::to_string(s.inputs) + "x" + std::to_string(s.outputs),
                     [=] { return linear<T>(s.rows, s.inputs, s.outputs, e, s.gap); }});
    }
  for (int64_t n : {0, 1, 3, 90}) {
    all.push_back({"ddpm_step " + type, [=] { return ddpm_step<T, false, true>(n, 3); }});
    all.push_back({"ddpm_step guided " + type, [=] { return ddpm_step<T, true, false>(n, 3); }});
  }
  for (int64_t w : {1, 33, 67, 130})
    for (int64_t rows : {0, 1, 5}) {
      all.push_back({"layer_norm_modulate " + type,
                     [=] { return layer_norm_modulate<T, T, T>(rows, w, w != 33); }});
      all.push_back({"layer_norm_modulate float to " + type,
                     [=] { return layer_norm_modulate<float, T, T>(rows, w, true); }});
    }
  constexpr Heads heads[] = {
      {1, 1, 1, 64, -1, false},     {2, 5, 3, 8, -1, true},       {1, 17, 2, 24, -1, false},
      {1, 64, 1, 80, -1, true},     {1, 77, 2, 64, -1, false},    {2, 130, 1, 80, 5, true},
      {1, 130, 1, 64, -1, true},    {1, 40, 1, 128, 66, false},   {2, 33, 1, 7, -1, true, 1},
      {1, 17, 2, 128, 5, false, 1}, {1, 70, 1, 20, -1, false, 3}, {0, 5, 1, 64, -1, false},
      {2, 5, 1, 64, 0, false},      {1, 0, 1, 16, 2, false},
  };
  for (const Heads& h : heads)
    all.push_back(
        {"attention " + type + " " + std::to_string(h.length) + "x" + std::to_string(h.head_dim),
         [=] { return attention<T>(h); }});
  all.push_back({"attention " + type + " steep",
                 [] { return attention<T>({1, 75, 1, 16, -1, true}, Scores::steep); }});
  if (!std::is_same_v<T, float16>)
    all.push_back({"attention " + type + " from -infinity",
                   [] { return attention<T>({1, 75, 1, 16, 2, false}, Scores::far); }});
  for (int64_t rows : {0, 1, 3})
    all.push_back({"silu_sum " + type, [=] { return silu_sum<T>(rows, 97); }});
}

std::string outcome(const Case& which) {
  try {
    return which.run();
  } catch (const emu::Report& report) {
    return report.what();
  }
}

emu::Schedule schedule(const std::string& name) {
  return name == "reverse"  ? emu::Schedule::reverse
         : name == "random" ? emu::Schedule::random
                            : emu::Schedule::forward;
}

}  // namespace

int main(int count, char** words) {
  std::vector<Case> cases;
  add_cases<float>(cases, "float32");
  add_cases<bfloat16>(cases, "bfloat16");
  add_cases<float16>(cases, "float16");
  if (count > 1 && std::strcmp(words[1], "faults") == 0) {
    for (const Case& which : cases) outcome(which);
    for (const auto& site : emu::reached()) {
      std::string found = "ok", by;
      for (const char* order : {"forward", "reverse", "random"}) {
        emu::options().schedule = schedule(order);
        for (size_t i = 0; i < cases.size() && found == "ok"; ++i) {
          emu::plant_fault(site.operation, site.file, site.line);
          found = outcome(cases[i]);
          by = cases[i].name;
        }
      }
      std::printf("%s\t%s\t%d\t%s\t%s\n", site.operation.c_str(), site.file.c_str(), site.line,
                  by.c_str(), found.c_str());
    }
    return 0;
  }
  if (count > 2) emu::options().schedule = schedule(words[2]);
  for (const Case& which : cases)
    std::printf("%s\t%s\n", which.name.c_str(), outcome(which).c_str());
}
