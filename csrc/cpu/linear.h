#pragma once

// The kernels' matrix product: out[r][j] = sum_k x[r][k] W[j][k] + b[j], for few or many rows.
//
// Order of accumulation (docs/numerics.md): k is cut into blocks of F::block, each block is one
// chain of multiply-adds from 0, block sums are added in order, then the bias. Lanes run across
// outputs, so the bits of an output depend neither on the rows beside it, nor on the width of the
// registers, nor on the threads. operands.h says what a multiply-add and a block are.
//
// Weights lie in panels of 32 outputs (packed_linear.h), rows of x padded with zeros to whole
// vectors. A tile (tile.h) is up to F::max_rows rows by one panel (or half a panel, where registers
// are few), its accumulators in registers. Few rows: a panel is read once for each group of them;
// while it is used, the next one is brought into L2. Many rows: tall_linear.h. Bytes moved: the
// weights once, J K s; flops: 2 R J K. Floor: the larger of the two.

#include <cstdint>

#include "operands.h"
#include "packed_linear.h"
#include "parallel.h"
#include "tall_linear.h"
#include "tile.h"

namespace marfast {

// Rows x Vecs vectors of a panel's outputs, without the bias -> out [Rows][32].
template <class V, class F, int Rows, int Vecs>
void tile(const typename F::Element* x, int64_t x_stride, const char* panel, int64_t inputs,
          const char* next, float* out) {
  static_assert(F::block % F::depth == 0, "a block is whole multiply-adds");
  for (int64_t block = 0; block < inputs; block += F::block) {
    const int64_t left = inputs - block, count = left < F::block ? left : F::block;
    const int64_t at = block / F::depth * kPitch;
    V sum[Rows][Vecs];
    chain<V, F, Rows, Vecs, kPitch, true>(x + block, x_stride, panel + at, count, next + at, sum);
    fold(sum, block == 0, out, kPanel);
  }
}

// `rows` (1 ... Rows) rows by a whole panel.
template <class V, class F, int Rows = F::max_rows>
void panel_rows(int64_t rows, const typename F::Element* x, int64_t x_stride, const char* panel,
                int64_t inputs, const char* next, float* out) {
  static_assert(2 * V::lanes == kPanel, "a panel is two vectors wide");
  if constexpr (Rows > 1) {
    if (rows < Rows) {
      return panel_rows<V, F, Rows - 1>(rows, x, x_stride, panel, inputs, next, out);
    }
  }
  if constexpr (2 * Rows <= F::accumulators) {
    tile<V, F, Rows, 2>(x, x_stride, panel, inputs, next, out);
  } else {
    tile<V, F, Rows, 1>(x, x_stride, panel, inputs, next, out);
    tile<V, F, Rows, 1>(x, x_stride, panel + kVectorBytes, inputs, next, out + V::lanes);
  }
}

// The sums of the panels `own`, a row's 32 at a time, handed to epilogue(row, panel, sums). `then`
// is what the caller reads next.
template <class V, class F, class Epilogue>
void linear_panels(const Linear& layer, const typename F::Element* x, int64_t x_stride,
                   int64_t rows, Range own, const char* then, Epilogue epilogue) {
  if constexpr (F::tall) {
    if (is_tall<F>(rows)) {
      return tall_linear<V, F>(layer, x, x_stride, rows, own, then, epilogue);
    }
  }
  const int64_t groups = (rows + F::max_rows - 1) / F::max_rows;
  for (int64_t p = own.begin; p < own.end; ++p) {
    const char* next = p + 1 < own.end ? layer.panel(p + 1) : then;
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t first = rows * g / groups, count = rows * (g + 1) / groups - first;
      alignas(64) float out[F::max_rows * kPanel];
      const typename F::Element* rows_of_x = x + first * x_stride;
      if constexpr (F::own_tiles) {
        F::panel_rows(count, rows_of_x, x_stride, layer.panel(p), layer.inputs, next, out);
      } else {
        panel_rows<V, F>(count, rows_of_x, x_stride, layer.panel(p), layer.inputs, next, out);
      }
      for (int64_t r = 0; r < count; ++r) epilogue(first + r, p, out + r * kPanel);
    }
  }
}

// The outputs of the panels `own`, each handed to epilogue(row, j, count, value): `count` outputs
// from j on.
template <class V, class F, class Epilogue>
void linear(const Linear& layer, const typename F::Element* x, int64_t x_stride, int64_t rows,
            Range own, const char* then, Epilogue epilogue) {
  linear_panels<V, F>(
      layer, x, x_stride, rows, own, then, [&](int64_t row, int64_t p, const float* sums) {
        for (int64_t v = 0; v < kPanel; v += V::lanes) {
          const int64_t j = p * kPanel + v;
          if (j >= layer.outputs) break;
          const int64_t valid = layer.outputs - j < V::lanes ? layer.outputs - j : V::lanes;
          epilogue(row, j, valid, V::load(sums + v, V::lanes) + V::load(layer.bias + j, V::lanes));
        }
      });
}

// Those of a layer of pairs, each handed to epilogue(row, j, first, second): 16 pairs from j on, 0
// past the last one.
template <class V, class F, class Epilogue>
void linear_pairs(const Linear& layer, const typename F::Element* x, int64_t x_stride, int64_t rows,
                  Range own, const char* then, Epilogue epilogue) {
  linear_panels<V, F>(
      layer, x, x_stride, rows, own, then, [&](int64_t row, int64_t p, const float* sums) {
        const float* bias = layer.bias + p * kPanel;
        epilogue(row, p * V::lanes, V::load(sums, V::lanes) + V::load(bias, V::lanes),
                 V::load(sums + V::lanes, V::lanes) + V::load(bias + V::lanes, V::lanes));
      });
}

// A row of float32 as a product reads it.
template <class V, class F>
void to_elements(const float* x, int64_t size, typename F::Element* out) {
  for (int64_t j = 0; j < size; j += V::lanes) {
    const int64_t left = size - j;
    F::store(V::load(x + j, left < V::lanes ? left : V::lanes), out + j);
  }
}

}  // namespace marfast
