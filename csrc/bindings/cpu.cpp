// marfast._cpu: the CPU's kernels, which run without the GIL. One fill a struct says which
// arguments it takes, of what sizes.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <vector>

#include "bindings/attention.h"
#include "bindings/ddpm_step.h"
#include "bindings/modules.h"
#include "bindings/wire.h"
#include "cpu/attention_scratch.h"
#include "cpu/dispatch.h"
#include "cpu/head_workspace.h"
#include "cpu/packed_head.h"
#include "cpu/packed_linear.h"
#include "marfast/ops.h"
#include "marfast/range.h"

namespace py = pybind11;

namespace marfast {
namespace {

using wire::Given;

void fill(Given& given, AdalnMlp& a) {
  given.sizes("x", {&a.rows, &a.width});
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

void fill(Given& given, TeamAttention& a) {
  fill(given, static_cast<Attention&>(a));
  given.value(FIELD(scratch));
  given.value(FIELD(threads));
  given.expect(a.scratch >= attention_scratch(a.length, a.head_dim), "scratch", "is too small");
  given.buffer(FIELD(workspace), a.threads * a.scratch);
}

void fill(Given& given, DdpmSample& a) {
  given.sizes("noise", {&a.tokens, &a.shape.channels});
  given.record(FIELD(shape));
  given.record(FIELD(spec));
  given.record(FIELD(options));
  given.value(FIELD(group));
  given.expect(a.group > 0, "group", "is not positive");
  given.value(FIELD(step_begin));
  given.value(FIELD(step_end));
  given.value(FIELD(chunk));
  given.value(FIELD(weight_dtype));
  given.value(FIELD(threads));
  const HeadShape& s = a.shape;
  int64_t times = 0;
  given.sizes("time_embedding", {&times, &a.steps, &a.shape.frequencies});
  given.dense(FIELD(out), {a.tokens, s.channels});
  given.dense(FIELD(noise), {a.tokens, s.channels});
  given.rows(ROWS(step_noise), {a.steps, a.tokens, s.channels});
  given.dense(FIELD(condition), {rows_of(a.options, a.tokens), s.condition});
  given.buffer(FIELD(packed), PackedHead(s, a.spec, a.weight_dtype, nullptr).size());
  fill_coefficients(given, FIELD(schedule), {a.steps, kCoefficients});
  given.dense(FIELD(time_embedding), {a.spec.times, a.steps, s.frequencies});
  given.dense(FIELD(guidance), {a.steps, a.options.scales()});
  if (given.has("x0")) given.dense(FIELD(x0), {a.tokens, s.channels});
  given.buffer(FIELD(workspace), sample_workspace(a));
}

void fill(Given& given, Denoise& a) {
  given.sizes("x", {&a.rows, &a.shape.channels});
  given.record(FIELD(shape));
  given.record(FIELD(spec));
  given.value(FIELD(weight_dtype));
  given.value(FIELD(threads));
  const HeadShape& s = a.shape;
  given.dense(FIELD(out), {a.rows, a.spec.outputs(s.channels)});
  given.dense(FIELD(x), {a.rows, s.channels});
  given.dense(FIELD(condition), {a.rows, s.condition});
  given.dense(FIELD(time_embedding), {a.spec.times, a.rows, s.frequencies});
  given.buffer(FIELD(packed), PackedHead(s, a.spec, a.weight_dtype, nullptr).size());
  given.buffer(FIELD(workspace), HeadWorkspace(s, a.spec, a.rows, a.rows, a.rows, nullptr).size);
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
