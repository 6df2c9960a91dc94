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

  // By kThreads threads, each some rows of one column; kCopy bytes at a time (16 or 4, by
  // cp.async), or 2: element by element. Rows of `from` must be aligned to kCopy.
  template <int kCopy, int kThreads>
  __device__ __forceinline__ void load(const Matrix<T>& from, int64_t row, int64_t column) const {
    constexpr int kEach = kCopy / static_cast<int>(sizeof(T)), kAcross = kDepth / kEach;
    constexpr int kDown = kThreads / kAcross;
    static_assert(kThreads % kAcross == 0, "threads must keep their column from row to row");
    const int first = threadIdx.x / kAcross, c = threadIdx.x % kAcross * kEach;
    const int64_t left = from.columns - (column + c), rows = from.rows - row;
    const int across = left <= 0 ? 0 : left < kEach ? static_cast<int>(left) : kEach;
    const int down = rows < kRows ? static_cast<int>(rows) : kRows;
    const T* next = from.data + (row + first) * from.stride + column + c;
#pragma unroll(kCopy == 16 ? 8 : 4)
    for (int i = 0; i < (kRows + kDown - 1) / kDown; ++i, next += kDown * from.stride) {
      const int r = first + i * kDown;
      if (kRows % kDown && r >= kRows) break;
      const int valid = r < down ? across : 0;
      const T* source = valid ? next : from.data;
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
