#pragma once

// Tiles of a row-major matrix in shared memory, copied by cp.async by the whole block: kDepth
// elements of each of kRows rows, rows kPitch apart. Past the matrix a tile holds 0.

#include "cuda/ptx.cuh"

namespace marfast::cuda {

template <class T>
struct Matrix {
  const T* data;
  int64_t rows, columns, stride;
};

template <class T, int kRows, int kDepth>
struct Tile {
  // 16 bytes of padding: eight rows of 16 bytes lie in different banks, as ldmatrix wants them.
  static constexpr int kPitch = kDepth + 16 / static_cast<int>(sizeof(T));
  static constexpr int kBytes = kRows * kPitch * static_cast<int>(sizeof(T));
  static_assert(kDepth * sizeof(T) % 32 == 0,
                "rows of a tile must be 16 bytes off a multiple of 32");
  T* data;  // [kRows, kPitch]

  __device__ __forceinline__ T* at(int row, int column) const {
    return data + row * kPitch + column;
  }

  // kCopy bytes at a time (16 or 4, by cp.async), or 2: element by element. Rows of `from` must be
  // aligned to kCopy.
  template <int kCopy>
  __device__ __forceinline__ void load(const Matrix<T>& from, int64_t row, int64_t column,
                                       int threads) const {
    constexpr int kEach = kCopy / static_cast<int>(sizeof(T)), kAcross = kDepth / kEach;
    for (int i = threadIdx.x; i < kRows * kAcross; i += threads) {
      const int r = i / kAcross, c = i % kAcross * kEach;
      const int64_t left = row + r < from.rows ? from.columns - (column + c) : 0;
      const int valid = left <= 0 ? 0 : left < kEach ? static_cast<int>(left) : kEach;
      const T* source = valid ? from.data + (row + r) * from.stride + column + c : from.data;
      if constexpr (kCopy == 16) {
        ptx::cp_async_16(at(r, c), source, valid * static_cast<int>(sizeof(T)));
      } else if constexpr (kCopy == 4) {
        ptx::cp_async_4(at(r, c), source, valid * static_cast<int>(sizeof(T)));
      } else {
        *at(r, c) = valid ? *source : T{};
      }
    }
  }
};

}  // namespace marfast::cuda
