// csrc/cuda's kernels in the emulator, at small and odd shapes, against formulas written out here.

#include <string_view>
#include <tuple>

#include "cases.h"

// -DMARFAST_ONLY='"linear"' leaves out the cases of other ops.
#ifndef MARFAST_ONLY
#define MARFAST_ONLY ""
#endif

namespace {

constexpr bool wanted(std::string_view op) {
  return std::string_view(MARFAST_ONLY).empty() || op == MARFAST_ONLY;
}
#include "cuda/grid_barrier.cuh"

// What a launch failed with; every block of these kernels has something to write.
const char* failed(cuda::Status status) {
  return status ? status : emu::idle_blocks() ? "a block has nothing to do" : nullptr;
}

// A factor of a product stays in float16's range, and a NaN stays one.
template <class T>
double factor(double value) {
  const bool bounded = std::is_same_v<T, float16> && !std::isnan(value);
  return bounded ? std::fmin(65504, std::fmax(-65504, value)) : value;
}

// underflow: every product is -0, as are the bias and so each sum.
enum class Epilogue { none, silu, gate, underflow };

// float32: the same bits as the order in docs/numerics.md. Others: float32 sums, in any order.
template <class T>
std::string linear(int64_t R, int64_t K, int64_t J, Epilogue epilogue, int64_t gap, Off x_off = {},
                   Off weight_off = {}) {
  state = 7;
  Buffer<T> x(R, K, K + gap, x_off), weight(J, K, K, weight_off), bias(1, J, J);
  Buffer<float> gate(R, J, J + 3), residual(R, J, J + 1), out(R * (J + 2), false);
  Buffer<T> narrow(R * (J + 2), false);
  const bool silu = epilogue == Epilogue::silu, gated = epilogue == Epilogue::gate;
  if (epilogue == Epilogue::underflow) {
    for (T& value : x.memory) from_float(-1e-30f, &value);
    for (T& value : weight.memory) from_float(1e-30f, &value);
    for (T& value : bias.memory) from_float(-0.0f, &value);
  }
  cuda::LinearLayer a{};
  a.out = silu ? static_cast<void*>(narrow.data()) : out.data();
  a.x = x.data(), a.weight = weight.data(), a.bias = bias.data();
  a.gate = gated ? gate.data() : nullptr, a.residual = gated ? residual.data() : nullptr;
  a.rows = R, a.inputs = K, a.outputs = J;
  a.out_stride = J + 2, a.x_stride = K + gap, a.gate_stride = J + 3, a.residual_stride = J + 1;
  a.dtype = dtype<T>, a.activated = silu;
  if (const char* error = failed(cuda::linear_by(a, emu::Emulated{}))) return error;
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
      const bool other_zero = bound == 0 && std::signbit(got) != std::signbit(wanted);
      if (!(std::abs(got - wanted) <= bound + 1e-30) || other_zero)
        return differs("out", r * J + j, got, wanted);
    }
  return "ok";
}

template <class T, class Gate>
std::string linear_epilogue(int64_t R, int64_t J, Epilogue epilogue) {
  state = 5;
  Buffer<T> product(R, J, J), bias(1, J, J), narrow(R * (J + 2), false);
  from_float(-1e6f, product.data());
  Buffer<Gate> gate(R, J, J + 3);
  Buffer<float> residual(R, J, J + 1), out(R * (J + 2), false);
  const bool silu = epilogue == Epilogue::silu, gated = epilogue == Epilogue::gate;
  cuda::LinearEpilogue a{};
  a.out = silu ? static_cast<void*>(narrow.data()) : out.data();
  a.product = product.data(), a.bias = bias.data();
  a.gate = gated ? gate.data() : nullptr, a.residual = gated ? residual.data() : nullptr;
  a.rows = R, a.outputs = J, a.dtype = dtype<T>, a.gate_dtype = dtype<Gate>;
  a.activated = silu;
  a.out_stride = J + 2, a.product_stride = J, a.gate_stride = J + 3, a.residual_stride = J + 1;
  if (const char* error = failed(cuda::linear_epilogue_by(a, emu::Emulated{}))) return error;
  for (int64_t r = 0; r < R; ++r)
    for (int64_t j = 0; j < J; ++j) {
      const double y = factor<T>(product[r * J + j]) + bias[j];
      const double got = silu ? narrow[r * (J + 2) + j] : out[r * (J + 2) + j];
      const double left = residual[r * (J + 1) + j], g = gate[r * (J + 3) + j];
      const double wanted = silu ? y / (1 + std::exp(-y)) : gated ? left + g * y : y;
      const double bound = 1e-6 + (silu ? unit<T> : 0x1p-23) * std::abs(wanted);
      if (!(std::abs(got - wanted) <= bound)) return differs("out", r * J + j, got, wanted);
    }
  return "ok";
}

// kMultistep: with x0 of the step before, and sigma by the table.
template <class T, bool kGuided, bool kClip, bool kMultistep>
std::string ddpm_step(int64_t N, int64_t C) {
  state = 9;
  const int64_t R = kGuided ? 2 * N : N;
  Buffer<float> x(N, C, C + 1), noise(N, C, C + 2), guidance(1, 1, 1);
  Buffer<float> coefficients(1, kCoefficients, kCoefficients), previous(N, C, C);
  const std::vector<float> before(previous.data(), previous.data() + N * C);
  Buffer<T> model_output(R, 2 * C, 2 * C + 3);
  Buffer<float> out(N * C, false);
  if (N == 3) from_float(NAN, model_output.data() + 2 * C + 4);  // stays, clamped or not
  DdpmStep a{};
  a.out = out.data(), a.x = x.data(), a.model_output = model_output.data();
  a.noise = noise.data(), a.guidance = guidance.data();
  a.coefficients = reinterpret_cast<const StepCoefficients*>(coefficients.data());
  if (kMultistep) a.x0 = previous.data();
  a.tokens = N, a.channels = C;
  a.x_stride = C + 1, a.model_output_stride = 2 * C + 3, a.noise_stride = C + 2;
  a.model_output_dtype = dtype<T>, a.options = {kGuided ? 2 : 1, 0.75f, kClip, !kMultistep};
  if (const char* error = failed(cuda::ddpm_step_by(a, emu::Emulated{}))) return error;
  const StepCoefficients& c = *a.coefficients;
  for (int64_t n = 0; n < N; ++n)
    for (int64_t j = 0; j < C; ++j) {
      double eps = model_output[n * (2 * C + 3) + j];
      const double v = model_output[n * (2 * C + 3) + C + j];
      if (kGuided) {
        const double uncond = model_output[(N + n) * (2 * C + 3) + j];
        eps = uncond + guidance[0] * (eps - uncond);
      }
      const double fraction = (v + 1) / 2, at = x[n * (C + 1) + j];
      const double learned =
          std::exp((fraction * c.log_beta + (1 - fraction) * c.log_posterior) / 2);
      const double sigma = c.noise * (kMultistep ? 1 : learned);
      double x0 = double{c.p} * at - double{c.q} * eps;
      if (kClip) x0 = std::min(1.0, std::max(-1.0, x0));
      double wanted = c.x0 * x0 + c.x * at + sigma * noise[n * (C + 2) + j] * 0.75;
      if (kMultistep) wanted += double{c.previous} * before[n * C + j];
      if (kMultistep && !std::isnan(eps) && !(std::abs(previous[n * C + j] - x0) <= 1e-6))
        return differs("x0", n * C + j, previous[n * C + j], x0);
      if (std::isnan(eps) ? !std::isnan(out[n * C + j])
                          : !(std::abs(out[n * C + j] - wanted) <= 1e-6))
        return differs("out", n * C + j, out[n * C + j], wanted);
    }
  return "ok";
}

// float32: the same bits as the order in docs/numerics.md.
template <class T, class Mod, class Affine, class Out>
std::string layer_norm_modulate(int64_t R, int64_t w, bool affine, float far = 1) {
  state = 11;
  Buffer<T> x(R, w, w + 1);
  Buffer<Mod> shift(R, w, w + 2), scale(R, w, w + 3);
  Buffer<Affine> weight(1, w, w), bias(1, w, w);
  Buffer<Out> out(R * w, false);
  for (Mod& value : shift.memory) from_float(far * to_float(value), &value);
  if (R && far != 1) from_float(NAN, shift.data());
  cuda::NormModulate a{};
  a.out = out.data(), a.x = x.data(), a.shift = shift.data(), a.scale = scale.data();
  a.weight = affine ? weight.data() : nullptr, a.bias = affine ? bias.data() : nullptr;
  a.rows = R, a.width = w, a.x_stride = w + 1, a.shift_stride = w + 2, a.scale_stride = w + 3;
  a.dtype = dtype<T>, a.modulation_dtype = dtype<Mod>, a.affine_dtype = dtype<Affine>;
  a.out_dtype = dtype<Out>, a.eps = 1e-6f;
  if (const char* error = failed(cuda::layer_norm_modulate_by(a, emu::Emulated{}))) return error;
  for (int64_t r = 0; r < R; ++r) {
    const auto at = [&](int64_t j) { return x[r * (w + 1) + j]; };
    const float width = static_cast<float>(w), m = lane_sum(w, at) / width;
    const float mean = m + lane_sum(w, [&](int64_t j) { return at(j) - m; }) / width;
    const float squares =
        lane_sum(w, [&](int64_t j) { return (at(j) - mean) * (at(j) - mean); }) / width;
    const float rstd = 1 / std::sqrt(squares + a.eps);
    for (int64_t j = 0; j < w; ++j) {
      float y = (at(j) - mean) * rstd;
      if (affine) y = y * weight[j] + bias[j];
      const float by = static_cast<float>(factor<Mod>(scale[r * (w + 3) + j]));
      const float to = static_cast<float>(factor<Mod>(shift[r * (w + 2) + j]));
      double wanted = y * (1 + by) + to;
      if (sizeof(T) > sizeof(Out)) wanted = factor<Out>(wanted);
      const double bound = sizeof(Out) == 4 ? 0 : unit<Out> * std::abs(wanted) + 1e-30;
      if (std::isnan(wanted) ? !std::isnan(out[r * w + j])
                             : !(std::abs(out[r * w + j] - wanted) <= bound))
        return differs("out", r * w + j, out[r * w + j], wanted);
    }
  }
  return "ok";
}

template <class T>
std::string silu_sum(int64_t steps, int64_t R, int64_t w, float far = 1) {
  state = 13;
  Buffer<float> x(steps, w, w), y(R, w, w);
  for (float& value : x.memory) value *= far;
  Buffer<T> out(steps * R * w, false);
  const cuda::SiluSum a{out.data(), x.data(), y.data(), steps * R, R, R, w, dtype<T>};
  if (const char* error = failed(cuda::silu_sum_by(a, emu::Emulated{}))) return error;
  for (int64_t i = 0; i < steps * R * w; ++i) {
    const double sum = double{x[i / w / R * w + i % w]} + y[i % (R * w)];
    const double wanted = factor<T>(sum / (1 + std::exp(-sum)));
    if (!(std::abs(out[i] - wanted) <= unit<T> * std::abs(wanted) + 1e-6))
      return differs("out", i, out[i], wanted);
  }
  return "ok";
}
struct Rounds {
  float* out;  // [rounds, blocks]
  uint32_t* arrived;
  bool lost;  // whether block 0 never comes
  uint64_t limit_ns;
};

// Each block writes what the blocks before it and after it read.
__global__ void barrier_rounds(const Rounds a) {
  const unsigned blocks = gridDim.x, block = blockIdx.x, t = threadIdx.x;
  if (a.lost && block == 0) return;
  cuda::GridBarrier barrier(a.arrived, a.limit_ns);
  float value = static_cast<float>(block);
  for (unsigned round = 0; round < 3; ++round) {
    float* row = a.out + round * blocks;
    if (t == 33) row[block] = value;
    barrier.wait();
    value = ptx::ld_global_cg(row + (block + 1) % blocks) + 2 * ptx::ld_global_cg(row + block);
  }
}

std::string grid_barrier(unsigned blocks) {
  Buffer<float> out(3 * blocks, false);
  Buffer<uint32_t> arrived(1, true);
  *arrived.data() = 0;
  const Rounds a{out.data(), arrived.data(), false, uint64_t{600} << 30};
  emu::launch({{blocks}, {64}, 4, true}, barrier_rounds, a);
  for (unsigned i = 0; i < 3 * blocks; ++i) {
    const unsigned block = i % blocks;
    float wanted = static_cast<float>(block);
    if (i >= blocks) wanted = out[i - blocks - block + (block + 1) % blocks] + 2 * out[i - blocks];
    if (out[i] != wanted) return differs("out", i, out[i], wanted);
  }
  return "ok";
}

// A wait that can't end becomes an error.
std::string lost_block(unsigned blocks) {
  Buffer<float> out(3 * blocks, false);
  Buffer<uint32_t> arrived(1, true);
  *arrived.data() = 0;
  try {
    const Rounds a{out.data(), arrived.data(), true, 0};
    emu::launch({{blocks}, {64}, 4, true}, barrier_rounds, a);
    return "the kernel ended";
  } catch (const emu::Report& report) {
    return report.kind == "trap" ? "ok" : report.what();
  }
}

template <class T>
void add_cases(std::vector<Case>& all, const std::string& type) {
  struct Shape {
    int64_t rows, inputs, outputs, gap;
  };
  constexpr Shape shapes[] = {{0, 8, 8, 0},    {1, 40, 70, 8},   {3, 33, 17, 1},  {9, 33, 131, 1},
                              {17, 136, 9, 8}, {66, 72, 130, 8}, {2, 520, 65, 0}, {2, 264, 5, 8},
                              {1, 200, 3, 8},  {4, 40, 64, 8},   {8, 40, 64, 8}};
  if constexpr (wanted("linear"))
    for (const auto& s : shapes)
      for (Epilogue e : {Epilogue::none, Epilogue::silu, Epilogue::gate, Epilogue::underflow}) {
        if (s.rows == 66 && e != Epilogue::gate) continue;
        if (sizeof(T) == 2 && e == Epilogue::underflow) continue;
        all.push_back({"linear " + type + " " + std::to_string(s.rows) + "x" +
                           std::to_string(s.inputs) + "x" + std::to_string(s.outputs),
                       [=] { return linear<T>(s.rows, s.inputs, s.outputs, e, s.gap); }});
      }
  if constexpr (wanted("linear")) {  // of each one address or stride alone is odd
    const auto odd = [&](const char* what, int64_t inputs, int64_t gap, Off x, Off weight) {
      for (int64_t rows : {3, 9})
        all.push_back({"linear " + type + ", odd " + what, [=] {
                         return linear<T>(rows, inputs, 20, Epilogue::none, gap, x, weight);
                       }});
    };
    odd("inputs", 33, 7, {0}, {0}), odd("stride", 40, 1, {0}, {0});
    odd("x", 40, 8, {1}, {0}), odd("weight", 40, 8, {0}, {1});
  }
  if constexpr (wanted("ddpm_step"))
    for (int64_t n : {0, 1, 3, 90, 256, 257}) {
      const int64_t c = n > 90 ? 1 : 3;
      all.push_back({"ddpm_step " + type, [=] { return ddpm_step<T, false, true, false>(n, c); }});
      all.push_back(
          {"ddpm_step guided " + type, [=] { return ddpm_step<T, true, false, false>(n, c); }});
      all.push_back(
          {"ddpm_step multistep " + type, [=] { return ddpm_step<T, true, true, true>(n, c); }});
    }
  if constexpr (wanted("layer_norm_modulate"))
    for (int64_t w : {1, 33, 67, 130})
      for (int64_t rows : {0, 1, 4, 5}) {
        all.push_back({"layer_norm_modulate " + type,
                       [=] { return layer_norm_modulate<T, T, T, T>(rows, w, w != 33); }});
        all.push_back({"layer_norm_modulate float to " + type,
                       [=] { return layer_norm_modulate<float, float, T, T>(rows, w, true); }});
        all.push_back({"layer_norm_modulate float, float to " + type,
                       [=] { return layer_norm_modulate<float, float, float, T>(rows, w, true); }});
        all.push_back({"layer_norm_modulate far float to " + type, [=] {
                         return layer_norm_modulate<float, float, float, T>(rows, w, true, 1e6f);
                       }});
        all.push_back({"layer_norm_modulate float, all else " + type,
                       [=] { return layer_norm_modulate<float, T, T, T>(rows, w, true, 1e6f); }});
      }
  if constexpr (wanted("silu_sum"))
    for (const auto& [steps, rows, w] :
         {std::tuple{2, 0, 97}, {1, 1, 256}, {1, 1, 257}, {2, 3, 97}})
      all.push_back(
          {"silu_sum " + type, [s = steps, r = rows, w = w] { return silu_sum<T>(s, r, w); }});
  if constexpr (wanted("silu_sum"))
    all.push_back({"silu_sum far " + type, [] { return silu_sum<T>(2, 3, 97, 1e6f); }});
  if constexpr (sizeof(T) == 2 && wanted("linear_epilogue"))
    for (Epilogue e : {Epilogue::none, Epilogue::silu, Epilogue::gate})
      for (int64_t outputs : {5, 1024, 1027, 1300}) {
        all.push_back(
            {"linear_epilogue " + type, [=] { return linear_epilogue<T, float>(3, outputs, e); }});
        all.push_back({"linear_epilogue, gate, too, " + type,
                       [=] { return linear_epilogue<T, T>(3, outputs, e); }});
      }
}

void add_barrier_cases(std::vector<Case>& all) {
  if constexpr (wanted("grid_barrier"))
    for (unsigned blocks : {2, 5}) {
      all.push_back({"grid_barrier", [=] { return grid_barrier(blocks); }});
      all.push_back({"grid_barrier, a block lost", [=] { return lost_block(blocks); }});
    }
}

}  // namespace

int main(int count, char** words) {
  std::vector<Case> cases;
  each_dtype([&](auto element, const char* name) { add_cases<decltype(element)>(cases, name); });
  add_barrier_cases(cases);
  return run_cases(cases, count, words);
}
