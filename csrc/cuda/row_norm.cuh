#pragma once

// LN + modulate of rows of x, in global memory, by a block of 256 threads: layer_norm_modulate's
// formula and order. Few rows have several warps each: every one finds the row's moments and writes
// a part of the row. What is read beside x, 16 bytes at a time, may be read ahead, before a barrier
// that x is waited for at. All but the first pass over x find it in the first-level cache.

#include "cuda/layer_norm_modulate.cuh"
#include "marfast/head_weights.h"

namespace marfast::cuda {

// first, first + apart, ...
struct Rows {
  int64_t first, apart;
  int count;
};

template <class T>
class RowNorm {
  static constexpr int kWarps = 8;
  static constexpr int kAhead = 2;  // times four numbers of a thread
  static constexpr float kEps = 1e-6f;

  struct alignas(4 * sizeof(T)) Four {
    T v[4];
  };

 public:
  // What is read beside x, of kAhead times four numbers.
  struct Ahead {
    ptx::Vec4 shift[kAhead], scale[kAhead];
    Four weight[kAhead], bias[kAhead];
    bool is_read;
  };

  // Rows of x are w long, a multiple of 32; of shift (scale lies behind it)
  // `modulation` long; affine is of T, or null.
  __device__ RowNorm(const float* x, int64_t w, int64_t modulation)
      : x_(x), modulation_(modulation), w_(static_cast<int>(w)) {}

  __device__ __forceinline__ void look_ahead(const float* shift, const Layer& affine, Rows rows,
                                             Ahead& ahead) const {
    read(shift, affine, rows, first_row(rows), 0, ahead);
    ahead.is_read = true;
  }

  // Row i goes to out + i * pitch.
  __device__ __forceinline__ void operator()(const float* shift, const Layer& affine, Rows rows,
                                             Ahead& ahead, T* out, int64_t pitch) const {
    const int lane = threadIdx.x % 32, several = warps(rows);
#pragma unroll 1
    for (int i = first_row(rows); i < rows.count; i += kWarps / several) {
      const float* x = x_ + (rows.first + i * rows.apart) * w_;
      const auto sum = [&](auto value) {
        return lane_sum(lane, w_, [=](int64_t j) { return value(Lane(x[j])); });
      };
      const Moments moments = row_moments(sum, w_, kEps);
#pragma unroll 1
      for (int first = 0; first < w_; first += kAhead * 128 * several) {
        if (!ahead.is_read) read(shift, affine, rows, i, first, ahead);
        ahead.is_read = false;
        write(x, moments, affine.weight, rows, first, ahead, out + i * pitch);
      }
    }
    ahead.is_read = false;
  }

 private:
  static __device__ int warps(Rows rows) {  // of a row
    return rows.count > 4 ? 1 : rows.count > 2 ? 2 : rows.count > 1 ? 4 : 8;
  }
  static __device__ int first_row(Rows rows) { return threadIdx.x / 32 / warps(rows); }

  // The k-th four of a thread, from number `first` of a row on.
  static __device__ int number(Rows rows, int first, int k) {
    const int threads = 32 * warps(rows);
    return first + 4 * (k * threads + static_cast<int>(threadIdx.x) % threads);
  }

  __device__ __forceinline__ void read(const float* shift, const Layer& affine, Rows rows, int i,
                                       int first, Ahead& ahead) const {
    if (i >= rows.count) return;
    shift += (rows.first + i * rows.apart) * modulation_;
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      const int j = number(rows, first, k);
      if (j >= w_) break;
      ahead.shift[k] = ptx::ld_global_v4(shift + j);
      ahead.scale[k] = ptx::ld_global_v4(shift + w_ + j);
      if (!affine.weight) continue;
      ahead.weight[k] = reinterpret_cast<const Four*>(affine.weight)[j / 4];
      ahead.bias[k] = reinterpret_cast<const Four*>(affine.bias)[j / 4];
    }
  }

  __device__ __forceinline__ void write(const float* x, Moments moments, bool affine, Rows rows,
                                        int first, const Ahead& ahead, T* out) const {
    ptx::Vec4 values[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      const int j = number(rows, first, k);
      if (j < w_) values[k] = ptx::ld_global_v4(x + j);
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      const int j = number(rows, first, k);
      if (j >= w_) break;
      Four four;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        Lane y = (Lane(from_bits(values[k].v[e])) - moments.mean) * moments.rstd;
        if (affine) y = y * Lane::load(ahead.weight[k].v + e) + Lane::load(ahead.bias[k].v + e);
        y = y * (Lane(1.0f) + Lane(from_bits(ahead.scale[k].v[e])));
        store_operand(y + Lane(from_bits(ahead.shift[k].v[e])), four.v + e);
      }
      *reinterpret_cast<Four*>(out + j) = four;
    }
  }

  const float* x_;
  const int64_t modulation_;
  const int w_;
};

}  // namespace marfast::cuda
