#pragma once

// linear.h's product where rows are many: the same order of accumulation, so the same bits.
//
// A panel passes over up to kTallRows rows block by block of k, so that the weights of a block are
// read from the outer caches once, and from L1 for each group of rows; meanwhile the next block is
// brought into L2. Where the registers hold half a panel, or weights have to be expanded to
// float32, a block is first copied as the tiles read it. Sums stay in L1 from block to block.

#include "parallel.h"
#include "tile.h"

namespace marfast {

constexpr int64_t kTallRows = 192;  // whose sums are kept, [kTallRows][32]

// Whether copying blocks pays.
template <class F>
constexpr bool is_tall(int64_t rows) {
  return rows >= 5 * F::max_rows;
}

// A block's weights as tiles of F::Tall's read them.
template <class V, class F>
class TallBlock {
  using Tall = typename F::Tall;
  static constexpr bool kWhole = vectors_a_tile<Tall> == 2;
  static constexpr bool kInPlace = kWhole && F::depth == Tall::depth;

 public:
  // `count` values of k, whole multiply-adds of F.
  void take(const char* block, int64_t count) {
    at_ = block;
    if constexpr (!kInPlace) {
      constexpr int64_t pitch = vectors_a_tile<Tall> * kVectorBytes;
      for (int v = 0; v < 2; ++v) {
        char* out = copy_ + v * kSecond;
        for (int64_t k = 0; k < count; k += F::depth) {
          F::expand(block + k / F::depth * kPitch + v * kVectorBytes, out + k * pitch, pitch);
        }
      }
      at_ = copy_;
    }
  }

  const char* vector(int v) const { return at_ + v * kSecond; }

 private:
  static constexpr int64_t kSecond = kWhole ? kVectorBytes : F::block * kVectorBytes;

  const char* at_ = nullptr;
  alignas(64) char copy_[kInPlace ? 1 : 2 * F::block * kVectorBytes];
};

template <class V>
void bring_nearer(const char* from, int64_t bytes) {
  for (int64_t line = 0; line < bytes; line += 64) __builtin_prefetch(from + line, 0, 2);
}

// As linear_panels, for x of float32.
template <class V, class F, class Epilogue>
void tall_linear(const Linear& layer, const float* x, int64_t x_stride, int64_t rows, Range own,
                 const char* then, Epilogue epilogue) {
  using Tall = typename F::Tall;
  TallBlock<V, F> weights;
  alignas(64) float sums[kTallRows * kPanel];
  const int64_t parts = (rows + kTallRows - 1) / kTallRows;
  for (int64_t p = own.begin; p < own.end; ++p) {
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t begin = rows * part / parts, size = rows * (part + 1) / parts - begin;
      const int64_t groups = (size + Tall::max_rows - 1) / Tall::max_rows;
      for (int64_t k = 0; k < layer.inputs; k += F::block) {
        const int64_t left = layer.inputs - k, values = left < F::block ? left : F::block;
        const int64_t steps = (values + F::depth - 1) / F::depth, bytes = steps * kPitch;
        const char* block = layer.panel(p) + k / F::depth * kPitch;
        const char* next = left > F::block || p + 1 < own.end ? block + bytes : then;
        weights.take(block, steps * F::depth);
        for (int64_t g = 0; g < groups; ++g) {
          const int64_t first = size * g / groups, count = size * (g + 1) / groups - first;
          bring_nearer<V>(next + bytes * g / groups / 64 * 64, bytes / groups + 64);
          for (int v = 0; v < 2; v += vectors_a_tile<Tall>) {
            block_rows<V, Tall>(count, x + (begin + first) * x_stride + k, x_stride,
                                weights.vector(v), steps * F::depth, k == 0,
                                sums + first * kPanel + v * V::lanes, kPanel);
          }
        }
      }
      for (int64_t r = 0; r < size; ++r) epilogue(begin + r, p, sums + r * kPanel);
    }
  }
}

}  // namespace marfast
