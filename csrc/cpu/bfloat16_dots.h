#pragma once

// operands.h's BFloat16 by vdpbf16ps, which adds two exact products to each lane. It takes
// subnormals for 0, and how it rounds between the two is the processor's own business: its bits
// are repeatable and not those of the other instruction sets. So k need not be cut into blocks:
// beside the rounding of the operands, what a long chain loses is nothing. In an unnamed namespace,
// because code that is compiled with different flags in different files must not be shared.

#include <immintrin.h>

#include <cstring>

#include "vec_avx512.h"

namespace marfast::avx512_bf16 {
namespace {

struct BFloat16Dots {
  static constexpr bool own_tiles = false, tall = false;
  using V = avx512::Vec;
  using Element = bfloat16;
  using Weights = __m512bh;
  using Value = __m512bh;
  static constexpr int64_t depth = 2, block = int64_t{1} << 40;
  static constexpr int accumulators = V::accumulators, max_rows = V::max_rows;

  static Weights weights(const char* p) { return (__m512bh)_mm512_loadu_si512(p); }
  static Value value(const bfloat16* x) {
    int pair;
    std::memcpy(&pair, x, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
  }
  static V multiply_add(const Value& x, const Weights& w, V sum) {
    return _mm512_dpbf16_ps(sum.all, x, w);
  }
  static void store(V value, bfloat16* row) { value.store(row, V::lanes); }
};

}  // namespace
}  // namespace marfast::avx512_bf16
