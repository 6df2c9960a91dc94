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

#include "cuda/lane.cuh"
#include "cuda/launch_shape.h"
#include "cuda/ops.h"
#include "cuda/tile.cuh"
#include "marfast/exp.h"

namespace marfast::cuda {

// x[n][i] of a lane is of its row row_of(n, i) and column(n) + i % 2.
template <int kRows>
struct Fragments {
  static constexpr int kLanes = 2 * kRows;  // that share rows
  // the r-th of the lane's, among the warp's 16
  __device__ static int row(int lane, int r) { return lane / kLanes + 16 / kRows * r; }
  __device__ static constexpr int row_of(int n, int i) { return n % (kRows / 2) * 2 + i / 2; }
  __device__ static int column(int lane, int n) {
    return n / (kRows / 2) * 4 * kRows + lane % kLanes * 2;
  }
};

// bfloat16 and float16: Q and P in registers, by mma.sync.
template <class T, int kWidth, int kKeys, int kCopy>
class AttentionProducts {
 public:
  static constexpr int kRows = 2;
  static constexpr float kUnit = 1.44269504f;  // log2(e): powers are of 2
  using Keys = Tile<T, kKeys, kWidth>;

  __device__ static float power(float x) { return ptx::ex2_approx_ftz(x); }

  __device__ static int key(int lane, int n, int i) {
    return Fragments<kRows>::column(lane, n) + i % 2;
  }

  // rows: of Q; those that see no key are not read
  __device__ AttentionProducts(const T* const (&rows)[kRows], const int (&sees)[kRows],
                               int head_dim, int lane)
      : head_dim_(head_dim), lane_(lane) {
#pragma unroll
    for (int k = 0; k < kWidth / 16; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int r = i % 2, d = 16 * k + 8 * (i / 2) + lane % 4 * 2;
        q_[k][i] = pair(rows[r] + d, sees[r] > 0 ? head_dim - d : 0);
      }
    }
  }

  // score = Q K^T
  __device__ void multiply(const Keys& keys, float (&score)[kKeys / 8][4]) const {
#pragma unroll
    for (int k = 0; k < kWidth / 16; ++k) {
      if (16 * k >= head_dim_) break;
#pragma unroll
      for (int n = 0; n < kKeys / 8; n += 2) {
        uint32_t b[4];
        ptx::ldmatrix_x4(b,
                         keys.at(8 * n + lane_ / 16 * 8 + lane_ % 8, 16 * k + lane_ / 8 % 2 * 8));
        ptx::mma_m16n8k16(score[n], q_[k], {b[0], b[1]}, T{});
        ptx::mma_m16n8k16(score[n + 1], q_[k], {b[2], b[3]}, T{});
      }
    }
  }

  // out += P V
  __device__ void weigh(const float (&p)[kKeys / 8][4], const Keys& values,
                        float (&out)[kWidth / 8][4]) const {
#pragma unroll
    for (int k = 0; k < kKeys / 8; k += 2) {
      const uint32_t a[4] = {ptx::cvt_rn_x2(p[k][0], p[k][1], T{}),
                             ptx::cvt_rn_x2(p[k][2], p[k][3], T{}),
                             ptx::cvt_rn_x2(p[k + 1][0], p[k + 1][1], T{}),
                             ptx::cvt_rn_x2(p[k + 1][2], p[k + 1][3], T{})};
#pragma unroll
      for (int n = 0; n < kWidth / 8; n += 2) {
        if (8 * n >= head_dim_) break;
        uint32_t b[4];
        ptx::ldmatrix_x4_trans(b, values.at(8 * k + lane_ % 16, 8 * n + lane_ / 16 * 8));
        ptx::mma_m16n8k16(out[n], a, {b[0], b[1]}, T{});
        ptx::mma_m16n8k16(out[n + 1], a, {b[2], b[3]}, T{});
      }
    }
  }

 private:
  // Two elements side by side, those past `count` 0.
  __device__ static uint32_t pair(const T* p, int count) {
    if constexpr (kCopy == 16) {
      return count > 0 ? *reinterpret_cast<const uint32_t*>(p) : 0;
    } else {
      return (count > 0 ? p[0].bits : 0u) | (count > 1 ? p[1].bits : 0u) << 16;
    }
  }

  uint32_t q_[kWidth / 16][4];
  int head_dim_, lane_;
};

// float32: Q from L1, P by shuffles, FMA chains.
template <int kWidth, int kKeys, int kCopy>
class AttentionProducts<float, kWidth, kKeys, kCopy> {
 public:
  static constexpr int kRows = 4;
  static constexpr float kUnit = 1.0f;
  using Keys = Tile<float, kKeys, kWidth>;

  __device__ static float power(float x) { return exp(Lane(x)).value; }

  // keys of neighbouring lanes are neighbours: rows of a tile without bank conflicts
  __device__ static int key(int lane, int n, int i) { return n / 2 * 16 + i % 2 * 8 + lane % 8; }

  __device__ AttentionProducts(const float* const (&rows)[kRows], const int (&sees)[kRows],
                               int head_dim, int lane)
      : rows_{rows[0], rows[1], rows[2], rows[3]},
        sees_{sees[0], sees[1], sees[2], sees[3]},
        head_dim_(head_dim),
        lane_(lane) {}

  __device__ void multiply(const Keys& keys, float (&score)[kKeys / 8][4]) const {
#pragma unroll(kWidth > 80 && kCopy == 16 ? 1 : 2)
    for (int d = 0; d < head_dim_; d += 4) {
      float q[kRows][4];
#pragma unroll
      for (int r = 0; r < kRows; ++r) four(rows_[r] + d, sees_[r] > 0 ? head_dim_ - d : 0, q[r]);
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j) {  // 8 j + lane % 8
        const ptx::Vec4 k = ptx::ld_shared_v4(keys.at(8 * j + lane_ % 8, d));
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          float& sum = score[j / 2 * 2 + r / 2][r % 2 * 2 + j % 2];
#pragma unroll
          for (int e = 0; e < 4; ++e) sum = fmaf(q[r][e], from_bits(k.v[e]), sum);
        }
      }
    }
  }

  __device__ void weigh(const float (&p)[kKeys / 8][4], const Keys& values,
                        float (&out)[kWidth / 8][4]) const {
    constexpr int kGroup = kWidth > 80 ? 64 : kWidth;  // columns at a time
#pragma unroll
    for (int group = 0; group < kWidth; group += kGroup) {
      float sum[kGroup / 8][4] = {};
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll 2
        for (int from = 0; from < 8; ++from) {
          float weight[kRows];
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            weight[r] =
                ptx::shfl_idx(p[j / 2 * 2 + r / 2][r % 2 * 2 + j % 2], lane_ / 8 * 8 + from);
          }
#pragma unroll
          for (int n = 0; n < kGroup / 8; n += 2) {
            if (group + 8 * n >= head_dim_) break;
            const int column = group + Fragments<kRows>::column(lane_, n);
            const float first = *values.at(8 * j + from, column);
            const float second = *values.at(8 * j + from, column + 1);
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
              float* at = sum[n + r / 2] + r % 2 * 2;
              at[0] = fmaf(weight[r], first, at[0]);
              at[1] = fmaf(weight[r], second, at[1]);
            }
          }
        }
      }
#pragma unroll
      for (int n = 0; n < kGroup / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) out[group / 8 + n][i] += sum[n][i];
      }
    }
  }

 private:
  // Four elements side by side, those past `count` 0.
  __device__ static void four(const float* p, int count, float (&to)[4]) {
    if constexpr (kCopy == 16) {
      const ptx::Vec4 v = count > 0 ? ptx::ld_global_v4(p) : ptx::Vec4{};
      for (int e = 0; e < 4; ++e) to[e] = from_bits(v.v[e]);
    } else {
      for (int e = 0; e < 4; ++e) to[e] = e < count ? p[e] : 0.0f;
    }
  }

  const float* rows_[kRows];
  int sees_[kRows];
  int head_dim_, lane_;
};

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
    to.template load<kCopy>(from, first, 0, 128);
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
