#pragma once

// What products are made of (linear.h): sums of some rows by some vectors of outputs, in registers.

#include <cstdint>

#include "operands.h"
#include "packed_linear.h"

namespace marfast {

constexpr int64_t kVectorBytes = 64;  // of a panel: one vector of outputs by F::depth values of k
constexpr int64_t kPitch = 2 * kVectorBytes;  // from there to the next values of k

// Rows x Vecs vectors of outputs: what `count` values of k add to their sums. Weights lie `Pitch`
// bytes apart; a pitch of them at `next` is brought into L2 for each that is read, unless it is
// null.
template <class V, class F, int Rows, int Vecs, int64_t Pitch, bool Prefetch>
[[gnu::always_inline]] inline void chain(const typename F::Element* x, int64_t x_stride,
                                         const char* weights, int64_t count, const char* next,
                                         V (&sum)[Rows][Vecs]) {
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < Vecs; ++v) sum[r][v] = V(0.0f);
  }
  for (int64_t k = 0; k < count; k += F::depth) {
    const int64_t at = k / F::depth * Pitch;
    if constexpr (Prefetch) {
      __builtin_prefetch(next + at, 0, 2);
      __builtin_prefetch(next + at + kVectorBytes, 0, 2);
    }
    typename F::Weights weight[Vecs];
#pragma GCC unroll 2
    for (int v = 0; v < Vecs; ++v) weight[v] = F::weights(weights + at + v * kVectorBytes);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const typename F::Value value = F::value(x + r * x_stride + k);
#pragma GCC unroll 2
      for (int v = 0; v < Vecs; ++v) sum[r][v] = F::multiply_add(value, weight[v], sum[r][v]);
    }
  }
}

// A block's sums onto those of the blocks before it, rows `stride` apart.
template <class V, int Rows, int Vecs>
[[gnu::always_inline]] inline void fold(const V (&sum)[Rows][Vecs], bool first, float* out,
                                        int64_t stride) {
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < Vecs; ++v) {
      float* total = out + r * stride + v * V::lanes;
      const V whole = first ? sum[r][v] : V::load(total, V::lanes) + sum[r][v];
      whole.store(total, V::lanes);
    }
  }
}

// As many vectors of outputs side by side as a tile of F's takes, and so their weights' pitch.
template <class F>
constexpr int vectors_a_tile = 2 * F::max_rows <= F::accumulators ? 2 : 1;

// A block's sums of `rows` (1 ... Rows) rows by vectors_a_tile vectors onto `out`, rows `stride`
// apart.
template <class V, class F, int Rows = F::max_rows>
void block_rows(int64_t rows, const typename F::Element* x, int64_t x_stride, const char* weights,
                int64_t count, bool first, float* out, int64_t stride) {
  if constexpr (Rows > 1) {
    if (rows < Rows) {
      return block_rows<V, F, Rows - 1>(rows, x, x_stride, weights, count, first, out, stride);
    }
  }
  constexpr int vecs = vectors_a_tile<F>;
  V sum[Rows][vecs];
  chain<V, F, Rows, vecs, vecs * kVectorBytes, false>(x, x_stride, weights, count, nullptr, sum);
  fold(sum, first, out, stride);
}

}  // namespace marfast
