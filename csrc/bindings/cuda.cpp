// marfast._cuda, and with MARFAST_CUDA_MODULE=marfast_emulation the emulator's module: pointers,
// the stream and dtypes travel as integers. A launch that fails is a RuntimeError.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "cuda/launchers.h"
#include "marfast/range.h"

#ifndef MARFAST_CUDA_MODULE
#define MARFAST_CUDA_MODULE _cuda
#endif

namespace py = pybind11;
using namespace marfast;
using namespace marfast::cuda;

namespace {

using Sizes = std::array<int64_t, 5>;

// How a struct's field is passed from Python.
template <class T>
struct WireOf {
  using type = T;
};
template <class T>
struct WireOf<T*> {
  using type = std::uintptr_t;
};
template <>
struct WireOf<DType> {
  using type = int;
};
template <>
struct WireOf<HeadShape> {
  using type = Sizes;
};
template <class T>
using Wire = typename WireOf<T>::type;

template <class T>
T from_wire(Wire<T> value) {
  if constexpr (std::is_pointer_v<T>) {
    return reinterpret_cast<T>(value);
  } else if constexpr (std::is_same_v<T, HeadShape>) {
    return {value[0], value[1], value[2], value[3], value[4]};
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
    const Range range = range_of(name, a);
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
  using L = LinearLayer;
  const auto def_linear = [&](const char* name, Status (*launch)(const L&, Stream)) {
    def(m, name, launch, &L::out, &L::x, &L::weight, &L::bias, &L::gate, &L::residual, &L::rows,
        &L::inputs, &L::outputs, &L::out_stride, &L::x_stride, &L::gate_stride, &L::residual_stride,
        &L::dtype, &L::silu);
  };
  def_linear("linear", &cuda::linear);
  def_linear("linear_epilogue", &cuda::linear_epilogue);
  using S = SiluSum;
  def(m, "silu_sum", &cuda::silu_sum, &S::out, &S::a, &S::b, &S::rows, &S::group, &S::period,
      &S::width, &S::dtype);
  m.def("layer_norm_modulate",
        [](std::uintptr_t out, std::uintptr_t x, std::uintptr_t shift, std::uintptr_t scale,
           std::uintptr_t weight, std::uintptr_t bias, int64_t rows, int64_t width,
           int64_t x_stride, int64_t shift_stride, int64_t scale_stride, int dtype,
           int affine_dtype, int out_dtype, float eps, std::uintptr_t stream) {
          const LayerNormModulate a{from_wire<void*>(out),
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
                                    static_cast<DType>(dtype),
                                    eps};
          const Range range = range_of("layer_norm_modulate", a);
          check("layer_norm_modulate",
                cuda::layer_norm_modulate(
                    {a, static_cast<DType>(affine_dtype), static_cast<DType>(out_dtype)},
                    from_wire<Stream>(stream)));
        });
  m.def("sample_tables", [](std::uintptr_t to, std::uintptr_t barrier,
                            const std::vector<std::uintptr_t>& weights, std::uintptr_t stream) {
    SampleTables a{};
    a.weights = reinterpret_cast<const void**>(to);
    a.barrier = from_wire<uint32_t*>(barrier);
    const int64_t size = static_cast<int64_t>(weights.size());
    for (a.first = 0; a.first < size; a.first += a.kSlots) {
      a.count = std::min(size - a.first, a.kSlots);
      for (int64_t i = 0; i < a.count; ++i) {
        a.values[i] = from_wire<const void*>(weights[a.first + i]);
      }
      check("sample_tables", cuda::sample_tables(a, from_wire<Stream>(stream)));
    }
  });
  using P = PersistentSample;
  def(m, "ddpm_sample", &cuda::ddpm_sample, &P::out, &P::in, &P::step_noise, &P::schedule,
      &P::guidance, &P::modulation, &P::weights, &P::x, &P::state, &P::normed, &P::hidden,
      &P::barrier, &P::shape, &P::tokens, &P::steps, &P::step_noise_stride, &P::row_groups,
      &P::column_groups, &P::row_tile, &P::columns, &P::stationary, &P::staged, &P::normalise_once,
      &P::dtype, &P::guided, &P::temperature, &P::clip_denoised, &P::limit_ns);
  m.def("resident_blocks", [](const Sizes& shape, int dtype, int64_t row_tile, int64_t columns,
                              int64_t stationary, bool staged) {
    P a{};
    a.shape = from_wire<HeadShape>(shape);
    a.dtype = static_cast<DType>(dtype);
    a.row_groups = a.column_groups = 1;
    a.row_tile = row_tile;
    a.columns = columns;
    a.stationary = stationary;
    a.staged = staged;
    return resident_blocks(a);
  });
  m.def("device_sizes", [] {
    const DeviceSizes d = device_sizes();
    return py::make_tuple(d.sms, d.shared_bytes, d.l2_bytes);
  });
  m.def("denoise", [](std::uintptr_t out, std::uintptr_t x, std::uintptr_t condition,
                      std::uintptr_t time_embedding, const std::vector<std::uintptr_t>& weights,
                      std::uintptr_t workspace, std::uintptr_t elements, const Sizes& shape,
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
    a.shape = from_wire<HeadShape>(shape);
    a.rows = rows;
    a.dtype = static_cast<DType>(dtype);
    const Range range = range_of("denoise", a);
    check("denoise", cuda::denoise(a, from_wire<Stream>(stream)));
  });
}
