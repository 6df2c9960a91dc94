// csrc/cuda/kernels.cu over the emulator. Each launch knows exactly the memory that its arguments
// speak of: outputs as never written, inputs as written.

#include "launchers.h"

#include <vector>

#include "marfast/head_weights.h"

namespace marfast::cuda {
namespace {

namespace emu = marfast::emulation;

int64_t size_of(DType dtype) { return dtype == DType::f32 ? 4 : 2; }

class Memory {
 public:
  ~Memory() {
    for (const void* at : known_) emu::remove_memory(at);
  }
  // [rows, columns] of `size` bytes an element
  void in(const char* name, const void* at, int64_t rows, int64_t columns, int64_t stride,
          int64_t size) {
    if (at && rows > 0) add(name, at, ((rows - 1) * stride + columns) * size, true);
  }
  void out(const char* name, const void* at, int64_t rows, int64_t columns, int64_t stride,
           int64_t size) {
    for (const void* other : known_)
      if (other == at) return;  // written in place
    if (at && rows > 0) add(name, at, ((rows - 1) * stride + columns) * size, false);
  }

 private:
  void add(const char* name, const void* at, int64_t bytes, bool written) {
    emu::add_memory(at, static_cast<size_t>(bytes), written, name);
    known_.push_back(at);
  }
  std::vector<const void*> known_;
};

// What each launch's arguments speak of.

void know(Memory& memory, const Attention& a) {
  const int64_t size = size_of(a.dtype), columns = a.heads * a.head_dim;
  if (a.batch * a.length > 0) {
    const int64_t last = (a.batch - 1) * a.batch_stride + (a.length - 1) * a.position_stride +
                         2 * a.part_stride + (a.heads - 1) * a.head_stride;
    memory.in("qkv", a.qkv, 1, last + a.head_dim, 0, size);
  }
  memory.in("queries", a.queries, a.batch, a.wanted, a.wanted, 8);
  memory.out("out", a.out, a.batch * a.wanted, columns, columns, size);
}

void know(Memory& memory, const DdpmStep& a) {
  const int64_t n = a.tokens, c = a.channels;
  memory.in("x", a.x, n, c, a.x_stride, 4);
  memory.in("model_output", a.model_output, a.options.branches * n,
            a.options.learned_range ? 2 * c : c, a.model_output_stride,
            size_of(a.model_output_dtype));
  memory.in("noise", a.noise, n, c, a.noise_stride, 4);
  memory.in("coefficients", a.coefficients, 1, kCoefficients, kCoefficients, 4);
  memory.in("x0", a.x0, n, c, c, 4);
  if (a.options.branches > 1) memory.in("guidance", a.guidance, 1, 1, 1, 4);
  memory.out("out", a.out, n, c, c, 4);
}

void know(Memory& memory, const NormModulate& a) {
  const int64_t size = size_of(a.dtype), affine = size_of(a.affine_dtype);
  const int64_t modulation = size_of(a.modulation_dtype);
  memory.in("x", a.x, a.rows, a.width, a.x_stride, size);
  memory.in("shift", a.shift, a.rows, a.width, a.shift_stride, modulation);
  memory.in("scale", a.scale, a.rows, a.width, a.scale_stride, modulation);
  memory.in("weight", a.weight, 1, a.width, a.width, affine);
  memory.in("bias", a.bias, 1, a.width, a.width, affine);
  memory.out("out", a.out, a.rows, a.width, a.width, size_of(a.out_dtype));
}

void know(Memory& memory, const SiluSum& a) {
  memory.in("time", a.time, (a.rows + a.group - 1) / a.group, a.width, a.width, 4);
  memory.in("condition", a.condition, a.period, a.width, a.width, 4);
  memory.out("out", a.out, a.rows, a.width, a.width, size_of(a.dtype));
}

void know(Memory& memory, const Epilogue& a) {
  const int64_t size = size_of(a.dtype);
  memory.in("bias", a.bias, 1, a.outputs, a.outputs, size);
  if (a.gate) memory.in("gate", a.gate, a.rows, a.outputs, a.gate_stride, size_of(a.gate_dtype));
  if (a.gate) memory.in("residual", a.residual, a.rows, a.outputs, a.residual_stride, 4);
  memory.out("out", a.out, a.rows, a.outputs, a.out_stride, a.activated ? size : 4);
}

void know(Memory& memory, const LinearLayer& a) {
  memory.in("x", a.x, a.rows, a.inputs, a.x_stride, size_of(a.dtype));
  memory.in("weight", a.weight, a.outputs, a.inputs, a.inputs, size_of(a.dtype));
  know(memory, static_cast<const Epilogue&>(a));
}

void know(Memory& memory, const LinearEpilogue& a) {
  memory.in("product", a.product, a.rows, a.outputs, a.product_stride, size_of(a.dtype));
  know(memory, static_cast<const Epilogue&>(a));
}

void know(Memory& memory, const PersistentSample& a) {
  const auto [c, z, w, d, frequencies, hidden] = a.shape;
  const int64_t n = a.tokens, r = a.options.branches * n;
  const int64_t size = size_of(a.dtype), modulated = (3 * d + 2) * w;
  memory.in("before", a.before, n, c, c, 4);
  memory.in("step_noise", a.step_noise, a.steps, n * c, a.step_noise_stride, 4);
  memory.in("schedule", a.schedule, a.steps, kCoefficients, kCoefficients, 4);
  memory.in("x0", a.x0, n, c, c, 4);
  if (a.options.branches > 1) memory.in("guidance", a.guidance, 1, a.steps, a.steps, 4);
  memory.in("modulation", a.modulation, a.steps * r, modulated, modulated, 4);
  // time and condition layers are not this kernel's to read
  auto layer = [&](Layer layer, int64_t outputs, int64_t inputs) {
    memory.in("weight", layer.weight, outputs, inputs, inputs, size);
    memory.in("bias", layer.bias, 1, outputs, outputs, size);
  };
  const HeadWeights weights(a.weights, d);
  layer(weights.input(), w, c);
  for (int64_t b = 0; b < d; ++b) {
    layer(weights.norm(b), w, 1);
    layer(weights.in(b), w, w);
    layer(weights.out(b), w, w);
  }
  layer(weights.final(), 2 * c, w);
  memory.in("barrier", a.barrier, 1, 1, 1, 4);
  memory.out("out", a.out, n, c, c, 4);
  memory.out("x", a.x, r, w, w, 4);
  memory.out("state", a.state, 4 * n, c, c, 4);
  memory.out("output", a.output, r, 2 * c, 2 * c, 4);
  memory.out("normed", a.normed, r, w, w, size);
  memory.out("hidden", a.hidden, r, w, w, size);
}

}  // namespace
}  // namespace marfast::cuda

// In kernels.cu they are a launch's, in the kernels before them a thread's.
#undef blockDim
#undef gridDim
#include "driver.h"
//
#include "cuda/kernels.cu"

// For the tests, by ctypes.
#define EXPORTED extern "C" __attribute__((visibility("default")))
// 0 forward, 1 reverse, 2 random
EXPORTED void marfast_emulation_schedule(int schedule, uint64_t seed) {
  marfast::emulation::options() = {static_cast<marfast::emulation::Schedule>(schedule), seed};
}
EXPORTED void marfast_emulation_device(int there, int multiprocessors, int shared_bytes) {
  marfast::emulation::driver = {};
  marfast::emulation::driver.has_device = there;
  marfast::emulation::driver.multiprocessors = multiprocessors;
  marfast::emulation::driver.shared_bytes = shared_bytes;
}
EXPORTED void* marfast_emulation_latest_stream() { return marfast::emulation::driver.stream; }
