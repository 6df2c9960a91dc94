#pragma once

// The variants of every kernel and the choice among them: one switch over dtypes, then a table a
// kernel, of what the arguments must be. `Launch` is the way to start a kernel, of the GPU or of
// the emulator:
//   launch(kernel, shape, args) -> Status
// The includer has defined __global__ and the like.

#include <initializer_list>
#include <type_traits>

#include "cuda/attention.cuh"
#include "cuda/ddpm_sample.cuh"
#include "cuda/ddpm_step.cuh"
#include "cuda/launchers.h"
#include "cuda/layer_norm_modulate.cuh"
#include "cuda/linear_epilogue.cuh"
#include "cuda/linear_fp32.cuh"
#include "cuda/linear_mma.cuh"
#include "cuda/silu_sum.cuh"

namespace marfast::cuda {

template <class Args>
struct Variant {
  void (*kernel)(Args);
  LaunchShape (*shape)(const Args&);
  bool (*takes)(const Args&);
};

// The first that takes the arguments.
template <class Args, int kCount, class Launch>
Status launch_first(const Variant<Args> (&variants)[kCount], const Args& a, const Launch& launch) {
  for (const Variant<Args>& v : variants) {
    if (v.takes(a)) return launch(v.kernel, v.shape(a), a);
  }
  return "no variant takes these arguments";
}

// body(an element of the dtype)
template <class Body>
Status by_dtype(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::f32:
      return body(float{});
    case DType::bf16:
      return body(bfloat16{});
    case DType::f16:
      return body(float16{});
  }
  return "no such dtype";
}

// Whether elements at these addresses, and at any of these strides from them, start at multiples
// of `bytes`: the one place that knows which copies may be wide.
inline bool aligned(int64_t bytes, DType dtype, std::initializer_list<const void*> addresses,
                    std::initializer_list<int64_t> strides) {
  uintptr_t bits = 0;
  for (const void* address : addresses) bits |= reinterpret_cast<uintptr_t>(address);
  for (const int64_t stride : strides)
    bits |= static_cast<uintptr_t>(stride * element_bytes(dtype));
  return bits % static_cast<uintptr_t>(bytes) == 0;
}

template <class Launch>
Status ddpm_step_by(const DdpmStep& a, const Launch& launch) {
  if (a.tokens * a.channels == 0) return nullptr;
  return by_dtype(a.model_output_dtype, [&](auto element) {
    return launch(ddpm_step<decltype(element)>, shape_of(a), a);
  });
}

template <DType kIn, DType kMod, DType kAffine, DType kOut>
bool takes_norm(const NormModulate& a) {
  return a.dtype == kIn && a.modulation_dtype == kMod && a.affine_dtype == kAffine &&
         a.out_dtype == kOut;
}

template <class Launch>
Status layer_norm_modulate_by(const NormModulate& a, const Launch& launch) {
  using bf = bfloat16;
  using half = float16;
  constexpr DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;
  static constexpr Variant<NormModulate> variants[] = {
      {layer_norm_modulate<float, float, float, float>, shape_of, takes_norm<f32, f32, f32, f32>},
      {layer_norm_modulate<bf, bf, bf, bf>, shape_of, takes_norm<bf16, bf16, bf16, bf16>},
      {layer_norm_modulate<half, half, half, half>, shape_of, takes_norm<f16, f16, f16, f16>},
      {layer_norm_modulate<float, float, float, bf>, shape_of, takes_norm<f32, f32, f32, bf16>},
      {layer_norm_modulate<float, float, float, half>, shape_of, takes_norm<f32, f32, f32, f16>},
      {layer_norm_modulate<float, float, bf, bf>, shape_of, takes_norm<f32, f32, bf16, bf16>},
      {layer_norm_modulate<float, float, half, half>, shape_of, takes_norm<f32, f32, f16, f16>},
      {layer_norm_modulate<float, bf, bf, bf>, shape_of, takes_norm<f32, bf16, bf16, bf16>},
      {layer_norm_modulate<float, half, half, half>, shape_of, takes_norm<f32, f16, f16, f16>},
  };
  return a.rows == 0 ? nullptr : launch_first(variants, a, launch);
}

template <class Launch>
Status silu_sum_by(const SiluSum& a, const Launch& launch) {
  if (a.rows == 0) return nullptr;
  return by_dtype(
      a.dtype, [&](auto element) { return launch(silu_sum<decltype(element)>, shape_of(a), a); });
}

// kMaxRows: the most rows that this variant is for; 0: any number.
template <int kMaxRows, int kCopy>
bool takes_linear(const LinearLayer& a) {
  return a.gate_dtype == DType::f32 && (kMaxRows == 0 || a.rows <= kMaxRows) &&
         aligned(kCopy, a.dtype, {a.x, a.weight}, {a.x_stride, a.inputs});
}

// Few rows first, then tall; 16 bytes a copy first.
template <class T>
inline constexpr Variant<LinearLayer> kLinear[] = {
    {linear_mma<T, 1, 1, 16>, MmaTiles<T, 1, 1>::shape_of, takes_linear<8, 16>},
    {linear_mma<T, 1, 1, 2>, MmaTiles<T, 1, 1>::shape_of, takes_linear<8, 2>},
    {linear_mma<T, 2, 8, 16>, MmaTiles<T, 2, 8>::shape_of, takes_linear<0, 16>},
    {linear_mma<T, 2, 8, 2>, MmaTiles<T, 2, 8>::shape_of, takes_linear<0, 2>},
};
template <>
inline constexpr Variant<LinearLayer> kLinear<float>[] = {
    {linear_fp32<1, 16>, FmaTiles<1>::shape_of, takes_linear<4, 16>},
    {linear_fp32<1, 4>, FmaTiles<1>::shape_of, takes_linear<4, 4>},
    {linear_fp32<8, 16>, FmaTiles<8>::shape_of, takes_linear<0, 16>},
    {linear_fp32<8, 4>, FmaTiles<8>::shape_of, takes_linear<0, 4>},
};

template <class Launch>
Status linear_by(const LinearLayer& a, const Launch& launch) {
  if (a.rows == 0) return nullptr;
  return by_dtype(
      a.dtype, [&](auto element) { return launch_first(kLinear<decltype(element)>, a, launch); });
}

template <class Launch>
Status linear_epilogue_by(const LinearEpilogue& a, const Launch& launch) {
  if (a.rows == 0) return nullptr;
  return by_dtype(a.dtype, [&](auto element) -> Status {
    using T = decltype(element);
    if constexpr (sizeof(T) == 4)
      return "float32 products are our own";
    else
      return by_dtype(a.gate_dtype, [&](auto of_gate) -> Status {
        using Gate = decltype(of_gate);
        if constexpr (std::is_same_v<Gate, float> || std::is_same_v<Gate, T>)
          return launch(linear_epilogue<T, Gate>, ProductRows::shape_of(a), a);
        else
          return "gate: its dtype is neither float32 nor the product's";
      });
  });
}

template <bool kStaged>
bool takes_sample(const PersistentSample& a) {
  return a.plan.staged == kStaged;
}

template <class T>
inline constexpr Variant<PersistentSample> kSample[] = {
    {ddpm_sample<T, true>, shape_of, takes_sample<true>},
    {ddpm_sample<T, false>, shape_of, takes_sample<false>},
};
template <>
inline constexpr Variant<PersistentSample> kSample<float>[] = {
    {ddpm_sample<float, true>, shape_of, takes_sample<true>},
};

template <class Launch>
Status ddpm_sample_by(const PersistentSample& a, const Launch& launch) {
  return by_dtype(
      a.dtype, [&](auto element) { return launch_first(kSample<decltype(element)>, a, launch); });
}

// kHeadDim 0: any up to 128. Copies of 16 bytes need whole ones, and results that start at pairs.
template <int kHeadDim, int kCopy>
bool takes_attention(const Attention& a) {
  const bool whole =
      aligned(16, a.dtype, {a.qkv},
              {a.head_dim, a.batch_stride, a.position_stride, a.part_stride, a.head_stride}) &&
      aligned(4, a.dtype, {a.out}, {}) && a.position_stride < 1 << 24;  // 64 rows: a 32-bit offset
  return (kHeadDim ? a.head_dim == kHeadDim : a.head_dim <= 128) && (kCopy < 16 || whole);
}

// MAR's heads, then any; an element a copy last.
template <class T>
inline constexpr Variant<Attention> kAttention[] = {
    {attention<T, 64, 16>, AttentionTiles<T, 64>::shape_of, takes_attention<64, 16>},
    {attention<T, 80, 16>, AttentionTiles<T, 80>::shape_of, takes_attention<80, 16>},
    {attention<T, 0, 16>, AttentionTiles<T, 0>::shape_of, takes_attention<0, 16>},
    {attention<T, 0, sizeof(T)>, AttentionTiles<T, 0>::shape_of, takes_attention<0, sizeof(T)>},
};

template <class Launch>
Status attention_by(const Attention& a, const Launch& launch) {
  if (a.batch * a.wanted == 0) return nullptr;
  return by_dtype(a.dtype, [&](auto element) {
    return launch_first(kAttention<decltype(element)>, a, launch);
  });
}

}  // namespace marfast::cuda
