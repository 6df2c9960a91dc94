#pragma once

// exp for every backend: the same operations on every vector type, so the same bits.
//
//   n = x / ln 2 rounded to an integer, r = x - n ln 2 (ln 2 in two parts)
//   exp(x) = 2^n (1 + (r + r^2 q(r))), q by Horner's rule, minimax, degree 5
//
// Over all floats the error is below 1 ULP (0.973 at most), subnormal results included.
// 0 below -103.972 (where the exact value rounds to 0), infinity above 88.723, NaN stays NaN.

#include "marfast/host_device.h"

namespace marfast {

// V: +, -, *, fma(a, b, c), min and max (which return their second argument if either is NaN),
// shift_left_23 (of the bits), and construction from a float.
template <class V>
MARFAST_HD inline V round_to_integer(V x) {
  const V magic(12582912.0f);  // 1.5 * 2^23: adding it leaves no fraction bits, for |x| < 2^22
  return (x + magic) - magic;
}

// 2^n for an integer n of -126 ... 127: n + 127 ends up in the exponent's bits.
template <class V>
MARFAST_HD inline V power_of_two(V n) {
  return shift_left_23(n + V(12582912.0f + 127.0f));
}

template <class V>
MARFAST_HD inline V exp(V x) {
  x = min(V(89.0f), max(V(-104.5f), x));
  const V magic(12582912.0f);
  const V n = fma(x, V(0x1.715476p+0f), magic) - magic;
  const V r = fma(n, V(0x1.05c61p-29f), fma(n, V(-0x1.62e43p-1f), x));

  V q(0x1.9dd718p-13f);
  q = fma(q, r, V(0x1.6d4dd6p-10f));
  q = fma(q, r, V(0x1.11133p-7f));
  q = fma(q, r, V(0x1.5554e8p-5f));
  q = fma(q, r, V(0x1.555554p-3f));
  q = fma(q, r, V(0.5f));
  const V p = fma(r * r, q, r) + V(1.0f);

  // In two steps, because n reaches from -151 to 128; only the second one can round.
  const V first = round_to_integer(n * V(0.5f));
  return p * power_of_two(first) * power_of_two(n - first);
}

}  // namespace marfast
