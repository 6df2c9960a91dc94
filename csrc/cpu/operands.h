#pragma once

// How the operands of a product (linear.h) are stored and multiplied: each struct is one way.
//
//   Element        what a row's values are stored as
//   depth          how many values of k one multiply_add takes
//   block          how many values of k make one chain of multiply_adds
//   accumulators, max_rows   of the tile that the registers hold beside the weights
//   Weights        one vector of outputs by `depth` values of k: 64 bytes of a panel
//   Value          a row's values at the same k, in every lane
//   own_tiles      whether it brings a panel_rows (linear.h) of its own, in place of all but
//   Element,
//                  max_rows and store
//   store          16 values into a row, rounded to what the product takes
//   tall           whether products of many rows have a way of their own (tall_linear.h)
//   Tall           the operands of that
//   expand         Weights as `depth` of Tall's, `pitch` bytes apart

#include <cstring>

#include "marfast/types.h"

namespace marfast {

// float32 by float32: one FMA for each k.
template <class V>
struct Float32 {
  static constexpr bool own_tiles = false, tall = true;
  using Element = float;
  using Weights = V;
  using Value = V;
  static constexpr int64_t depth = 1, block = 256;
  static constexpr int accumulators = V::accumulators, max_rows = V::max_rows;

  static Weights weights(const char* p) {
    return V::load(reinterpret_cast<const float*>(p), V::lanes);
  }
  static Value value(const float* x) { return V(*x); }
  static V multiply_add(const Value& x, const Weights& w, V sum) { return fma(x, w, sum); }
  static void store(V value, float* row) { value.store(row, V::lanes); }

  using Tall = Float32;
  static void expand(const char* p, char* out, int64_t) {
    weights(p).store(reinterpret_cast<float*>(out), V::lanes);
  }
};

// bfloat16 by bfloat16, exact products summed in float32: both expanded to float32, then one FMA
// for each k, in the order of Float32.
template <class V>
struct BFloat16 {
  static constexpr bool own_tiles = false, tall = true;
  using Element = float;
  struct Weights {
    V even, odd;
  };
  using Value = Weights;
  static constexpr int64_t depth = 2, block = 256;
  static constexpr int accumulators = V::accumulators_of_pairs;
  static constexpr int max_rows = V::max_rows_of_pairs;

  static Weights weights(const char* p) {
    const V pairs = V::load(reinterpret_cast<const float*>(p), V::lanes);
    return {low_bfloat16(pairs), high_bfloat16(pairs)};
  }
  static Value value(const float* x) { return {V(x[0]), V(x[1])}; }
  static V multiply_add(const Value& x, const Weights& w, V sum) {
    return fma(x.odd, w.odd, fma(x.even, w.even, sum));
  }
  static void store(V value, float* row) {
    bfloat16 rounded[V::lanes];
    value.store(rounded, V::lanes);
    V::load(rounded, V::lanes).store(row, V::lanes);
  }

  using Tall = Float32<V>;
  static void expand(const char* p, char* out, int64_t pitch) {
    const Weights both = weights(p);
    both.even.store(reinterpret_cast<float*>(out), V::lanes);
    both.odd.store(reinterpret_cast<float*>(out + pitch), V::lanes);
  }
};

}  // namespace marfast
