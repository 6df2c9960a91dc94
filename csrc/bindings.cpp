// The only file that knows Python. Pointers arrive as integers, from tensors that marfast/ops has
// checked and that the caller keeps alive; kernels run without the GIL.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/head_weights.h"
#include "cpu/head_workspace.h"
#include "cpu/packed_linear.h"
#include "cuda/plan.h"
#include "marfast/ops.h"
#include "marfast/range.h"

namespace py = pybind11;

namespace marfast {
namespace {

// How a struct's field is passed from Python.
template <class Field>
struct WireOf {
  using type = typename std::conditional_t<std::is_enum_v<Field>, std::underlying_type<Field>,
                                           std::common_type<Field>>::type;
};
template <class Field>
struct WireOf<Field*> {
  using type = std::uintptr_t;
};
using Sizes = std::array<int64_t, 5>;
template <>
struct WireOf<HeadShape> {
  using type = Sizes;
};
template <class Field>
using Wire = typename WireOf<Field>::type;

template <class Field>
Field from_wire(Wire<Field> value) {
  if constexpr (std::is_pointer_v<Field>) {
    return reinterpret_cast<Field>(value);
  } else if constexpr (std::is_same_v<Field, HeadShape>) {
    return {value[0], value[1], value[2], value[3], value[4]};
  } else {
    return static_cast<Field>(value);
  }
}

// Defines the op's function in m: one positional argument for each of `fields`, in their order.
template <class Args, class... Field>
void def(py::module_& m, const char* name, void (*Kernels::*op)(const Args&),
         Field Args::*... fields) {
  m.def(name, [name, op, fields...](Wire<Field>... values) {
    Args args{};
    ((args.*fields = from_wire<Field>(values)), ...);
    const Range range = range_of(name, args);
    py::gil_scoped_release unlocked;
    run(active_isa().kernels->*op, args);
  });
}

std::vector<std::string> names(unsigned features) {
  std::vector<std::string> result;
  for (const Isa* isa : usable_isas(features)) result.emplace_back(isa->name);
  return result;
}

// The GPU's plan is arithmetic: it needs no GPU.
void def_plan(py::module_& m) {
  using G = cuda::GpuProfile;
  py::list profiles;
  for (const G& g : cuda::kGpuProfiles) {
    profiles.append(py::make_tuple(g.name, g.sms, g.shared_bytes, g.l2_bytes, g.memory_rate,
                                   g.l2_rate, g.half_rate, g.mma_share, g.float_rate,
                                   g.barrier_time, g.launch_time));
  }
  m.attr("gpu_profiles") = profiles;
  using Profile = std::tuple<std::string, int64_t, int64_t, int64_t, double, double, double, double,
                             double, double, double>;
  m.def("head_plan", [](const Profile& profile, const Sizes& shape, Wire<DType> dtype, int64_t rows,
                        int64_t steps, int64_t modulation_budget) {
    const G gpu = std::apply(
        [](const std::string& name, auto... rest) { return G{name.c_str(), rest...}; }, profile);
    const cuda::HeadPlan p = cuda::head_plan(
        gpu, from_wire<HeadShape>(shape), from_wire<DType>(dtype), rows, steps, modulation_budget);
    return py::make_tuple(static_cast<int>(p.regime), p.row_groups, p.column_groups, p.row_tile,
                          p.columns, p.normalise_once, p.stationary, p.staged, p.shared_bytes,
                          p.chunk, p.modulation_bytes, p.utilisation, p.bytes, p.flops, p.barriers,
                          p.time, p.floor);
  });
}

PYBIND11_MODULE(_C, m) {
  m.attr("compiler") = MARFAST_COMPILER;
  m.attr("nvtx") = py::bool_(MARFAST_HAVE_NVTX);
  m.attr("AVX2") = py::int_(+kAvx2);
  m.attr("AVX512") = py::int_(+kAvx512);
  m.attr("AVX512_BF16") = py::int_(+kAvx512Bf16);
  m.attr("AMX_BF16") = py::int_(+kAmxBf16);
  m.def("cpu_features", &cpu_features);
  m.def("isas", [] { return names(cpu_features()); });
  m.def("isa", [] { return std::string(active_isa().name); });
  m.def("set_isa", &set_isa);
  m.def("select_isa", [](unsigned features, const std::string& forced) {
    return std::string(select_isa(features, forced).name);
  });

  using A = AdalnMlp;
  def(m, "adaln_mlp", &Kernels::adaln_mlp, &A::out, &A::x, &A::shift, &A::scale, &A::gate,
      &A::norm_weight, &A::norm_bias, &A::packed, &A::workspace, &A::rows, &A::width, &A::group,
      &A::x_stride, &A::shift_stride, &A::scale_stride, &A::gate_stride, &A::weight_dtype,
      &A::threads, &A::eps);
  using D = DdpmStep;
  def(m, "ddpm_step", &Kernels::ddpm_step, &D::out, &D::x, &D::model_output, &D::noise,
      &D::coefficients, &D::guidance, &D::tokens, &D::channels, &D::x_stride,
      &D::model_output_stride, &D::noise_stride, &D::model_output_dtype, &D::guided,
      &D::temperature, &D::clip_denoised);
  using S = DdpmSample;
  def(m, "ddpm_sample", &Kernels::ddpm_sample, &S::out, &S::noise, &S::step_noise, &S::condition,
      &S::packed, &S::schedule, &S::time_embedding, &S::guidance, &S::workspace, &S::shape,
      &S::tokens, &S::steps, &S::step_begin, &S::step_end, &S::chunk, &S::step_noise_stride,
      &S::weight_dtype, &S::threads, &S::guided, &S::temperature, &S::clip_denoised);
  m.def("ddpm_sample_workspace",
        [](const Sizes& shape, int64_t tokens, int64_t steps, int64_t chunk, bool guided) {
          DdpmSample a{};
          a.shape = from_wire<HeadShape>(shape);
          a.tokens = tokens;
          a.steps = steps;
          a.chunk = chunk;
          a.guided = guided;
          return SampleWorkspace(a).size;
        });
  using N = Denoise;
  def(m, "denoise", &Kernels::denoise, &N::out, &N::x, &N::condition, &N::time_embedding,
      &N::packed, &N::workspace, &N::shape, &N::rows, &N::weight_dtype, &N::threads);
  m.def("denoise_workspace", [](const Sizes& shape, int64_t rows) {
    return HeadWorkspace(from_wire<HeadShape>(shape), rows, rows, rows, nullptr).size;
  });
  m.def("packed_head_size", [](const Sizes& shape, Wire<DType> dtype) {
    return HeadWeights(from_wire<HeadShape>(shape), from_wire<DType>(dtype), nullptr).size();
  });
  m.def("pack_head", [](const Sizes& shape, Wire<DType> dtype, Wire<DType> from,
                        const std::vector<std::uintptr_t>& weights, std::uintptr_t packed) {
    std::vector<const void*> pointers;
    for (const std::uintptr_t weight : weights) {
      pointers.push_back(reinterpret_cast<const void*>(weight));
    }
    py::gil_scoped_release unlocked;
    pack_head(from_wire<HeadShape>(shape), from_wire<DType>(dtype), from_wire<DType>(from),
              pointers.data(), reinterpret_cast<float*>(packed));
  });
  m.def("packed_linear_size", [](int64_t inputs, int64_t outputs, Wire<DType> dtype) {
    return packed_size(linear_at(nullptr, inputs, outputs, from_wire<DType>(dtype)));
  });
  m.def("pack_linear", [](int64_t inputs, int64_t outputs, Wire<DType> dtype, Wire<DType> from,
                          std::uintptr_t weight, std::uintptr_t bias, std::uintptr_t packed) {
    py::gil_scoped_release unlocked;
    pack_linear(inputs, outputs, from_wire<DType>(dtype), from_wire<DType>(from),
                reinterpret_cast<const void*>(weight), reinterpret_cast<const void*>(bias),
                reinterpret_cast<float*>(packed));
  });
  using F = FusedLinear;
  def(m, "fused_linear", &Kernels::fused_linear, &F::out, &F::x, &F::packed, &F::norm_weight,
      &F::norm_bias, &F::residual, &F::workspace, &F::rows, &F::inputs, &F::outputs, &F::group,
      &F::x_stride, &F::residual_stride, &F::scratch_stride, &F::weight_dtype, &F::threads,
      &F::gelu, &F::eps);
  using GN = GroupNormSilu;
  def(m, "group_norm_silu", &Kernels::group_norm_silu, &GN::out, &GN::x, &GN::weight, &GN::bias,
      &GN::moments, &GN::group_moments, &GN::scratch, &GN::images, &GN::positions, &GN::channels,
      &GN::groups, &GN::chunks, &GN::threads, &GN::dtype, &GN::silu, &GN::eps);
  using L = LayerNormModulate;
  def(m, "layer_norm_modulate", &Kernels::layer_norm_modulate, &L::out, &L::x, &L::shift, &L::scale,
      &L::weight, &L::bias, &L::rows, &L::width, &L::x_stride, &L::shift_stride, &L::scale_stride,
      &L::dtype, &L::eps);

  def_plan(m);
}

}  // namespace
}  // namespace marfast
