// marfast._cuda, and with MARFAST_CUDA_MODULE=marfast_emulation the emulator's module. One fill a
// struct says which arguments it takes, of what sizes; `stream` is an integer. A launch that fails
// is a RuntimeError.

#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/attention.h"
#include "bindings/ddpm_step.h"
#include "bindings/wire.h"
#include "cuda/launchers.h"
#include "marfast/head_weights.h"
#include "marfast/range.h"

#ifndef MARFAST_CUDA_MODULE
#define MARFAST_CUDA_MODULE _cuda
#endif

namespace py = pybind11;

namespace marfast::cuda {

namespace {

using wire::Given;

void fill_epilogue(Given& given, Epilogue& a) {
  given.sizes("out", {&a.rows, &a.outputs});
  a.dtype = given.dtype("bias");
  given.value(FIELD(activated));
  given.rows(ROWS(out), a.rows, a.outputs, a.activated ? a.dtype : DType::f32);
  given.dense(FIELD(bias), {a.outputs}, a.dtype);
  if (given.has("gate")) {
    a.gate_dtype = given.dtype("gate");
    given.rows(ROWS(gate), a.rows, a.outputs, a.gate_dtype);
  }
  if (given.has("residual")) given.rows(ROWS(residual), a.rows, a.outputs);
  given.expect(!a.gate == !a.residual, "gate", "stands without a residual, or the other way round");
}

void fill(Given& given, LinearLayer& a) {
  fill_epilogue(given, a);
  int64_t rows = 0;
  given.sizes("x", {&rows, &a.inputs});
  given.rows(ROWS(x), a.rows, a.inputs, a.dtype);
  given.dense(FIELD(weight), {a.outputs, a.inputs}, a.dtype);
}

void fill(Given& given, LinearEpilogue& a) {
  fill_epilogue(given, a);
  given.rows(ROWS(product), a.rows, a.outputs, a.dtype);
}

void fill(Given& given, NormModulate& a) {
  given.sizes("x", {&a.rows, &a.width});
  a.dtype = given.dtype("x");
  a.affine_dtype = a.out_dtype = given.dtype("out");
  a.modulation_dtype = given.dtype("shift");
  given.value(FIELD(eps));
  given.dense(FIELD(out), {a.rows, a.width}, a.out_dtype);
  given.rows(ROWS(x), a.rows, a.width, a.dtype);
  given.rows(ROWS(shift), a.rows, a.width, a.modulation_dtype);
  given.rows(ROWS(scale), a.rows, a.width, a.modulation_dtype);
  if (given.has("weight")) {
    a.affine_dtype = given.dtype("weight");
    given.dense(FIELD(weight), {a.width}, a.affine_dtype);
  }
  if (given.has("bias")) given.dense(FIELD(bias), {a.width}, a.affine_dtype);
}

void fill(Given& given, PersistentSample& a) {
  int64_t rows = 0, modulated = 0;
  given.sizes("before", {&a.tokens, &a.shape.channels});
  given.sizes("modulation", {&a.steps, &rows, &modulated});
  given.record(FIELD(shape));
  given.record(FIELD(plan));
  given.record(FIELD(options));
  given.value(FIELD(limit_ns));
  a.dtype = given.dtype("normed");
  const auto [c, z, w, d, f, h] = a.shape;
  const int64_t r = rows_of(a.options, a.tokens);
  given.dense(FIELD(out), {a.tokens, c});
  given.dense(FIELD(before), {a.tokens, c});
  given.rows(ROWS(step_noise), {a.steps, a.tokens, c});
  fill_coefficients(given, FIELD(schedule), {a.steps, kCoefficients});
  given.dense(FIELD(guidance), {a.steps});
  if (given.has("x0")) given.dense(FIELD(x0), {a.tokens, c});
  given.dense(FIELD(modulation), {a.steps, r, (3 * d + 2) * w});
  given.expect(d <= a.kMostDepth, "shape", "is deeper than the kernel's parameters");
  const std::vector<wire::View> weights = given.views("weights");
  given.expect(static_cast<int64_t>(weights.size()) == HeadWeights::count(d), "weights",
               "are not a head's");
  for (size_t i = 0; i < weights.size(); ++i) a.weights[i] = weights[i].data;
  int64_t* barrier = nullptr;  // twice what it needs: no tensor is of 32-bit integers
  given.dense("barrier", barrier, {1});
  a.barrier = reinterpret_cast<uint32_t*>(barrier);
  given.dense(FIELD(x), {r, w});
  given.dense(FIELD(state), {4, a.tokens, c});
  given.dense(FIELD(output), {r, 2 * c});
  given.dense(FIELD(normed), {r, w}, a.dtype);
  given.dense(FIELD(hidden), {r, w}, a.dtype);
}

void fill(Given& given, SiluSum& a) {
  int64_t rows = 0;
  given.sizes("out", {&a.rows, &a.width});
  given.sizes("time", {&rows, &a.width});
  given.sizes("condition", {&a.period, &a.width});
  a.group = rows ? a.rows / rows : 1;
  given.expect(rows * a.group == a.rows && (a.period || !a.rows), "out", "has other rows");
  a.dtype = given.dtype("out");
  given.dense(FIELD(out), {a.rows, a.width}, a.dtype);
  given.dense(FIELD(time), {rows, a.width});
  given.dense(FIELD(condition), {a.period, a.width});
}

void check(const std::string& what, Status status) {
  if (status) throw std::runtime_error(what + ": " + status);
}
void check_launch(const char* op, Status status) {
  check(std::string(op) + ": the launch failed", status);
}

Stream stream_of(Given& given) {
  std::uintptr_t stream = 0;
  given.value("stream", stream);
  return reinterpret_cast<Stream>(stream);
}

// m.name(stream=, **arguments): one argument for each field of the op's struct that `fill` takes.
template <class Args>
void def(py::module_& m, const char* name, Status (*launch)(const Args&, Stream)) {
  wire::def(m, name, [name, launch](Given& given) {
    Args a{};
    const Stream stream = stream_of(given);
    fill(given, a);
    given.finish();
    const Range range = range_of(name, a);
    check_launch(name, launch(a, stream));
    return py::none();
  });
}

PYBIND11_MODULE(MARFAST_CUDA_MODULE, m) {
#define LAUNCHER(op, Args) def(m, #op, &cuda::op);
  MARFAST_CUDA_LAUNCHERS(LAUNCHER)
#undef LAUNCHER
  wire::def(m, "resident_blocks", [](Given& given) {
    PersistentSample a{};
    given.record(FIELD(shape));
    given.record(FIELD(plan));
    given.value(FIELD(dtype));
    given.finish();
    int64_t blocks = 0;
    check("resident_blocks", resident_blocks(a, blocks));
    return py::int_(blocks);
  });
  m.def("device_sizes", [] {
    DeviceSizes sizes{};
    check("device_sizes", device_sizes(sizes));
    return wire::record_of(sizes);
  });
}

}  // namespace
}  // namespace marfast::cuda
