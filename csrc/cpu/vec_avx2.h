#pragma once

// vec_portable.h's Vec as two AVX2 registers (with FMA and F16C). In an unnamed namespace, because
// code that is compiled with different flags in different files must not be shared.

#include <immintrin.h>

#include <cstdint>

#include "marfast/types.h"

namespace marfast::avx2 {
namespace {

// All ones in the first `count` of 8 lanes; count may lie outside 0 ... 8.
inline __m256i mask_of(int64_t count) {
  const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), index);
}

inline __m256 widen(__m128i halves, bfloat16) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

inline __m256 widen(__m128i halves, float16) { return _mm256_cvtph_ps(halves); }

inline __m128i narrow(__m256 v, bfloat16) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i bias = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
  const __m256i nearest_even = _mm256_srli_epi32(_mm256_add_epi32(bits, bias), 16);
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i chosen = _mm256_blendv_epi8(nearest_even, _mm256_set1_epi32(0x7fc0), is_nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(chosen), _mm256_extracti128_si256(chosen, 1));
}

inline __m128i narrow(__m256 v, float16) { return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }

struct Vec {
  static constexpr int64_t lanes = 16;
  static constexpr int accumulators = 6;  // of a matrix product's tile (linear.h)
  static constexpr int max_rows = 6;
  static constexpr int accumulators_of_pairs = 5;  // where weights are pairs (operands.h)
  static constexpr int max_rows_of_pairs = 5;
  __m256 low, high;

  Vec() = default;
  Vec(__m256 low_, __m256 high_) : low(low_), high(high_) {}
  explicit Vec(float value) : low(_mm256_set1_ps(value)), high(low) {}

  static Vec load(const float* p, int64_t count) {
    if (count == lanes) return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
    return {_mm256_maskload_ps(p, mask_of(count)), _mm256_maskload_ps(p + 8, mask_of(count - 8))};
  }

  template <class Half>
  static Vec load(const Half* p, int64_t count) {
    alignas(32) Half copy[lanes] = {};
    if (count < lanes) {
      for (int64_t i = 0; i < count; ++i) copy[i] = p[i];
      p = copy;
    }
    const __m128i* halves = reinterpret_cast<const __m128i*>(p);
    return {widen(_mm_loadu_si128(halves), Half{}), widen(_mm_loadu_si128(halves + 1), Half{})};
  }

  void store(float* p, int64_t count) const {
    if (count == lanes) {
      _mm256_storeu_ps(p, low);
      _mm256_storeu_ps(p + 8, high);
    } else {
      _mm256_maskstore_ps(p, mask_of(count), low);
      _mm256_maskstore_ps(p + 8, mask_of(count - 8), high);
    }
  }

  template <class Half>
  void store(Half* p, int64_t count) const {
    alignas(32) Half copy[lanes];
    __m128i* halves = reinterpret_cast<__m128i*>(count < lanes ? copy : p);
    _mm_storeu_si128(halves, narrow(low, Half{}));
    _mm_storeu_si128(halves + 1, narrow(high, Half{}));
    if (count < lanes) {
      for (int64_t i = 0; i < count; ++i) p[i] = copy[i];
    }
  }

  Vec first(int64_t count) const {
    if (count == lanes) return *this;
    return {_mm256_and_ps(low, _mm256_castsi256_ps(mask_of(count))),
            _mm256_and_ps(high, _mm256_castsi256_ps(mask_of(count - 8)))};
  }

  float fold() const {
    const __m256 eight = _mm256_add_ps(low, high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }

  friend Vec operator+(Vec a, Vec b) {
    return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
  }
  friend Vec operator-(Vec a, Vec b) {
    return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
  }
  friend Vec operator*(Vec a, Vec b) {
    return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
  }
  friend Vec operator/(Vec a, Vec b) {
    return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
  }
  friend Vec fma(Vec a, Vec b, Vec c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
  friend Vec sqrt(Vec a) { return {_mm256_sqrt_ps(a.low), _mm256_sqrt_ps(a.high)}; }
  friend Vec min(Vec a, Vec b) {
    return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
  }
  friend Vec max(Vec a, Vec b) {
    return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
  }
  friend Vec shift_left_23(Vec a) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a.low), 23)),
            _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a.high), 23))};
  }
  friend Vec low_bfloat16(Vec a) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a.low), 16)),
            _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a.high), 16))};
  }
  friend Vec high_bfloat16(Vec a) {
    const __m256 high_half = _mm256_castsi256_ps(_mm256_set1_epi32(-0x10000));
    return {_mm256_and_ps(a.low, high_half), _mm256_and_ps(a.high, high_half)};
  }
};

}  // namespace
}  // namespace marfast::avx2
