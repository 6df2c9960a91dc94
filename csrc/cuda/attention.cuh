#pragma once

// attention: out = softmax(Q K^T / sqrt(hd)) V from a packed projection, by online softmax.
//
//   s_j = q . k_j log2(e) / sqrt(hd) for the keys j that the query sees
//   m   = max s_j, l = sum 2^(s_j - m), out = (sum 2^(s_j - m) v_j) / l
//
// A block of 4 warps has 64 queries of one head of one image, 16 a warp, and walks along the keys,
// 16 to 64 at a time: as many as let two tiles of K and two of V stay in 48 KiB. When m grows, l
// and the sums so far are scaled by 2^(m_old - m). Q, K and V are read where the projection left
// them. kHeadDim: 64 or 80, compiled in; 0: any up to 128, worked on 16 at a time.
//
// A lane has R = 2 (halves) or 4 (float32) rows of its warp, together with 2 R - 1 others. Where a
// fragment x[n][i] lies, Fragments says; for halves that is the accumulators of mma.sync m16n8k16.
// Order: q . k_j is one chain over hd; the sums over keys, one over a tile, tiles added in order.
// In halves the chains are of 16 at a time, in the hardware's order; 2^(s_j - m) is rounded to the
// dtype for the second product, not in l. float32 takes e for 2 and exp.h's powers.
//
// Bytes moved: Q and out once, K and V once for each 64 queries (from L2 but for the first). Floor:
// the larger of (2 L + 2 Lq) B H hd numbers over bandwidth and 4 B H Lq L hd flops.

#include "cuda/attention_products.cuh"
#include "cuda/launch_shape.h"
#include "cuda/ops.h"

namespace marfast::cuda {

template <class T, int kHeadDim>
struct AttentionTiles {
  static constexpr int kQueries = 64, kThreads = 128, kWidth = kHeadDim ? kHeadDim : 128;
  static constexpr int kRoom = (48 << 10) / (4 * Tile<T, 1, kWidth>::kBytes);
  static constexpr int kKeys = kRoom >= 64 ? 64 : kRoom >= 32 ? 32 : 16;
  using Keys = Tile<T, kKeys, kWidth>;
  static_assert(kWidth % 16 == 0, "a product takes 16 of a head's dimension at a time");
  static_assert(4 * Keys::kBytes <= 48 << 10, "more shared memory than needs no opting in");

  static LaunchShape shape_of(const Attention& a) {
    return {static_cast<uint32_t>(a.batch * a.heads) * ceil_div(a.wanted, kQueries), 1, kThreads,
            4 * Keys::kBytes};
  }
};

// The rows of a tile from the matrix's row `first` on, by the whole block; zeros past the last.
template <int kCopy, class T, int kKeys, int kWidth>
__device__ __forceinline__ void copy_rows(const Tile<T, kKeys, kWidth>& to, const Matrix<T>& from,
                                          int first) {
  if constexpr (kCopy < 16) {
    to.template load<kCopy, 128>(from, first, 0);
  } else {  // whole copies or none
    constexpr int kEach = 16 / static_cast<int>(sizeof(T)), kAcross = kWidth / kEach;
    static_assert(kKeys * kAcross % 128 == 0, "every thread makes as many copies");
    const T* row = from.data + first * from.stride;
    const int rows = static_cast<int>(from.rows) - first, stride = static_cast<int>(from.stride);
#pragma unroll
    for (int i = 0; i < kKeys * kAcross / 128; ++i) {
      const int at = 128 * i + static_cast<int>(threadIdx.x);
      const int r = at / kAcross, c = at % kAcross * kEach;
      const bool there = r < rows && c < static_cast<int>(from.columns);
      ptx::cp_async_16(to.at(r, c), row + (there ? r * stride + c : 0), there ? 16 : 0);
    }
  }
}

// Two results side by side, but for those past `count`.
template <int kCopy, class T>
__device__ void store_pair(T* to, float first, float second, int count) {
  if constexpr (kCopy == 16 && sizeof(T) == 2) {
    if (count > 0) *reinterpret_cast<uint32_t*>(to) = ptx::cvt_rn_x2(first, second, T{});
  } else {
    if (count > 0) from_float(first, to);
    if (count > 1) from_float(second, to + 1);
  }
}

// The softmax of a warp's rows, so far.
template <class Products>
struct OnlineSoftmax {
  static constexpr int kRows = Products::kRows;
  using Layout = Fragments<kRows>;
  float base[kRows], total[kRows];  // -m; the lane's part of l

  __device__ OnlineSoftmax() {
#pragma unroll
    for (int r = 0; r < kRows; ++r) base[r] = INFINITY, total[r] = 0.0f;
  }

  // From scores to weights; what is summed so far is to be multiplied by `shrink`, exactly 1 where
  // m stays.
  template <int kTiles>
  __device__ __forceinline__ void weights(float (&score)[kTiles][4], float scale,
                                          float (&shrink)[kRows]) {
    float high[kRows], from[kRows], sum[kRows] = {};
#pragma unroll
    for (int r = 0; r < kRows; ++r) high[r] = -INFINITY;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int r = Layout::row_of(n, i);
        high[r] = fmaxf(high[r], score[n][i]);
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int lanes = 1; lanes < Layout::kLanes; lanes *= 2) {
        high[r] = fmaxf(high[r], ptx::shfl_xor(high[r], lanes));
      }
      const float next = fminf(base[r], -(high[r] * scale));
      from[r] = next == INFINITY ? 0.0f : next;  // nothing but -infinity yet: weights of 0
      shrink[r] = Products::power(from[r] - base[r]);
      base[r] = next;
    }
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int r = Layout::row_of(n, i);
        score[n][i] = Products::power(fmaf(score[n][i], scale, from[r]));
        sum[r] += score[n][i];
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) total[r] = fmaf(total[r], shrink[r], sum[r]);
  }

  // 1 / l of the lane's r-th row
  __device__ float inverse(int r) const {
    float sum = total[r];
#pragma unroll
    for (int lanes = 1; lanes < Layout::kLanes; lanes *= 2) sum += ptx::shfl_xor(sum, lanes);
    return 1.0f / sum;
  }
};

template <class T, int kHeadDim, int kCopy>
__global__ void __launch_bounds__(128, kHeadDim ? 3 : 2) attention(const Attention a) {
  using Tiles = AttentionTiles<T, kHeadDim>;
  constexpr int kQueries = Tiles::kQueries, kKeys = Tiles::kKeys, kWidth = Tiles::kWidth;
  using Products = AttentionProducts<T, kWidth, kKeys, kCopy>;
  constexpr int kRows = Products::kRows;
  using Layout = Fragments<kRows>;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int head_dim = kHeadDim ? kHeadDim : static_cast<int>(a.head_dim);
  const int length = static_cast<int>(a.length), wanted = static_cast<int>(a.wanted);
  const int heads = static_cast<int>(a.heads), block = static_cast<int>(blockIdx.x);
  const int blocks = (wanted + kQueries - 1) / kQueries;  // of a head
  const int first = block % blocks * kQueries, head = block / blocks % heads;
  const int64_t image = block / blocks / heads;
  const T* qkv = static_cast<const T*>(a.qkv) + image * a.batch_stride + head * a.head_stride;

  int query[kRows], sees[kRows];  // so many keys; none where there is no such query
  const T* rows[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    query[r] = first + 16 * warp + Layout::row(lane, r);
    int64_t position = query[r] < wanted ? query[r] : -1;
    if (a.queries && query[r] < wanted) position = a.queries[image * wanted + query[r]];
    const bool exists = position >= 0 && position < length;
    sees[r] = !exists ? 0 : a.causal ? static_cast<int>(position) + 1 : length;
    rows[r] = qkv + (exists ? position * a.position_stride : 0);
  }
  int fewest = sees[0];
#pragma unroll
  for (int r = 1; r < kRows; ++r) fewest = sees[r] < fewest ? sees[r] : fewest;

  auto tile = [](int i) {  // keys of two stages, then values
    unsigned char* at = ptx::shared_memory() + i * Tiles::Keys::kBytes;
    return typename Tiles::Keys{reinterpret_cast<T*>(at)};
  };
  const Matrix<T> k{qkv + a.part_stride, length, head_dim, a.position_stride};
  const Matrix<T> v{qkv + 2 * a.part_stride, length, head_dim, a.position_stride};
  // without a list, no query of the block sees past its last
  const bool cut = a.causal && !a.queries && first + kQueries < length;
  const int steps = ((cut ? first + kQueries : length) + kKeys - 1) / kKeys;
  auto copy = [&](int step) {
    if (step < steps) {
      copy_rows<kCopy>(tile(step % 2), k, step * kKeys);
      copy_rows<kCopy>(tile(2 + step % 2), v, step * kKeys);
    }
    ptx::cp_async_commit_group();
  };

  copy(0);
  const Products products(rows, sees, head_dim, lane);
  OnlineSoftmax<Products> softmax;
  float out[kWidth / 8][4] = {};
  for (int step = 0; step < steps; ++step) {
    ptx::cp_async_wait_group<0>();
    ptx::bar_sync();  // this step's tiles have arrived for all; all are done with the last step's
    copy(step + 1);
    float score[kKeys / 8][4] = {}, shrink[kRows];
    products.multiply(tile(step % 2), score);
    if ((step + 1) * kKeys > fewest) {
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int key = step * kKeys + Products::key(lane, n, i);
          if (key >= sees[Layout::row_of(n, i)]) score[n][i] = -INFINITY;
        }
      }
    }
    softmax.weights(score, a.scale * Products::kUnit, shrink);
#pragma unroll
    for (int n = 0; n < kWidth / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) out[n][i] *= shrink[Layout::row_of(n, i)];
    }
    products.weigh(score, tile(2 + step % 2), out);
  }

#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float inverse = softmax.inverse(r);
    T* to = static_cast<T*>(a.out) + ((image * wanted + query[r]) * heads + head) * head_dim;
#pragma unroll
    for (int n = r / 2; n < kWidth / 8; n += kRows / 2) {
      const int d = Layout::column(lane, n);
      const float* pair = out[n] + r % 2 * 2;
      store_pair<kCopy>(to + d, pair[0] * inverse, pair[1] * inverse,
                        query[r] < wanted ? head_dim - d : 0);
    }
  }
}

}  // namespace marfast::cuda
