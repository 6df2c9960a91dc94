#pragma once

// vec_portable.h's Vec as one AVX-512 register (F, BW, DQ, VL). In an unnamed namespace, because
// code that is compiled with different flags in different files must not be shared.

#include <immintrin.h>

#include <cstdint>

#include "marfast/types.h"

namespace marfast::avx512 {
namespace {

inline __mmask16 mask_of(int64_t count) { return static_cast<__mmask16>((1u << count) - 1u); }

inline __m512 widen(__m256i halves, bfloat16) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

inline __m512 widen(__m256i halves, float16) { return _mm512_cvtph_ps(halves); }

// Not vcvtneps2bf16, which flushes subnormals.
inline __m256i narrow(__m512 v, bfloat16) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i bias = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
  const __m512i nearest_even = _mm512_srli_epi32(_mm512_add_epi32(bits, bias), 16);
  const __mmask16 is_nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(
      _mm512_mask_mov_epi32(nearest_even, is_nan, _mm512_set1_epi32(0x7fc0)));
}

inline __m256i narrow(__m512 v, float16) { return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }

struct Vec {
  static constexpr int64_t lanes = 16;
  static constexpr int accumulators = 28;  // of a matrix product's tile (linear.h)
  static constexpr int max_rows = 14;
  static constexpr int accumulators_of_pairs = 24;  // where weights are pairs (operands.h)
  static constexpr int max_rows_of_pairs = 12;
  __m512 all;

  Vec() = default;
  Vec(__m512 all_) : all(all_) {}
  explicit Vec(float value) : all(_mm512_set1_ps(value)) {}

  static Vec load(const float* p, int64_t count) {
    return _mm512_maskz_loadu_ps(mask_of(count), p);
  }
  template <class Half>
  static Vec load(const Half* p, int64_t count) {
    return widen(_mm256_maskz_loadu_epi16(mask_of(count), p), Half{});
  }

  void store(float* p, int64_t count) const { _mm512_mask_storeu_ps(p, mask_of(count), all); }
  template <class Half>
  void store(Half* p, int64_t count) const {
    _mm256_mask_storeu_epi16(p, mask_of(count), narrow(all, Half{}));
  }

  Vec first(int64_t count) const { return _mm512_maskz_mov_ps(mask_of(count), all); }

  float fold() const {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }

  friend Vec operator+(Vec a, Vec b) { return _mm512_add_ps(a.all, b.all); }
  friend Vec operator-(Vec a, Vec b) { return _mm512_sub_ps(a.all, b.all); }
  friend Vec operator*(Vec a, Vec b) { return _mm512_mul_ps(a.all, b.all); }
  friend Vec operator/(Vec a, Vec b) { return _mm512_div_ps(a.all, b.all); }
  friend Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a.all, b.all, c.all); }
  friend Vec sqrt(Vec a) { return _mm512_sqrt_ps(a.all); }
  friend Vec min(Vec a, Vec b) { return _mm512_min_ps(a.all, b.all); }
  friend Vec max(Vec a, Vec b) { return _mm512_max_ps(a.all, b.all); }
  friend Vec shift_left_23(Vec a) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a.all), 23));
  }
  friend Vec low_bfloat16(Vec a) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a.all), 16));
  }
  friend Vec high_bfloat16(Vec a) {
    return _mm512_and_ps(a.all, _mm512_castsi512_ps(_mm512_set1_epi32(-0x10000)));
  }
};

}  // namespace
}  // namespace marfast::avx512
