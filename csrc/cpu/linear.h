#pragma once

// The kernels' matrix product: out[r][j] = sum_k x[r][k] W[j][k] + b[j], for few or many rows.
//
// Order of accumulation (docs/numerics.md): k is cut into blocks of 256, each block is one chain of
// FMAs from 0, block sums are added in order, then the bias. Lanes run across outputs, so the bits
// of an output depend neither on the rows beside it, nor on the width of the registers, nor on the
// threads.
//
// Weights lie in panels of 32 outputs: [ceil(J / 32)][K][32], zeros beyond J. A tile is up
// to V::max_rows rows by one panel (or half a panel, where registers are few), its accumulators in
// registers. A panel is read once for each group of rows; while it is used, the next one is brought
// into L2. Bytes moved: the weights once, J K s; flops: 2 R J K. Floor: the larger of the two.

#include <cstdint>

#include "parallel.h"

namespace marfast {

constexpr int64_t kPanel = 32;
constexpr int64_t kBlock = 256;

struct Linear {
  const float* panels;  // [ceil(outputs / 32)][inputs][32]
  const float* bias;    // [ceil(outputs / 32) * 32]
  int64_t inputs;       // K
  int64_t outputs;      // J
  int64_t panel_count;
};

namespace {
inline const float* panel_of(const Linear& layer, int64_t p) {
  return layer.panels + p * layer.inputs * kPanel;
}
}  // namespace

// Rows x Vecs vectors of a panel's outputs, without the bias -> out [Rows][32].
template <class V, int Rows, int Vecs>
void tile(const float* x, int64_t x_stride, const float* panel, int64_t inputs, const float* next,
          float* out) {
  for (int64_t block = 0; block < inputs; block += kBlock) {
    const int64_t end = block + kBlock < inputs ? block + kBlock : inputs;
    V sum[Rows][Vecs];
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < Vecs; ++v) sum[r][v] = V(0.0f);
    }
    for (int64_t k = block; k < end; ++k) {
      const float* w = panel + k * kPanel;
      __builtin_prefetch(next + k * kPanel, 0, 2);
      __builtin_prefetch(next + k * kPanel + kPanel / 2, 0, 2);
      V weight[Vecs];
#pragma GCC unroll 2
      for (int v = 0; v < Vecs; ++v) weight[v] = V::load(w + v * V::lanes, V::lanes);
#pragma GCC unroll 16
      for (int r = 0; r < Rows; ++r) {
        const V value(x[r * x_stride + k]);
#pragma GCC unroll 2
        for (int v = 0; v < Vecs; ++v) sum[r][v] = fma(value, weight[v], sum[r][v]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < Vecs; ++v) {
        float* total = out + r * kPanel + v * V::lanes;
        const V whole = block == 0 ? sum[r][v] : V::load(total, V::lanes) + sum[r][v];
        whole.store(total, V::lanes);
      }
    }
  }
}

// `rows` (1 ... Rows) rows by a whole panel.
template <class V, int Rows = V::max_rows>
void panel_rows(int64_t rows, const float* x, int64_t x_stride, const float* panel, int64_t inputs,
                const float* next, float* out) {
  static_assert(2 * V::lanes == kPanel, "a panel is two vectors wide");
  if constexpr (Rows > 1) {
    if (rows < Rows) {
      return panel_rows<V, Rows - 1>(rows, x, x_stride, panel, inputs, next, out);
    }
  }
  if constexpr (2 * Rows <= V::accumulators) {
    tile<V, Rows, 2>(x, x_stride, panel, inputs, next, out);
  } else {
    tile<V, Rows, 1>(x, x_stride, panel, inputs, next, out);
    tile<V, Rows, 1>(x, x_stride, panel + V::lanes, inputs, next, out + V::lanes);
  }
}

// The outputs of the panels `own`, each handed to epilogue(row, j, count, value): `count` outputs
// from j on. `then` is what the caller reads next.
template <class V, class Epilogue>
void linear(const Linear& layer, const float* x, int64_t x_stride, int64_t rows, Range own,
            const float* then, Epilogue epilogue) {
  const int64_t groups = (rows + V::max_rows - 1) / V::max_rows;
  for (int64_t p = own.begin; p < own.end; ++p) {
    const float* next = p + 1 < own.end ? panel_of(layer, p + 1) : then;
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t first = rows * g / groups, count = rows * (g + 1) / groups - first;
      alignas(64) float out[V::max_rows * kPanel];
      panel_rows<V>(count, x + first * x_stride, x_stride, panel_of(layer, p), layer.inputs, next,
                    out);
      for (int64_t r = 0; r < count; ++r) {
        for (int64_t v = 0; v < kPanel; v += V::lanes) {
          const int64_t j = p * kPanel + v;
          if (j >= layer.outputs) break;
          const int64_t valid = layer.outputs - j < V::lanes ? layer.outputs - j : V::lanes;
          epilogue(first + r, j, valid,
                   V::load(out + r * kPanel + v, V::lanes) + V::load(layer.bias + j, V::lanes));
        }
      }
    }
  }
}

}  // namespace marfast
