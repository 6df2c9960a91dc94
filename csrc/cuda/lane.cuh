#pragma once

// vec_portable.h's Vec with one lane: what a thread computes with, so that exp.h, silu.h and gelu.h
// are the same code on CPU and device. Built without contraction, flushing or fast division.

#include <math.h>

#include "marfast/convert.h"

namespace marfast {

struct Lane {
  float value;

  Lane() = default;
  MARFAST_HD explicit Lane(float value_) : value(value_) {}

  template <class T>
  MARFAST_HD static Lane load(const T* p) {
    return Lane(to_float(*p));
  }
  template <class T>
  MARFAST_HD void store(T* p) const {
    from_float(value, p);
  }

  MARFAST_HD friend Lane operator+(Lane a, Lane b) { return Lane(a.value + b.value); }
  MARFAST_HD friend Lane operator-(Lane a, Lane b) { return Lane(a.value - b.value); }
  MARFAST_HD friend Lane operator*(Lane a, Lane b) { return Lane(a.value * b.value); }
  MARFAST_HD friend Lane operator/(Lane a, Lane b) { return Lane(a.value / b.value); }
  MARFAST_HD friend Lane fma(Lane a, Lane b, Lane c) {
    return Lane(::fmaf(a.value, b.value, c.value));
  }
  MARFAST_HD friend Lane sqrt(Lane a) { return Lane(::sqrtf(a.value)); }
  // Both return b if either is NaN.
  MARFAST_HD friend Lane min(Lane a, Lane b) { return a.value < b.value ? a : b; }
  MARFAST_HD friend Lane max(Lane a, Lane b) { return a.value > b.value ? a : b; }
  MARFAST_HD friend Lane shift_left_23(Lane a) { return Lane(from_bits(to_bits(a.value) << 23)); }
};

}  // namespace marfast
