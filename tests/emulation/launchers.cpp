// csrc/cuda/launchers.h for the emulator. Each launch knows exactly the memory that its arguments
// speak of: outputs as never written, inputs as written.

#include "launchers.h"

#include <vector>

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

std::string failure;  // what the last launch was stopped for

template <class Run>
Status reported(Run run) {
  try {
    return run();
  } catch (const emu::Report& report) {
    failure = report.what();
    return failure.c_str();
  }
}

}  // namespace

Status ddpm_step(const DdpmStep& a, Stream) {
  Memory memory;
  const int64_t n = a.tokens, c = a.channels;
  memory.in("x", a.x, n, c, a.x_stride, 4);
  memory.in("model_output", a.model_output, a.guided ? 2 * n : n, 2 * c, a.model_output_stride,
            size_of(a.model_output_dtype));
  memory.in("noise", a.noise, n, c, a.noise_stride, 4);
  memory.in("coefficients", a.coefficients, 1, 7, 7, 4);
  if (a.guided) memory.in("guidance", a.guidance, 1, 1, 1, 4);
  memory.out("out", a.out, n, c, c, 4);
  return reported([&] { return ddpm_step_by(a, emu::Emulated{}); });
}

Status layer_norm_modulate(const NormModulate& all, Stream) {
  Memory memory;
  const LayerNormModulate& a = all.rows;
  const int64_t size = size_of(a.dtype), affine = size_of(all.affine_dtype);
  memory.in("x", a.x, a.rows, a.width, a.x_stride, size);
  memory.in("shift", a.shift, a.rows, a.width, a.shift_stride, size);
  memory.in("scale", a.scale, a.rows, a.width, a.scale_stride, size);
  memory.in("weight", a.weight, 1, a.width, a.width, affine);
  memory.in("bias", a.bias, 1, a.width, a.width, affine);
  memory.out("out", a.out, a.rows, a.width, a.width, size_of(all.out_dtype));
  return reported([&] { return layer_norm_modulate_by(all, emu::Emulated{}); });
}

Status silu_sum(const SiluSum& a, Stream) {
  Memory memory;
  memory.in("a", a.a, (a.rows + a.group - 1) / a.group, a.width, a.width, 4);
  memory.in("b", a.b, a.period, a.width, a.width, 4);
  memory.out("out", a.out, a.rows, a.width, a.width, size_of(a.dtype));
  return reported([&] { return silu_sum_by(a, emu::Emulated{}); });
}

namespace {

void follows_product(Memory& memory, const LinearLayer& a) {
  const int64_t size = size_of(a.dtype);
  memory.in("bias", a.bias, 1, a.outputs, a.outputs, size);
  if (a.gate) memory.in("gate", a.gate, a.rows, a.outputs, a.gate_stride, 4);
  if (a.gate) memory.in("residual", a.residual, a.rows, a.outputs, a.residual_stride, 4);
  memory.out("out", a.out, a.rows, a.outputs, a.out_stride, a.silu ? size : 4);
}

}  // namespace

Status linear(const LinearLayer& a, Stream) {
  Memory memory;
  const int64_t size = size_of(a.dtype);
  memory.in("x", a.x, a.rows, a.inputs, a.x_stride, size);
  memory.in("weight", a.weight, a.outputs, a.inputs, a.inputs, size);
  follows_product(memory, a);
  return reported([&] { return linear_by(a, emu::Emulated{}); });
}

Status linear_epilogue(const LinearLayer& a, Stream) {
  Memory memory;
  const int64_t size = size_of(a.dtype);
  memory.in("product", a.x, a.rows, a.outputs, a.x_stride, size);
  follows_product(memory, a);
  return reported([&] { return linear_epilogue_by(a, emu::Emulated{}); });
}

Status sample_tables(const SampleTables& a, Stream) {
  Memory memory;
  memory.out("weights", a.weights, 1, a.first + a.count, 1, sizeof(void*));
  memory.out("barrier", a.barrier, 1, 1, 1, 4);
  return reported([&] { return sample_tables_by(a, emu::Emulated{}); });
}

Status ddpm_sample(const PersistentSample& a, Stream) {
  Memory memory;
  const HeadShape& s = a.shape;
  const int64_t n = a.tokens, c = s.channels, w = s.width, r = a.guided ? 2 * n : n;
  const int64_t size = size_of(a.dtype), modulated = (3 * s.depth + 2) * w;
  memory.in("in", a.in, n, c, c, 4);
  memory.in("step_noise", a.step_noise, a.steps, n * c, a.step_noise_stride, 4);
  memory.in("schedule", a.schedule, a.steps, 7, 7, 4);
  if (a.guided) memory.in("guidance", a.guidance, 1, 1, 1, 4);
  memory.in("modulation", a.modulation, a.steps * r, modulated, modulated, 4);
  memory.in("weights", a.weights, 1, 12 + 8 * s.depth, 1, sizeof(void*));
  // time and condition layers are not this kernel's to read
  auto layer = [&](int64_t place, int64_t outputs, int64_t inputs) {
    memory.in("weight", a.weights[place], outputs, inputs, inputs, size);
    memory.in("bias", a.weights[place + 1], 1, outputs, outputs, size);
  };
  layer(6, w, c);
  for (int64_t b = 0; b < s.depth; ++b) {
    memory.in("norm_weight", a.weights[8 + 8 * b], 1, w, w, size);
    memory.in("norm_bias", a.weights[9 + 8 * b], 1, w, w, size);
    layer(10 + 8 * b, w, w);
    layer(12 + 8 * b, w, w);
  }
  layer(8 + 8 * s.depth, 2 * c, w);
  memory.in("barrier", a.barrier, 1, 1, 1, 4);
  memory.out("out", a.out, n, c, c, 4);
  memory.out("x", a.x, r, w, w, 4);
  memory.out("state", a.state, n, c, c, 4);
  memory.out("normed", a.normed, r, w, w, size);
  memory.out("hidden", a.hidden, r, w, w, size);
  return reported([&] { return ddpm_sample_by(a, emu::Emulated{}); });
}

int64_t resident_blocks(const PersistentSample&) { return 4; }
DeviceSizes device_sizes() { return {4, 64 << 10, 1 << 20}; }

Status attention(const Attention& a, Stream) {
  Memory memory;
  const int64_t size = size_of(a.dtype), columns = a.heads * a.head_dim;
  if (a.batch * a.length > 0) {
    const int64_t last = (a.batch - 1) * a.batch_stride + (a.length - 1) * a.position_stride +
                         2 * a.part_stride + (a.heads - 1) * a.head_stride;
    memory.in("qkv", a.qkv, 1, last + a.head_dim, 0, size);
  }
  memory.in("queries", a.queries, a.batch, a.wanted, a.wanted, 8);
  memory.out("out", a.out, a.batch * a.wanted, columns, columns, size);
  return reported([&] { return attention_by(a, emu::Emulated{}); });
}

}  // namespace marfast::cuda

// For the tests, by ctypes: 0 forward, 1 reverse, 2 random.
extern "C" __attribute__((visibility("default"))) void marfast_emulation_schedule(int schedule,
                                                                                  uint64_t seed) {
  marfast::emulation::options() = {static_cast<marfast::emulation::Schedule>(schedule), seed};
}
