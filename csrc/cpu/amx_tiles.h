#pragma once

// operands.h's BFloat16 by tdpbf16ps (AMX): 16 rows by 16 outputs by 32 values of k at once. Up to
// 32 rows by one panel make four tiles of sums; two tiles of x and two of weights feed them. The
// panels of packed_linear.h are tiles as they lie.
//
// Each output is one chain over k, two exact products at a time, which the processor rounds its own
// way (subnormals are 0 to it): repeatable, the same for any batch and any number of threads, and
// not the bits of the other instruction sets. In an unnamed namespace, because code that is
// compiled with different flags in different files must not be shared.

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "packed_linear.h"
#include "vec_avx512.h"

namespace marfast::avx512_amx {
namespace {

struct AmxTiles {
  static constexpr bool own_tiles = true, tall = false;
  using V = avx512::Vec;
  using Element = bfloat16;
  static constexpr int max_rows = 32;

  static void store(V value, bfloat16* row) { value.store(row, V::lanes); }

  // `rows` (1 ... 32) rows by a whole panel, without the bias -> out [rows][32]; `next` is the
  // panel to bring nearer meanwhile.
  static void panel_rows(int64_t rows, const bfloat16* x, int64_t x_stride, const char* panel,
                         int64_t inputs, const char* next, float* out) {
    rows > kSide ? sums<true>(rows, x, x_stride, panel, inputs, next, out)
                 : sums<false>(rows, x, x_stride, panel, inputs, next, out);
  }

 private:
  static constexpr int64_t kSide = 16;               // rows or outputs of a tile
  static constexpr int64_t kDepth = 32;              // values of k of a tile
  static constexpr int64_t kRowBytes = 64;           // of a tile
  static constexpr int64_t kPairBytes = kPanel * 4;  // of a panel: all outputs, two of k
  static constexpr int64_t kStepBytes = kDepth / 2 * kPairBytes;

  struct alignas(64) Configuration {  // what ldtilecfg reads
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  };

  // Tiles 0, 1 are the sums of the upper rows, 2, 3 of the lower; 4, 5 are x's, 6, 7 the weights'.
  static void configure(int64_t rows) {
    const uint8_t upper = static_cast<uint8_t>(rows < kSide ? rows : kSide);
    const uint8_t lower = static_cast<uint8_t>(rows - upper);
    const uint8_t of_tile[8] = {upper, upper, lower, lower, upper, lower, kSide, kSide};
    Configuration c;
    for (int t = 0; t < 8; ++t) {
      c.rows[t] = of_tile[t];
      c.row_bytes[t] = of_tile[t] ? kRowBytes : 0;
    }
    finish_stores();
    _tile_loadconfig(&c);
  }

  // The compiler does not know what the tile instructions read.
  static void finish_stores() { __asm__ volatile("" ::: "memory"); }

  template <bool TwoTiles>
  static void step(const bfloat16* x, int64_t x_stride, const char* weights, int64_t pair_bytes) {
    _tile_loadd(4, x, 2 * x_stride);
    _tile_loadd(6, weights, pair_bytes);
    _tile_loadd(7, weights + kRowBytes, pair_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (TwoTiles) {
      _tile_loadd(5, x + kSide * x_stride, 2 * x_stride);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }

  template <bool TwoTiles>
  static void sums(int64_t rows, const bfloat16* x, int64_t x_stride, const char* panel,
                   int64_t inputs, const char* next, float* out) {
    configure(rows);
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (TwoTiles) {
      _tile_zero(2);
      _tile_zero(3);
    }
    const int64_t whole = inputs / kDepth;
    for (int64_t s = 0; s < whole; ++s) {
      const int64_t at = s * kStepBytes;
      for (int64_t line = 0; line < kStepBytes; line += 64) {
        _mm_prefetch(next + at + line, _MM_HINT_T1);
      }
      step<TwoTiles>(x + s * kDepth, x_stride, panel + at, kPairBytes);
    }
    if (whole * kDepth < inputs) {
      last_step<TwoTiles>(rows, x + whole * kDepth, x_stride, panel + whole * kStepBytes,
                          inputs - whole * kDepth);
    }
    _tile_stored(0, out, kPairBytes);
    _tile_stored(1, out + kSide, kPairBytes);
    if constexpr (TwoTiles) {
      _tile_stored(2, out + kSide * kPanel, kPairBytes);
      _tile_stored(3, out + kSide * kPanel + kSide, kPairBytes);
    }
    _tile_release();
  }

  // Fewer than 32 values of k: copies with zeros behind them.
  template <bool TwoTiles>
  static void last_step(int64_t rows, const bfloat16* x, int64_t x_stride, const char* weights,
                        int64_t left) {
    alignas(64) bfloat16 values[max_rows * kDepth] = {};
    alignas(64) char pairs[kStepBytes] = {};
    for (int64_t r = 0; r < rows; ++r) {
      std::memcpy(values + r * kDepth, x + r * x_stride, sizeof(bfloat16) * left);
    }
    std::memcpy(pairs, weights, (left + 1) / 2 * kPairBytes);
    finish_stores();
    step<TwoTiles>(values, kDepth, pairs, kPairBytes);
  }
};

}  // namespace
}  // namespace marfast::avx512_amx
