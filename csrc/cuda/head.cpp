// adaln_mlp and denoise as launches of the others, in the order of docs/numerics.md. The same for
// the GPU and the emulator.

#include "cuda/launchers.h"
#include "marfast/range.h"

namespace marfast::cuda {
namespace {

const char* name_of(const NormModulate&) { return "layer_norm_modulate"; }
const char* name_of(const SiluSum&) { return "silu_sum"; }
const char* name_of(const LinearLayer&) { return "linear"; }
const char* name_of(const ResidualBlock&) { return "adaln_mlp"; }

// Runs launches, each in a range, until one fails; keeps its status.
class Sequence {
 public:
  explicit Sequence(Stream stream) : stream_(stream) {}

  template <class Args>
  void then(Status (*launch)(const Args&, Stream), const Args& a) {
    const Range range = range_of(name_of(a), a);
    if (!status_) status_ = launch(a, stream_);
  }
  Status status() const { return status_; }

 private:
  Stream stream_;
  Status status_ = nullptr;
};

NormModulate norm(void* out, const float* x, const float* shift, const float* scale, int64_t rows,
                  int64_t width, DType dtype, float eps) {
  NormModulate a{};
  a.rows.out = out;
  a.rows.x = x;
  a.rows.shift = shift;
  a.rows.scale = scale;
  a.rows.rows = rows;
  a.rows.width = width;
  a.rows.x_stride = a.rows.shift_stride = a.rows.scale_stride = width;
  a.rows.dtype = a.affine_dtype = DType::f32;
  a.rows.eps = eps;
  a.out_dtype = dtype;
  return a;
}

LinearLayer layer(void* out, const void* x, const void* weight, const void* bias, int64_t rows,
                  int64_t inputs, int64_t outputs, DType dtype) {
  LinearLayer a{};
  a.out = out;
  a.x = x;
  a.weight = weight;
  a.bias = bias;
  a.rows = rows;
  a.inputs = a.x_stride = inputs;
  a.outputs = a.out_stride = outputs;
  a.dtype = dtype;
  return a;
}

}  // namespace

Status adaln_mlp(const ResidualBlock& a, Stream stream) {
  Sequence run(stream);
  NormModulate normed = norm(a.normed, a.x, a.shift, a.scale, a.rows, a.width, a.dtype, a.eps);
  normed.rows.weight = a.norm_weight;
  normed.rows.bias = a.norm_bias;
  normed.rows.x_stride = a.x_stride;
  normed.rows.shift_stride = a.shift_stride;
  normed.rows.scale_stride = a.scale_stride;
  normed.affine_dtype = a.affine_dtype;
  run.then(layer_norm_modulate, normed);

  LinearLayer in = layer(a.hidden, a.normed, a.w1, a.b1, a.rows, a.width, a.width, a.dtype);
  in.silu = true;
  run.then(linear, in);

  LinearLayer out = layer(a.out, a.hidden, a.w2, a.b2, a.rows, a.width, a.width, a.dtype);
  out.gate = a.gate;
  out.gate_stride = a.gate_stride;
  out.residual = a.x;
  out.residual_stride = a.x_stride;
  run.then(linear, out);
  return run.status();
}

Status denoise(const HeadOnce& a, Stream stream) {
  const auto [c, z, w, d, frequencies] = a.shape;
  const int64_t r = a.rows, modulated = (3 * d + 2) * w, size = a.dtype == DType::f32 ? 4 : 2;
  float *time = a.workspace, *condition = time + r * w, *x = condition + r * w;
  float* modulation = x + r * w;  // [R, (3 d + 2) w]
  char* first = static_cast<char*>(a.elements);
  void *hidden = first, *activated = first + r * w * size, *normed = first + 2 * r * w * size;
  const void* const* weight = a.weights;
  const void* const* ends = weight + 8 + 8 * d;  // the final layer, then its modulation
  Sequence run(stream);

  LinearLayer time_in =
      layer(hidden, a.time_embedding, weight[0], weight[1], r, frequencies, w, a.dtype);
  time_in.silu = true;
  run.then(linear, time_in);
  run.then(linear, layer(time, hidden, weight[2], weight[3], r, w, w, a.dtype));
  run.then(linear, layer(condition, a.condition, weight[4], weight[5], r, z, w, a.dtype));
  run.then(silu_sum, SiluSum{activated, time, condition, r, 1, r, w, a.dtype});
  for (int64_t b = 0; b <= d; ++b) {
    const void* const* from = b < d ? weight + 8 + 8 * b + 6 : ends + 2;
    LinearLayer part = layer(modulation + 3 * w * b, activated, from[0], from[1], r, w,
                             b < d ? 3 * w : 2 * w, a.dtype);
    part.out_stride = modulated;
    run.then(linear, part);
  }

  run.then(linear, layer(x, a.x, weight[6], weight[7], r, c, w, a.dtype));
  for (int64_t b = 0; b < d; ++b) {
    const void* const* of = weight + 8 + 8 * b;
    ResidualBlock block{};
    block.out = x;
    block.x = x;
    block.shift = modulation + 3 * w * b;
    block.scale = block.shift + w;
    block.gate = block.scale + w;
    block.norm_weight = of[0];
    block.norm_bias = of[1];
    block.w1 = of[2];
    block.b1 = of[3];
    block.w2 = of[4];
    block.b2 = of[5];
    block.normed = normed;
    block.hidden = hidden;
    block.rows = r;
    block.width = block.x_stride = w;
    block.shift_stride = block.scale_stride = block.gate_stride = modulated;
    block.affine_dtype = block.dtype = a.dtype;
    block.eps = 1e-6f;
    run.then(adaln_mlp, block);
  }
  NormModulate last =
      norm(normed, x, modulation + 3 * w * d, modulation + (3 * d + 1) * w, r, w, a.dtype, 1e-6f);
  last.rows.shift_stride = last.rows.scale_stride = modulated;
  run.then(layer_norm_modulate, last);
  run.then(linear, layer(a.out, normed, ends[0], ends[1], r, w, 2 * c, a.dtype));
  return run.status();
}

}  // namespace marfast::cuda
