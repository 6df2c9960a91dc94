// marfast._cpu: the CPU's kernels, which run without the GIL, and the arithmetic of the GPU's plan,
// which needs no GPU. One fill a struct says which arguments it takes, of what sizes.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <vector>

#include "bindings/ddpm_step.h"
#include "bindings/wire.h"
#include "cpu/dispatch.h"
#include "cpu/head_workspace.h"
#include "cpu/packed_head.h"
#include "cpu/packed_linear.h"
#include "cuda/plan.h"
#include "marfast/ops.h"
#include "marfast/range.h"

namespace py = pybind11;

namespace marfast {
namespace cuda {

template <class Visit>
void fields(GpuProfile& a, Visit visit) {
  visit(FIELD(name));
  visit(FIELD(sms));
  visit(FIELD(shared_bytes));
  visit(FIELD(l2_bytes));
  visit(FIELD(memory_rate));
  visit(FIELD(l2_rate));
  visit(FIELD(half_rate));
  visit(FIELD(mma_share));
  visit(FIELD(float_rate));
  visit(FIELD(barrier_time));
  visit(FIELD(launch_time));
}

template <class Visit>
void fields(HeadPlan& a, Visit visit) {
  const char* regime = a.regime == Regime::persistent ? "persistent" : "tall";
  visit("regime", regime);
  fields(static_cast<PersistentPlan&>(a), visit);
  visit(FIELD(shared_bytes));
  visit(FIELD(chunk));
  visit(FIELD(modulation_bytes));
  visit(FIELD(utilisation));
  visit(FIELD(bytes));
  visit(FIELD(flops));
  visit(FIELD(barriers));
  visit(FIELD(time));
  visit(FIELD(floor));
}

}  // namespace cuda
namespace {

using wire::Given;

int64_t packed_linear_size(int64_t inputs, int64_t outputs, DType dtype) {
  return packed_size(linear_at(nullptr, inputs, outputs, dtype));
}

void fill(Given& given, AdalnMlp& a) {
  given.sizes("x", {&a.rows, &a.width});
  given.record(FIELD(options));
  given.value(FIELD(group));
  given.value(FIELD(weight_dtype));
  given.value(FIELD(threads));
  given.value(FIELD(eps));
  given.dense(FIELD(out), {a.rows, a.width});
  given.rows(ROWS(x), a.rows, a.width);
  given.rows(ROWS(shift), a.rows, a.width);
  given.rows(ROWS(scale), a.rows, a.width);
  given.rows(ROWS(gate), a.rows, a.width);
  given.dense(FIELD(norm_weight), {a.width});
  given.dense(FIELD(norm_bias), {a.width});
  given.buffer(FIELD(packed), 2 * packed_linear_size(a.width, a.width, a.weight_dtype));
  given.buffer(FIELD(workspace), 2 * a.group * (padded(a.width) + kPanel));
}

void fill(Given& given, DdpmSample& a) {
  given.sizes("noise", {&a.tokens, &a.shape.channels});
  given.record(FIELD(shape));
  given.record(FIELD(options));
  given.value(FIELD(step_begin));
  given.value(FIELD(step_end));
  given.value(FIELD(chunk));
  given.value(FIELD(weight_dtype));
  given.value(FIELD(threads));
  const HeadShape& s = a.shape;
  given.sizes("time_embedding", {&a.steps, &a.shape.frequencies});
  given.dense(FIELD(out), {a.tokens, s.channels});
  given.dense(FIELD(noise), {a.tokens, s.channels});
  given.rows(ROWS(step_noise), {a.steps, a.tokens, s.channels});
  given.dense(FIELD(condition), {rows_of(a.options, a.tokens), s.condition});
  given.buffer(FIELD(packed), PackedHead(s, a.weight_dtype, nullptr).size());
  given.dense(FIELD(schedule), {a.steps, 7});
  given.dense(FIELD(time_embedding), {a.steps, s.frequencies});
  given.dense(FIELD(guidance), {1});
  given.buffer(FIELD(workspace), SampleWorkspace(a).size);
}

void fill(Given& given, Denoise& a) {
  given.sizes("x", {&a.rows, &a.shape.channels});
  given.record(FIELD(shape));
  given.record(FIELD(options));
  given.value(FIELD(weight_dtype));
  given.value(FIELD(threads));
  const HeadShape& s = a.shape;
  given.dense(FIELD(out), {a.rows, 2 * s.channels});
  given.dense(FIELD(x), {a.rows, s.channels});
  given.dense(FIELD(condition), {a.rows, s.condition});
  given.dense(FIELD(time_embedding), {a.rows, s.frequencies});
  given.buffer(FIELD(packed), PackedHead(s, a.weight_dtype, nullptr).size());
  given.buffer(FIELD(workspace), HeadWorkspace(s, a.rows, a.rows, a.rows, nullptr).size);
}

void fill(Given& given, FusedLinear& a) {
  given.sizes("x", {&a.rows, &a.inputs});
  given.sizes("out", {&a.rows, &a.outputs});
  given.value(FIELD(group));
  given.value(FIELD(scratch_stride));
  given.value(FIELD(weight_dtype));
  given.value(FIELD(threads));
  given.value(FIELD(gelu));
  given.value(FIELD(eps));
  given.dense(FIELD(out), {a.rows, a.outputs});
  given.rows(ROWS(x), a.rows, a.inputs);
  given.buffer(FIELD(packed), packed_linear_size(a.inputs, a.outputs, a.weight_dtype));
  if (given.has("norm_weight")) given.dense(FIELD(norm_weight), {a.inputs});
  if (given.has("norm_bias")) given.dense(FIELD(norm_bias), {a.inputs});
  if (given.has("residual")) given.rows(ROWS(residual), a.rows, a.outputs);
  given.expect(a.scratch_stride >= padded(a.inputs), "scratch_stride", "is too small");
  given.buffer(FIELD(workspace), a.threads * a.group * a.scratch_stride);
}

void fill(Given& given, GroupNormSilu& a) {
  given.sizes("x", {&a.images, &a.positions, &a.channels});
  given.value(FIELD(groups));
  given.value(FIELD(threads));
  given.value(FIELD(silu));
  given.value(FIELD(eps));
  a.dtype = given.dtype("x");
  a.chunks = (a.positions + 63) / 64;
  given.dense(FIELD(out), {a.images, a.positions, a.channels}, a.dtype);
  given.dense(FIELD(x), {a.images, a.positions, a.channels}, a.dtype);
  given.dense(FIELD(weight), {a.channels}, a.dtype);
  given.dense(FIELD(bias), {a.channels}, a.dtype);
  given.buffer(FIELD(moments), 3 * a.images * a.groups * a.chunks);
  given.buffer(FIELD(group_moments), 2 * a.images * a.channels);
  given.buffer(FIELD(scratch), 2 * a.threads * a.channels);
}

void fill(Given& given, LayerNormModulate& a) {
  given.sizes("x", {&a.rows, &a.width});
  given.value(FIELD(eps));
  a.dtype = given.dtype("x");
  given.dense(FIELD(out), {a.rows, a.width}, a.dtype);
  given.rows(ROWS(x), a.rows, a.width, a.dtype);
  given.rows(ROWS(shift), a.rows, a.width, a.dtype);
  given.rows(ROWS(scale), a.rows, a.width, a.dtype);
  if (given.has("weight")) given.dense(FIELD(weight), {a.width}, a.dtype);
  if (given.has("bias")) given.dense(FIELD(bias), {a.width}, a.dtype);
}

// m.name(**arguments): one argument for each field of the op's struct that `fill` takes.
template <class Args>
void def(py::module_& m, const char* name, void (*Kernels::*op)(const Args&)) {
  wire::def(m, name, [name, op](Given& given) {
    Args a{};
    fill(given, a);
    given.finish();
    const Range range = range_of(name, a);
    return wire::unlocked([&] { run(active_isa().kernels->*op, a); });
  });
}

// Sizes in floats, and packing.
void def_packing(py::module_& m) {
  wire::def(m, "ddpm_sample_workspace", [](Given& given) {
    DdpmSample a{};
    given.record(FIELD(shape));
    given.record(FIELD(options));
    given.value(FIELD(tokens));
    given.value(FIELD(steps));
    given.value(FIELD(chunk));
    given.finish();
    return py::int_(SampleWorkspace(a).size);
  });
  wire::def(m, "denoise_workspace", [](Given& given) {
    Denoise a{};
    given.record(FIELD(shape));
    given.value(FIELD(rows));
    given.finish();
    return py::int_(HeadWorkspace(a.shape, a.rows, a.rows, a.rows, nullptr).size);
  });
  struct Head {
    HeadShape shape;
    DType dtype;  // of what is packed
    float* packed;

    int64_t size() const { return PackedHead(shape, dtype, nullptr).size(); }
  };
  wire::def(m, "packed_head_size", [](Given& given) {
    Head a{};
    given.record(FIELD(shape));
    given.value(FIELD(dtype));
    given.finish();
    return py::int_(a.size());
  });
  wire::def(m, "pack_head", [](Given& given) {
    Head a{};
    given.record(FIELD(shape));
    given.value(FIELD(dtype));
    const std::vector<wire::View> weights = given.views("weights");
    given.expect(static_cast<int64_t>(weights.size()) == HeadWeights::count(a.shape.depth),
                 "weights", "are not a head's");
    std::vector<const void*> tensors;
    for (const wire::View& weight : weights) {
      given.expect(weight.dense() && weight.element == weights.front().element, "weights",
                   "have elements apart, or several dtypes");
      tensors.push_back(weight.data);
    }
    given.buffer(FIELD(packed), a.size());
    given.finish();
    const DType from = weights.front().dtype();
    const HeadWeights dense(tensors.data(), a.shape.depth);
    return wire::unlocked([&] { pack_head(a.shape, a.dtype, from, dense, a.packed); });
  });
  struct Layer {
    int64_t inputs, outputs;
    DType dtype;  // of what is packed
    const void *weight, *bias;
    float* packed;

    int64_t size() const { return packed_linear_size(inputs, outputs, dtype); }
  };
  wire::def(m, "packed_linear_size", [](Given& given) {
    Layer a{};
    given.value(FIELD(inputs));
    given.value(FIELD(outputs));
    given.value(FIELD(dtype));
    given.finish();
    return py::int_(a.size());
  });
  wire::def(m, "pack_linear", [](Given& given) {
    Layer a{};
    given.sizes("weight", {&a.outputs, &a.inputs});
    given.value(FIELD(dtype));
    const DType from = given.dtype("weight");
    given.dense(FIELD(weight), {a.outputs, a.inputs}, from);
    given.dense(FIELD(bias), {a.outputs}, from);
    given.buffer(FIELD(packed), a.size());
    given.finish();
    return wire::unlocked(
        [&] { pack_linear(a.inputs, a.outputs, a.dtype, from, a.weight, a.bias, a.packed); });
  });
}

void def_plan(py::module_& m) {
  py::list profiles;
  for (const cuda::GpuProfile& gpu : cuda::kGpuProfiles) profiles.append(wire::record_of(gpu));
  m.attr("gpu_profiles") = profiles;
  wire::def(m, "head_plan", [](Given& given) {
    struct {
      cuda::GpuProfile gpu;
      HeadShape shape;
      DType dtype;
      int64_t rows, steps, modulation_budget;
    } a{};
    given.record(FIELD(gpu));
    given.record(FIELD(shape));
    given.value(FIELD(dtype));
    given.value(FIELD(rows));
    given.value(FIELD(steps));
    given.value(FIELD(modulation_budget));
    given.finish();
    return wire::record_of(
        cuda::head_plan(a.gpu, a.shape, a.dtype, a.rows, a.steps, a.modulation_budget));
  });
}

std::vector<std::string> names(unsigned features) {
  std::vector<std::string> result;
  for (const Isa* isa : usable_isas(features)) result.emplace_back(isa->name);
  return result;
}

PYBIND11_MODULE(_cpu, m) {
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

#define KERNEL(op, Args) def(m, #op, &Kernels::op);
  MARFAST_CPU_KERNELS(KERNEL)
#undef KERNEL
  def_packing(m);
  def_plan(m);
}

}  // namespace
}  // namespace marfast
