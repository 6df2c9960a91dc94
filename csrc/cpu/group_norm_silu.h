#pragma once

// group_norm_silu: GroupNorm over the C / G channels of a group at all P positions of an image, and
// SiLU after it where it is asked for, in float32.
//
//   mean = sum(x) / (P C / G)
//   rstd = 1 / sqrt(sum((x - mean)^2) / (P C / G) + eps)
//   out  = SiLU(((x - mean) rstd) weight + bias)
//
// Channels last: lanes run across channels, whose last vector is partial. Both sums are made of the
// moments of chunks of 64 positions (the last may have fewer). In chunk i, of n_i numbers:
//
//   s_i = over the group's channels in order, from 0, the sum over the positions in order, from 0
//   q_i = the same of (x - s_i / n_i)^2
//   sum(x) = sum(s_i),  sum((x - mean)^2) = sum(q_i + n_i (s_i / n_i - mean)^2)
//
// where a sum over chunks runs as lane_sum.h says. Every product, sum, quotient and root is rounded
// on its own; no FMA outside SiLU. So the bits depend on no number of threads and on no other image
// of the batch. bf16 and f16 are read to float32 exactly and written by rounding to nearest even.
//
// Threads share the chunks. Each is read once from memory for both of its moments (64 C numbers
// stay in L2) and once more, last chunks first, for the result. Bytes moved: 3 B P C s, s =
// sizeof(dtype), less what of x still is in cache; the floor is that over the memory's bandwidth.

#include "lane_sum.h"
#include "marfast/ops.h"
#include "marfast/silu.h"
#include "parallel.h"

namespace marfast {

constexpr int64_t kChunk = 64;  // positions; known to marfast/ops/group_norm_silu.py

template <class V, class T>
class GroupNormSiluThread {
 public:
  GroupNormSiluThread(const GroupNormSilu& a, const Team& team)
      : a_(a),
        team_(team),
        of_group_(a.channels / a.groups),
        counts_(a.moments),
        sums_(counts_ + a.images * a.groups * a.chunks),
        squares_(sums_ + a.images * a.groups * a.chunks),
        means_(a.group_moments),
        rstds_(means_ + a.images * a.channels),
        totals_(a.scratch + team.thread * 2 * a.channels),
        centres_(totals_ + a.channels) {}

  void run() const {
    const Range chunks = team_.share(a_.images * a_.chunks);
    for (int64_t i = chunks.begin; i < chunks.end; ++i) take_moments(i);
    team_.barrier();
    const Range groups = team_.share(a_.images * a_.groups);
    for (int64_t i = groups.begin; i < groups.end; ++i) combine(i);
    team_.barrier();
    for (int64_t i = chunks.end; i > chunks.begin; --i) normalise(i - 1);
  }

 private:
  // Chunk i of B * chunks: its image, where it begins in x and out, how many positions it has.
  struct Chunk {
    int64_t image, index, begin, count;
  };

  Chunk chunk(int64_t i) const {
    const int64_t image = i / a_.chunks, index = i % a_.chunks;
    const int64_t first = index * kChunk, left = a_.positions - first;
    return {image, index, (image * a_.positions + first) * a_.channels,
            left < kChunk ? left : kChunk};
  }

  // each(c, n): the channels c ... c + n - 1, a vector at most. All but the last get a constant n,
  // which makes their loads and stores plain ones.
  template <class Each>
  void for_channels(Each each) const {
    int64_t c = 0;
    for (; c + V::lanes <= a_.channels; c += V::lanes) each(c, V::lanes);
    if (c < a_.channels) each(c, a_.channels - c);
  }

  // totals[c] = over a chunk's positions in order, from 0, the sum of value(c, n, x's lanes). With
  // `ahead`, the next chunk is on its way from memory meanwhile.
  template <bool ahead, class Value>
  void total(const Chunk& of, Value value) const {
    constexpr int kVectors = 8;  // 128 channels: their sums stay in registers
    const T* x = static_cast<const T*>(a_.x) + of.begin;  // [count, C]
    int64_t c = 0;
    for (; c + kVectors * V::lanes <= a_.channels; c += kVectors * V::lanes) {
      V sum[kVectors];
      for (V& s : sum) s = V(0.0f);
      for (int64_t p = 0; p < of.count; ++p) {
        for (int k = 0; k < kVectors; ++k) {
          const int64_t at = c + k * V::lanes;
          const T* place = x + p * a_.channels + at;
          if (ahead) __builtin_prefetch(place + kChunk * a_.channels);
          sum[k] = sum[k] + value(at, V::lanes, V::load(place, V::lanes));
        }
      }
      for (int k = 0; k < kVectors; ++k) sum[k].store(totals_ + c + k * V::lanes, V::lanes);
    }
    for (; c < a_.channels; c += V::lanes) {
      const int64_t n = a_.channels - c < V::lanes ? a_.channels - c : V::lanes;
      V sum(0.0f);
      for (int64_t p = 0; p < of.count; ++p) {
        sum = sum + value(c, n, V::load(x + p * a_.channels + c, n));
      }
      sum.store(totals_ + c, n);
    }
  }

  float total_of_group(int64_t group) const {
    float sum = 0.0f;
    for (int64_t c = 0; c < of_group_; ++c) sum = sum + totals_[group * of_group_ + c];
    return sum;
  }

  void take_moments(int64_t i) const {
    const Chunk of = chunk(i);
    const float count = static_cast<float>(of.count * of_group_);
    total<false>(of, [](int64_t, int64_t, V x) { return x; });
    for (int64_t g = 0; g < a_.groups; ++g) {
      const int64_t place = (of.image * a_.groups + g) * a_.chunks + of.index;
      const float sum = total_of_group(g);
      counts_[place] = count;
      sums_[place] = sum;
      for (int64_t c = 0; c < of_group_; ++c) centres_[g * of_group_ + c] = sum / count;
    }
    total<true>(of, [&](int64_t c, int64_t n, V x) {
      const V centred = x - V::load(centres_ + c, n);
      return centred * centred;
    });
    for (int64_t g = 0; g < a_.groups; ++g) {
      squares_[(of.image * a_.groups + g) * a_.chunks + of.index] = total_of_group(g);
    }
  }

  // Group i of B * G: its mean and rstd, for each of its channels.
  void combine(int64_t i) const {
    const float* counts = counts_ + i * a_.chunks;  // [chunks], as the next two
    const float* sums = sums_ + i * a_.chunks;
    const float* squares = squares_ + i * a_.chunks;
    const V one(1.0f), all(static_cast<float>(a_.positions * of_group_));
    const V sum(lane_sum<V>(a_.chunks, [=](int64_t j, int64_t n) { return V::load(sums + j, n); }));
    const V mean = sum / all;
    const V square(lane_sum<V>(a_.chunks, [=](int64_t j, int64_t n) {
      const V count = V::load(counts + j, n), off = V::load(sums + j, n) / count - mean;
      return (V::load(squares + j, n) + count * (off * off)).first(n);
    }));
    const V rstd = one / sqrt(square / all + V(a_.eps));
    for (int64_t c = 0; c < of_group_; ++c) {
      mean.store(means_ + i * of_group_ + c, 1);
      rstd.store(rstds_ + i * of_group_ + c, 1);
    }
  }

  void normalise(int64_t i) const {
    const Chunk of = chunk(i);
    const T* x = static_cast<const T*>(a_.x) + of.begin;   // [count, C]
    T* out = static_cast<T*>(a_.out) + of.begin;           // [count, C]
    const T* weight = static_cast<const T*>(a_.weight);    // [C]
    const T* bias = static_cast<const T*>(a_.bias);        // [C]
    const float* means = means_ + of.image * a_.channels;  // [C]
    const float* rstds = rstds_ + of.image * a_.channels;  // [C]
    for (int64_t p = 0; p < of.count; ++p, x += a_.channels, out += a_.channels) {
      for_channels([&](int64_t c, int64_t n) {
        V y = (V::load(x + c, n) - V::load(means + c, n)) * V::load(rstds + c, n);
        y = y * V::load(weight + c, n) + V::load(bias + c, n);
        (a_.silu ? silu(y) : y).store(out + c, n);
      });
    }
  }

  const GroupNormSilu& a_;
  const Team& team_;
  const int64_t of_group_;                              // channels of a group: C / G
  float *const counts_, *const sums_, *const squares_;  // [B, G, chunks]: n_i, s_i, q_i
  float *const means_, *const rstds_;                   // [B, C]
  float *const totals_, *const centres_;                // [C], this thread's own
};

template <class V, class T>
void group_norm_silu_on_a_team(const GroupNormSilu& a) {
  run_team(a.threads, [&a](const Team& team) { GroupNormSiluThread<V, T>(a, team).run(); });
}

template <class V, class>
void group_norm_silu(const GroupNormSilu& a) {
  switch (a.dtype) {
    case DType::f32:
      return group_norm_silu_on_a_team<V, float>(a);
    case DType::bf16:
      return group_norm_silu_on_a_team<V, bfloat16>(a);
    case DType::f16:
      return group_norm_silu_on_a_team<V, float16>(a);
  }
}

}  // namespace marfast
