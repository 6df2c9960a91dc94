// marfast._cuda, and with MARFAST_CUDA_MODULE=marfast_emulation the emulator's module: pointers,
// the stream and dtypes travel as integers. A launch that fails is a RuntimeError.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "cuda/launchers.h"

#ifndef MARFAST_CUDA_MODULE
#define MARFAST_CUDA_MODULE _cuda
#endif

namespace py = pybind11;
using namespace marfast;
using namespace marfast::cuda;

namespace {

template <class T>
using Wire = std::conditional_t<std::is_pointer_v<T>, std::uintptr_t,
                                std::conditional_t<std::is_same_v<T, DType>, int, T>>;

template <class T>
T from_wire(Wire<T> value) {
  if constexpr (std::is_pointer_v<T>) {
    return reinterpret_cast<T>(value);
  } else {
    return static_cast<T>(value);
  }
}

void check(const char* op, Status status) {
  if (status) throw std::runtime_error(std::string(op) + ": the launch failed: " + status);
}

// m.name(fields in this order, stream)
template <class Args, class... Fields>
void def(py::module_& m, const char* name, Status (*launch)(const Args&, Stream),
         Fields Args::*... fields) {
  m.def(name, [=](Wire<Fields>... values, std::uintptr_t stream) {
    Args a{};
    ((a.*fields = from_wire<Fields>(values)), ...);
    check(name, launch(a, reinterpret_cast<Stream>(stream)));
  });
}

}  // namespace

PYBIND11_MODULE(MARFAST_CUDA_MODULE, m) {
  using D = DdpmStep;
  def(m, "ddpm_step", &cuda::ddpm_step, &D::out, &D::x, &D::model_output, &D::noise,
      &D::coefficients, &D::guidance, &D::tokens, &D::channels, &D::x_stride,
      &D::model_output_stride, &D::noise_stride, &D::model_output_dtype, &D::guided,
      &D::temperature, &D::clip_denoised);
  using A = Attention;
  def(m, "attention", &cuda::attention, &A::out, &A::qkv, &A::queries, &A::batch, &A::length,
      &A::wanted, &A::heads, &A::head_dim, &A::batch_stride, &A::position_stride, &A::part_stride,
      &A::head_stride, &A::dtype, &A::causal, &A::scale);
  using B = ResidualBlock;
  def(m, "adaln_mlp", &cuda::adaln_mlp, &B::out, &B::x, &B::shift, &B::scale, &B::gate,
      &B::norm_weight, &B::norm_bias, &B::w1, &B::b1, &B::w2, &B::b2, &B::normed, &B::hidden,
      &B::rows, &B::width, &B::x_stride, &B::shift_stride, &B::scale_stride, &B::gate_stride,
      &B::affine_dtype, &B::dtype, &B::eps);
  using L = LayerNormModulate;
  m.def(
      "layer_norm_modulate",
      [](std::uintptr_t out, std::uintptr_t x, std::uintptr_t shift, std::uintptr_t scale,
         std::uintptr_t weight, std::uintptr_t bias, int64_t rows, int64_t width, int64_t x_stride,
         int64_t shift_stride, int64_t scale_stride, int dtype, float eps, std::uintptr_t stream) {
        const auto type = static_cast<DType>(dtype);
        const L a{from_wire<void*>(out),
                  from_wire<const void*>(x),
                  from_wire<const void*>(shift),
                  from_wire<const void*>(scale),
                  from_wire<const void*>(weight),
                  from_wire<const void*>(bias),
                  rows,
                  width,
                  x_stride,
                  shift_stride,
                  scale_stride,
                  type,
                  eps};
        check("layer_norm_modulate",
              cuda::layer_norm_modulate({a, type, type}, from_wire<Stream>(stream)));
      });
  m.def("denoise",
        [](std::uintptr_t out, std::uintptr_t x, std::uintptr_t condition,
           std::uintptr_t time_embedding, const std::vector<std::uintptr_t>& weights,
           std::uintptr_t workspace, std::uintptr_t elements, const std::vector<int64_t>& shape,
           int64_t rows, int dtype, std::uintptr_t stream) {
          std::vector<const void*> pointers;
          for (const std::uintptr_t w : weights) pointers.push_back(from_wire<const void*>(w));
          HeadOnce a{};
          a.out = from_wire<float*>(out);
          a.x = from_wire<const void*>(x);
          a.condition = from_wire<const void*>(condition);
          a.time_embedding = from_wire<const void*>(time_embedding);
          a.weights = pointers.data();
          a.workspace = from_wire<float*>(workspace);
          a.elements = from_wire<void*>(elements);
          a.shape = {shape.at(0), shape.at(1), shape.at(2), shape.at(3), shape.at(4)};
          a.rows = rows;
          a.dtype = static_cast<DType>(dtype);
          check("denoise", cuda::denoise(a, from_wire<Stream>(stream)));
        });
}
