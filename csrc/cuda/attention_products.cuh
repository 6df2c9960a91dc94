#pragma once

// The two products of attention, a warp's 16 queries by a tile's keys: score = Q K^T, and the sums
// of P V, in fragments that lie as attention.cuh says.

#include "cuda/lane.cuh"
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

}  // namespace marfast::cuda
