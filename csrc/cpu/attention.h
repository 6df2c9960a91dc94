#pragma once

// attention: softmax(Q K^T / sqrt(hd)) V from a packed projection qkv [B, L, 3, H, hd], of all
// positions or of `queries` alone.
//
// Order of operations, in float32 (half precision is read exactly and rounded once, at the end):
//
//   s   = (q scale) K^T          as linear.h, k along hd
//   p   = exp(s - max s)         of the keys that a query sees
//   out = (p V) / sum(p)         p V as linear.h, k along the keys; the sum as lane_sum.h
//
// So the bits of a query's result depend on no other query, and on no number of threads.
//
// Threads share the heads of all images. Keys and values are copied once a head, as tiles (tile.h)
// read weights: [vectors of keys][hd] and [vectors of hd][L]. Queries are taken some at a time, so
// that their scores stay in L2. Bytes moved: qkv and out once; flops: 4 B H Lq L hd, the floor.

#include "attention_scratch.h"
#include "lane_sum.h"
#include "marfast/exp.h"
#include "marfast/ops.h"
#include "parallel.h"
#include "tile.h"

namespace marfast {

template <class V, class T>
class AttentionThread {
  using F = Float32<V>;
  static constexpr int64_t kVecs = vectors_a_tile<F>, kColumns = kVecs * V::lanes;  // of a tile
  static constexpr int64_t kQueries = 4 * F::max_rows;  // taken at a time
  static constexpr int64_t kAhead = 8;  // positions brought nearer before their turn
  static_assert(kQueries <= kMostQueries, "their scores have to fit");

 public:
  AttentionThread(const TeamAttention& a, const Team& team)
      : a_(a),
        heads_(team.share(a.batch * a.heads)),
        keys_(a.workspace + team.thread * a.scratch),
        values_(keys_ + padded(a.length) * padded(a.head_dim)),
        scores_(values_ + a.length * padded(a.head_dim)),
        queries_(scores_ + kMostQueries * padded(a.length)),
        sums_(queries_ + kMostQueries * padded(a.head_dim)) {}

  void run() {
    for (int64_t i = heads_.begin; i < heads_.end; ++i) {
      batch_ = i / a_.heads, head_ = i % a_.heads;
      for (int64_t j = 0; j < a_.length; ++j) {
        const int64_t ahead = j + kAhead < a_.length ? j + kAhead : j;
        for (int64_t which = 0; which < 3; ++which) bring_nearer(part(which, ahead));
        take_key(j);
        take_value(j);
      }
      for (int64_t q = 0; q < a_.wanted; q += kQueries) {
        attend(q, a_.wanted - q < kQueries ? a_.wanted - q : kQueries);
      }
    }
  }

 private:
  const T* part(int64_t which, int64_t position) const {
    return static_cast<const T*>(a_.qkv) + batch_ * a_.batch_stride +
           position * a_.position_stride + which * a_.part_stride + head_ * a_.head_stride;
  }
  int64_t position_of(int64_t query) const {
    return a_.queries ? a_.queries[batch_ * a_.wanted + query] : query;
  }
  int64_t seen(int64_t query) const {  // how many keys
    return a_.causal ? position_of(query) + 1 : a_.length;
  }

  void bring_nearer(const T* row) const {
    const int64_t line = 64 / sizeof(T);
    for (int64_t j = 0; j < a_.head_dim; j += line) __builtin_prefetch(row + j);
  }

  // Each `count` numbers of a row of qkv from j on: to take(j, count, value).
  template <class Take>
  void each(const T* row, Take take) const {
    for (int64_t j = 0; j < a_.head_dim; j += V::lanes) {
      const int64_t left = a_.head_dim - j, count = left < V::lanes ? left : V::lanes;
      take(j, count, V::load(row + j, count));
    }
  }

  void take_key(int64_t key) {
    float* column = keys_ + key / kColumns * kColumns * a_.head_dim + key % kColumns;
    each(part(1, key), [=](int64_t j, int64_t count, V value) {
      float numbers[V::lanes];
      value.store(numbers, V::lanes);
      for (int64_t i = 0; i < count; ++i) column[(j + i) * kColumns] = numbers[i];
    });
  }

  void take_value(int64_t key) {
    each(part(2, key), [=](int64_t j, int64_t, V value) {
      const int64_t tile = j / kColumns * kColumns;
      value.store(values_ + tile * a_.length + key * kColumns + j - tile, V::lanes);
    });
  }

  // x [rows, x_stride] by weights [tiles of `columns`][inputs] -> out [rows, stride].
  void product(int64_t rows, const float* x, int64_t x_stride, const float* weights, int64_t inputs,
               int64_t columns, float* out, int64_t stride) const {
    const int64_t groups = (rows + F::max_rows - 1) / F::max_rows;
    for (int64_t j = 0; j < columns; j += kColumns) {
      for (int64_t k = 0; k < inputs; k += F::block) {
        const int64_t left = inputs - k, count = left < F::block ? left : F::block;
        const char* block = reinterpret_cast<const char*>(weights + j * inputs + k * kColumns);
        for (int64_t g = 0; g < groups; ++g) {
          const int64_t r = rows * g / groups, some = rows * (g + 1) / groups - r;
          block_rows<V, F>(some, x + r * x_stride + k, x_stride, block, count, k == 0,
                           out + r * stride + j, stride);
        }
      }
    }
  }

  void attend(int64_t first, int64_t count) {
    const int64_t dims = padded(a_.head_dim), keys = padded(a_.length);
    for (int64_t r = 0; r < count; ++r) {
      each(part(0, position_of(first + r)), [=](int64_t j, int64_t, V value) {
        (value * V(a_.scale)).store(queries_ + r * dims + j, V::lanes);
      });
    }
    product(count, queries_, dims, keys_, a_.head_dim, a_.length, scores_, keys);
    float most[kQueries], sums[kQueries];
    for (int64_t r = 0; r < count; ++r) most[r] = largest(scores_ + r * keys, seen(first + r));
    for (int64_t r = 0; r < count; ++r) {
      sums[r] = weigh(scores_ + r * keys, seen(first + r), V(most[r]));
    }
    product(count, scores_, keys, values_, a_.length, a_.head_dim, sums_, dims);
    for (int64_t r = 0; r < count; ++r) {
      T* out = static_cast<T*>(a_.out) +
               ((batch_ * a_.wanted + first + r) * a_.heads + head_) * a_.head_dim;
      for (int64_t j = 0; j < a_.head_dim; j += V::lanes) {
        const int64_t left = a_.head_dim - j, valid = left < V::lanes ? left : V::lanes;
        (V::load(sums_ + r * dims + j, V::lanes) / V(sums[r])).store(out + j, valid);
      }
    }
  }

  // Scores of `seen` keys -> their weights, 0 of the other keys; the weights' sum.
  float weigh(float* scores, int64_t seen, V most) const {
    const float sum = lane_sum<V>(seen, [=](int64_t j, int64_t count) {
      const V weight = exp(V::load(scores + j, count) - most).first(count);
      weight.store(scores + j, count);
      return weight;
    });
    for (int64_t j = seen; j < a_.length; ++j) scores[j] = 0.0f;
    return sum;
  }

  static float largest(const float* numbers, int64_t size) {
    float each[V::lanes];
    for (int64_t i = 0; i < V::lanes; ++i) each[i] = numbers[i < size ? i : 0];
    if (size > V::lanes) {
      V lanes = V::load(numbers + size - V::lanes, V::lanes);
      for (int64_t j = 0; j + V::lanes < size; j += V::lanes) {
        lanes = max(lanes, V::load(numbers + j, V::lanes));
      }
      lanes.store(each, V::lanes);
    }
    for (int64_t half = V::lanes / 2; half > 0; half /= 2) {
      for (int64_t i = 0; i < half; ++i)
        each[i] = each[i] < each[i + half] ? each[i + half] : each[i];
    }
    return each[0];
  }

  const TeamAttention& a_;
  const Range heads_;
  float *const keys_, *const values_, *const scores_, *const queries_, *const sums_;
  int64_t batch_ = 0, head_ = 0;
};

template <class V, class>
void attention(const TeamAttention& a) {
  run_team(a.threads, [&a](const Team& team) {
    switch (a.dtype) {
      case DType::f32:
        return AttentionThread<V, float>(a, team).run();
      case DType::bf16:
        return AttentionThread<V, bfloat16>(a, team).run();
      case DType::f16:
        return AttentionThread<V, float16>(a, team).run();
    }
  });
}

}  // namespace marfast
