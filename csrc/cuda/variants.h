#pragma once

// The variants of every kernel and the choice among them: a table a kernel, of what the arguments
// must be. `Launch` is the way to start a kernel, of the GPU or of the emulator:
//   launch(kernel, shape, args) -> Status
// The includer has defined __global__ and the like.

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
  return "no variant takes these dtypes";
}

template <DType kType>
bool takes_ddpm_step(const DdpmStep& a) {
  return a.model_output_dtype == kType;
}

template <class Launch>
Status ddpm_step_by(const DdpmStep& a, const Launch& launch) {
  static constexpr Variant<DdpmStep> variants[] = {
      {ddpm_step<float>, shape_of, takes_ddpm_step<DType::f32>},
      {ddpm_step<bfloat16>, shape_of, takes_ddpm_step<DType::bf16>},
      {ddpm_step<float16>, shape_of, takes_ddpm_step<DType::f16>},
  };
  return a.tokens * a.channels == 0 ? nullptr : launch_first(variants, a, launch);
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

template <DType kType>
bool takes_silu_sum(const SiluSum& a) {
  return a.dtype == kType;
}

template <class Launch>
Status silu_sum_by(const SiluSum& a, const Launch& launch) {
  static constexpr Variant<SiluSum> variants[] = {
      {silu_sum<float>, shape_of, takes_silu_sum<DType::f32>},
      {silu_sum<bfloat16>, shape_of, takes_silu_sum<DType::bf16>},
      {silu_sum<float16>, shape_of, takes_silu_sum<DType::f16>},
  };
  return a.rows == 0 ? nullptr : launch_first(variants, a, launch);
}

// Whether every row of both operands starts at a multiple of `bytes`.
inline bool rows_aligned(const LinearLayer& a, int64_t bytes) {
  const int64_t size = a.dtype == DType::f32 ? 4 : 2;
  const auto bits = reinterpret_cast<uintptr_t>(a.x) | reinterpret_cast<uintptr_t>(a.weight) |
                    static_cast<uintptr_t>(a.x_stride * size) |
                    static_cast<uintptr_t>(a.inputs * size);
  return bits % static_cast<uintptr_t>(bytes) == 0;
}

// kMaxRows: the most rows that this variant is for; 0: any number.
template <DType kType, int kMaxRows, int kCopy>
bool takes_linear(const LinearLayer& a) {
  return a.dtype == kType && a.gate_dtype == DType::f32 && (kMaxRows == 0 || a.rows <= kMaxRows) &&
         rows_aligned(a, kCopy);
}

template <class Launch>
Status linear_by(const LinearLayer& a, const Launch& launch) {
  using bf = bfloat16;
  using half = float16;
  constexpr DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;
  // Few rows first, then tall; 16 bytes a copy first.
  static constexpr Variant<LinearLayer> variants[] = {
      {linear_mma<bf, 1, 1, 16>, MmaTiles<bf, 1, 1>::shape_of, takes_linear<bf16, 8, 16>},
      {linear_mma<bf, 1, 1, 2>, MmaTiles<bf, 1, 1>::shape_of, takes_linear<bf16, 8, 2>},
      {linear_mma<bf, 2, 8, 16>, MmaTiles<bf, 2, 8>::shape_of, takes_linear<bf16, 0, 16>},
      {linear_mma<bf, 2, 8, 2>, MmaTiles<bf, 2, 8>::shape_of, takes_linear<bf16, 0, 2>},
      {linear_mma<half, 1, 1, 16>, MmaTiles<half, 1, 1>::shape_of, takes_linear<f16, 8, 16>},
      {linear_mma<half, 1, 1, 2>, MmaTiles<half, 1, 1>::shape_of, takes_linear<f16, 8, 2>},
      {linear_mma<half, 2, 8, 16>, MmaTiles<half, 2, 8>::shape_of, takes_linear<f16, 0, 16>},
      {linear_mma<half, 2, 8, 2>, MmaTiles<half, 2, 8>::shape_of, takes_linear<f16, 0, 2>},
      {linear_fp32<1, 16>, FmaTiles<1>::shape_of, takes_linear<f32, 4, 16>},
      {linear_fp32<1, 4>, FmaTiles<1>::shape_of, takes_linear<f32, 4, 4>},
      {linear_fp32<8, 16>, FmaTiles<8>::shape_of, takes_linear<f32, 0, 16>},
      {linear_fp32<8, 4>, FmaTiles<8>::shape_of, takes_linear<f32, 0, 4>},
  };
  return a.rows == 0 ? nullptr : launch_first(variants, a, launch);
}

template <DType kType, DType kGate>
bool takes_product(const LinearEpilogue& a) {
  return a.dtype == kType && a.gate_dtype == kGate;
}

template <class Launch>
Status linear_epilogue_by(const LinearEpilogue& a, const Launch& launch) {
  using bf = bfloat16;
  using half = float16;
  constexpr DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;
  static constexpr Variant<LinearEpilogue> variants[] = {
      {linear_epilogue<bf, float>, ProductRows::shape_of, takes_product<bf16, f32>},
      {linear_epilogue<bf, bf>, ProductRows::shape_of, takes_product<bf16, bf16>},
      {linear_epilogue<half, float>, ProductRows::shape_of, takes_product<f16, f32>},
      {linear_epilogue<half, half>, ProductRows::shape_of, takes_product<f16, f16>},
  };
  return a.rows == 0 ? nullptr : launch_first(variants, a, launch);
}

template <DType kType, bool kStaged>
bool takes_sample(const PersistentSample& a) {
  return a.dtype == kType && a.plan.staged == kStaged;
}

template <class Launch>
auto ddpm_sample_by(const PersistentSample& a, const Launch& launch) {
  static constexpr Variant<PersistentSample> variants[] = {
      {ddpm_sample<float, true>, shape_of, takes_sample<DType::f32, true>},
      {ddpm_sample<bfloat16, true>, shape_of, takes_sample<DType::bf16, true>},
      {ddpm_sample<bfloat16, false>, shape_of, takes_sample<DType::bf16, false>},
      {ddpm_sample<float16, true>, shape_of, takes_sample<DType::f16, true>},
      {ddpm_sample<float16, false>, shape_of, takes_sample<DType::f16, false>},
  };
  return launch_first(variants, a, launch);
}

// kHeadDim 0: any up to 128. Copies of 16 bytes need whole ones, and results that start at pairs.
template <DType kType, int kHeadDim, int kCopy>
bool takes_attention(const Attention& a) {
  const int64_t size = a.dtype == DType::f32 ? 4 : 2;
  const int64_t strides =
      a.head_dim | a.batch_stride | a.position_stride | a.part_stride | a.head_stride;
  const auto bits = reinterpret_cast<uintptr_t>(a.qkv) | static_cast<uintptr_t>(strides * size) |
                    reinterpret_cast<uintptr_t>(a.out) * 4;
  const bool whole = bits % 16 == 0 && a.position_stride < 1 << 24;  // 64 rows: a 32-bit offset
  return a.dtype == kType && (kHeadDim ? a.head_dim == kHeadDim : a.head_dim <= 128) &&
         (kCopy < 16 || whole);
}

template <class Launch>
Status attention_by(const Attention& a, const Launch& launch) {
  using bf = bfloat16;
  using half = float16;
  constexpr DType f32 = DType::f32, bf16 = DType::bf16, f16 = DType::f16;
  // MAR's heads, then any; an element a copy last.
  static constexpr Variant<Attention> variants[] = {
      {attention<bf, 64, 16>, AttentionTiles<bf, 64>::shape_of, takes_attention<bf16, 64, 16>},
      {attention<bf, 80, 16>, AttentionTiles<bf, 80>::shape_of, takes_attention<bf16, 80, 16>},
      {attention<bf, 0, 16>, AttentionTiles<bf, 0>::shape_of, takes_attention<bf16, 0, 16>},
      {attention<bf, 0, 2>, AttentionTiles<bf, 0>::shape_of, takes_attention<bf16, 0, 2>},
      {attention<half, 64, 16>, AttentionTiles<half, 64>::shape_of, takes_attention<f16, 64, 16>},
      {attention<half, 80, 16>, AttentionTiles<half, 80>::shape_of, takes_attention<f16, 80, 16>},
      {attention<half, 0, 16>, AttentionTiles<half, 0>::shape_of, takes_attention<f16, 0, 16>},
      {attention<half, 0, 2>, AttentionTiles<half, 0>::shape_of, takes_attention<f16, 0, 2>},
      {attention<float, 64, 16>, AttentionTiles<float, 64>::shape_of, takes_attention<f32, 64, 16>},
      {attention<float, 80, 16>, AttentionTiles<float, 80>::shape_of, takes_attention<f32, 80, 16>},
      {attention<float, 0, 16>, AttentionTiles<float, 0>::shape_of, takes_attention<f32, 0, 16>},
      {attention<float, 0, 4>, AttentionTiles<float, 0>::shape_of, takes_attention<f32, 0, 4>},
  };
  return a.batch * a.wanted == 0 ? nullptr : launch_first(variants, a, launch);
}

}  // namespace marfast::cuda
