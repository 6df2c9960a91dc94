// csrc/cuda/launchers.h for the emulator: the same variants, launched on the host. What each launch
// may touch is registered from its arguments, so that any other access is reported.

#include "cuda/launchers.h"

#include <string>
#include <vector>

#include "cuda/variants.h"

namespace marfast::cuda {
namespace {

int64_t size_of(DType dtype) { return dtype == DType::f32 ? 4 : 2; }

// Rows that a launch may touch, for as long as this lives.
class Memory {
 public:
  ~Memory() {
    for (const void* p : begins_) emulation::remove_memory(p);
  }
  void rows(const void* p, int64_t rows, int64_t width, int64_t stride, int64_t size, bool written,
            const char* name) {
    if (!p || rows == 0) return;
    emulation::add_memory(p, ((rows - 1) * stride + width) * size, written, name);
    begins_.push_back(p);
  }

 private:
  std::vector<const void*> begins_;
};

struct Launch {
  template <class Args>
  Status operator()(void (*kernel)(Args), const LaunchShape& s, const Args& a) const {
    emulation::Launch shape;
    shape.grid.x = s.grid_x;
    shape.grid.y = s.grid_y;
    shape.block.x = s.block;
    shape.shared_bytes = s.shared;
    emulation::launch(shape, kernel, a);
    return nullptr;
  }
};

}  // namespace

Status ddpm_step(const DdpmStep& a, Stream) {
  Memory m;
  const int64_t r = a.guided ? 2 * a.tokens : a.tokens, c = a.channels;
  m.rows(a.out, a.tokens, c, c, 4, false, "out");
  m.rows(a.x, a.tokens, c, a.x_stride, 4, true, "x");
  m.rows(a.model_output, r, 2 * c, a.model_output_stride, size_of(a.model_output_dtype), true,
         "model_output");
  m.rows(a.noise, a.tokens, c, a.noise_stride, 4, true, "noise");
  m.rows(a.coefficients, 1, 7, 7, 4, true, "coefficients");
  m.rows(a.guidance, 1, 1, 1, 4, true, "guidance");
  return ddpm_step_by(a, Launch{});
}

Status layer_norm_modulate(const NormModulate& args, Stream) {
  const LayerNormModulate& a = args.rows;
  const int64_t in = size_of(a.dtype), affine = size_of(args.affine_dtype);
  Memory m;
  m.rows(a.out, a.rows, a.width, a.width, size_of(args.out_dtype), false, "out");
  m.rows(a.x, a.rows, a.width, a.x_stride, in, true, "x");
  m.rows(a.shift, a.rows, a.width, a.shift_stride, in, true, "shift");
  m.rows(a.scale, a.rows, a.width, a.scale_stride, in, true, "scale");
  m.rows(a.weight, 1, a.width, a.width, affine, true, "weight");
  m.rows(a.bias, 1, a.width, a.width, affine, true, "bias");
  return layer_norm_modulate_by(args, Launch{});
}

Status silu_sum(const SiluSum& a, Stream) {
  Memory m;
  m.rows(a.out, a.rows, a.width, a.width, size_of(a.dtype), false, "out");
  m.rows(a.a, a.rows, a.width, a.width, 4, true, "a");
  m.rows(a.b, a.rows, a.width, a.width, 4, true, "b");
  return silu_sum_by(a, Launch{});
}

Status linear(const LinearLayer& a, Stream) {
  const int64_t size = size_of(a.dtype);
  const bool in_place = a.residual == a.out;
  Memory m;
  m.rows(a.out, a.rows, a.outputs, a.out_stride, a.silu ? size : 4, in_place, "out");
  m.rows(a.x, a.rows, a.inputs, a.x_stride, size, true, "x");
  m.rows(a.weight, a.outputs, a.inputs, a.inputs, size, true, "weight");
  m.rows(a.bias, 1, a.outputs, a.outputs, size, true, "bias");
  m.rows(a.gate, a.rows, a.outputs, a.gate_stride, 4, true, "gate");
  if (!in_place) m.rows(a.residual, a.rows, a.outputs, a.residual_stride, 4, true, "residual");
  return linear_by(a, Launch{});
}

}  // namespace marfast::cuda
