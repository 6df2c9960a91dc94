#pragma once

// Sixteen float32 lanes in plain C++: the definition of every operation that the kernels use, and
// the bit reference for the other vector types. Everything lies in an unnamed namespace: this
// header is compiled with different flags in different files, which must not share code.

#include <float.h>
#include <math.h>
#include <string.h>

#include <cstdint>

#include "marfast/types.h"

namespace marfast::portable {
namespace {

static_assert(FLT_EVAL_METHOD == 0, "float expressions must be evaluated in float");

inline uint32_t to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

inline float to_float(float value) { return value; }

inline float to_float(bfloat16 value) { return from_bits(uint32_t{value.bits} << 16); }

inline float to_float(float16 value) {
  const uint32_t sign = (value.bits & 0x8000u) << 16;
  const uint32_t exponent = (value.bits >> 10) & 31u, fraction = value.bits & 0x3ffu;
  if (exponent == 0) return from_bits(sign | to_bits(static_cast<float>(fraction) * 0x1p-24f));
  if (exponent < 31) return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
  return from_bits(sign | 0x7f800000u | fraction << 13 | (fraction ? 0x400000u : 0));
}

inline void from_float(float value, float* out) { *out = value; }

inline void from_float(float value, bfloat16* out) {
  const uint32_t bits = to_bits(value);
  const uint32_t nearest_even = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  out->bits = static_cast<uint16_t>(value != value ? 0x7fc0u : nearest_even);
}

inline void from_float(float value, float16* out) {
  const uint32_t bits = to_bits(value), sign = (bits >> 16) & 0x8000u, size = bits & 0x7fffffffu;
  uint32_t half;
  if (size > 0x7f800000u) {  // NaN
    half = 0x7e00u | ((size >> 13) & 0x3ffu);
  } else if (size >= 0x477ff000u) {  // rounds to 65536 or more: infinity
    half = 0x7c00u;
  } else if (size < 0x38800000u) {  // below 2^-14: an integer of 2^-24, rounded by the addition
    half = to_bits(from_bits(size) * 0x1p24f + 0x1p23f) - 0x4b000000u;
  } else {
    half = ((size + 0xfffu + ((size >> 13) & 1u)) >> 13) - (112u << 10);
  }
  out->bits = static_cast<uint16_t>(sign | half);
}

struct Vec {
  static constexpr int64_t lanes = 16;
  static constexpr int accumulators = 8;  // of a matrix product's tile (linear.h)
  static constexpr int max_rows = 4;
  static constexpr int accumulators_of_pairs = 8;  // where weights are pairs (operands.h)
  static constexpr int max_rows_of_pairs = 4;
  float lane[lanes];

  Vec() = default;
  explicit Vec(float value) {
    for (float& l : lane) l = value;
  }

  // `count` (0 ... 16) elements at p, 0 in the other lanes; nothing else is read.
  template <class T>
  static Vec load(const T* p, int64_t count) {
    Vec v(0.0f);
    for (int64_t i = 0; i < count; ++i) v.lane[i] = to_float(p[i]);
    return v;
  }

  // The first `count` lanes to p, rounded to nearest even; nothing else is written.
  template <class T>
  void store(T* p, int64_t count) const {
    for (int64_t i = 0; i < count; ++i) from_float(lane[i], p + i);
  }

  // The first `count` lanes, 0 in the others.
  Vec first(int64_t count) const {
    Vec v;
    for (int64_t i = 0; i < lanes; ++i) v.lane[i] = i < count ? lane[i] : 0.0f;
    return v;
  }

  // The lanes' sum, by halves: lane i + 8 onto lane i, then 4, 2, 1.
  float fold() const {
    Vec v = *this;
    for (int64_t half = 8; half > 0; half /= 2) {
      for (int64_t i = 0; i < half; ++i) v.lane[i] = v.lane[i] + v.lane[i + half];
    }
    return v.lane[0];
  }

  template <class F>
  static Vec each(F f) {
    Vec v;
    for (int64_t i = 0; i < lanes; ++i) v.lane[i] = f(i);
    return v;
  }

  friend Vec operator+(Vec a, Vec b) {
    return each([&](int64_t i) { return a.lane[i] + b.lane[i]; });
  }
  friend Vec operator-(Vec a, Vec b) {
    return each([&](int64_t i) { return a.lane[i] - b.lane[i]; });
  }
  friend Vec operator*(Vec a, Vec b) {
    return each([&](int64_t i) { return a.lane[i] * b.lane[i]; });
  }
  friend Vec operator/(Vec a, Vec b) {
    return each([&](int64_t i) { return a.lane[i] / b.lane[i]; });
  }
  friend Vec fma(Vec a, Vec b, Vec c) {
    return each([&](int64_t i) { return fmaf(a.lane[i], b.lane[i], c.lane[i]); });
  }
  friend Vec sqrt(Vec a) {
    return each([&](int64_t i) { return sqrtf(a.lane[i]); });
  }
  // Both return b if either is NaN, as the x86 instructions do.
  friend Vec min(Vec a, Vec b) {
    return each([&](int64_t i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  friend Vec max(Vec a, Vec b) {
    return each([&](int64_t i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  friend Vec shift_left_23(Vec a) {
    return each([&](int64_t i) { return from_bits(to_bits(a.lane[i]) << 23); });
  }
  // The bfloat16 in the low and in the high half of each lane's bits.
  friend Vec low_bfloat16(Vec a) {
    return each([&](int64_t i) { return from_bits(to_bits(a.lane[i]) << 16); });
  }
  friend Vec high_bfloat16(Vec a) {
    return each([&](int64_t i) { return from_bits(to_bits(a.lane[i]) & 0xffff0000u); });
  }
};

}  // namespace
}  // namespace marfast::portable
