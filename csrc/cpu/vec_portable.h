#pragma once

// Sixteen float32 lanes in plain C++: the definition of every operation that the kernels use, and
// the bit reference for the other vector types. Everything lies in an unnamed namespace: this
// header is compiled with different flags in different files, which must not share code.

#include <float.h>
#include <math.h>

#include <cstdint>

#include "marfast/convert.h"

namespace marfast::portable {
namespace {

static_assert(FLT_EVAL_METHOD == 0, "float expressions must be evaluated in float");

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
