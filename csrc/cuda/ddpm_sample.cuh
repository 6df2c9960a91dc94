#pragma once

// ddpm_sample, persistent: all S steps of the head in one cooperative kernel.
//
//   T, c, M as csrc/cpu/head_pass.h; step s: x = input_proj(state); blocks;
//   state = ddpm_step(state, final(modulate(LN(x))))
//
// CTA (p, q) of P x Q owns the rows share(R, P, p) and the outputs share(J, Q, q) of each product
// (plan.h). It takes row_tile rows into shared memory and `columns` outputs at a time; one (row,
// output, block of k) is one chain, block sums meet in shared memory and are added in order:
//   fp32        a thread a chain, blocks of 256, one FMA after another: docs/numerics.md, to the
//   bit bf16, fp16  a warp 16 outputs (m) x 8 rows (n) of a block of 128, mma.sync m16n8k16
// so the bits depend on neither P, Q, tile nor batch. Weights of the first `stationary` products
// stay in shared memory; others are copied by cp.async, begun before the barrier that they hide
// behind, or read in L2 where there is no room. Token n's final layer, update and next input are
// CTA n % PQ's.
//
// Barriers a step: 2 d + 1, or 3 d + 1 where rows are normalised once; 2 more a chunk of steps.
// Bytes moved and floor: plan.h.

#include "cuda/grid_barrier.cuh"
#include "cuda/layer_norm_modulate.cuh"
#include "cuda/plan.h"
#include "marfast/silu.h"

namespace marfast::cuda {

struct PersistentSample {
  float* out;                  // [N, C]
  const float* noise;          // [N, C]
  const float* step_noise;     // [S, N, C]
  const void* condition;       // [R, D] of dtype
  const void* time_embedding;  // [S, frequencies] of dtype
  const void* const* weights;  // the 12 + 8 d tensors of the state_dict, of dtype, dense
  const float* schedule;       // [S, 7]
  const float* guidance;       // [1], read only when guided
  float* time;                 // [S, w] to work in, as all below
  float* embedded;             // [R, w]
  float* x;                    // [R, w]
  float* modulation;           // [chunk, R, (3 d + 2) w]
  float* state;                // [N, C]
  void* time_hidden;           // [S, w] of dtype, as the next three
  void* activated;             // [chunk, R, w]
  void* normed;                // [R, w]
  void* hidden;                // [R, w]
  GridBarrierWords* barrier;
  HeadShape shape;
  int64_t tokens;  // N
  int64_t steps;   // S
  int64_t chunk;
  int64_t step_noise_stride;
  uint64_t limit_ns;
  int row_groups, column_groups, row_tile, columns, stationary;  // of the plan, as the next two
  bool staged, normalise_once;
  bool guided;
  float temperature;
  bool clip_denoised;
};

constexpr int kSampleThreads = 256;

struct Span {
  int64_t begin, end;
};

template <class T>
class PersistentSampler {
  static constexpr bool kFloat = sizeof(T) == 4;
  static constexpr DType kDType = kFloat ? DType::f32 : DType::bf16;  // or f16: the same sizes
  static constexpr int64_t kBlock = product_block(kDType);
  static constexpr float kEps = 1e-6f;

 public:
  __device__ explicit PersistentSampler(const PersistentSample& a)
      : a_(a),
        rows_(a.guided ? 2 * a.tokens : a.tokens),
        layout_(a.shape, kDType, a.row_tile, a.columns),
        pitch_(layout_.pitch),
        weight_pitch_(layout_.weight_pitch),
        ctas_(gridDim.x),
        cta_(blockIdx.x),
        barrier_(a.barrier, reinterpret_cast<uint32_t*>(ptx::shared_memory()), a.limit_ns) {
    unsigned char* at = ptx::shared_memory() + SharedLayout::kHeader;
    tile_ = reinterpret_cast<T*>(at);
    sums_ = reinterpret_cast<float*>(at += layout_.tile);
    output_ = reinterpret_cast<float*>(at += layout_.sums);
    slots_ = reinterpret_cast<T*>(at += layout_.output);
  }

  __device__ void run() {
    const int64_t w = a_.shape.width, d = a_.shape.depth;
    for (int i = 0; i < a_.stationary; ++i) fetch(i, i);
    if (a_.staged && a_.stationary < 2 * d) fetch(static_cast<int>(a_.stationary), a_.stationary);
    product(
        0, static_cast<const T*>(a_.time_embedding), a_.shape.frequencies, a_.steps, w,
        [&](int64_t r, int64_t j, Lane y) { silu(y).store(elements(a_.time_hidden) + r * w + j); });
    product(4, static_cast<const T*>(a_.condition), a_.shape.condition, rows_, w,
            [&](int64_t r, int64_t j, Lane y) { y.store(a_.embedded + r * w + j); });
    for (int64_t n = cta_; n < a_.tokens; n += ctas_) {
      for (int64_t j = threadIdx.x; j < a_.shape.channels; j += kSampleThreads) {
        a_.state[n * a_.shape.channels + j] = a_.noise[n * a_.shape.channels + j];
      }
      input(n);
    }
    if (!barrier_.wait()) return;
    product(2, elements(a_.time_hidden), w, a_.steps, w,
            [&](int64_t r, int64_t j, Lane y) { y.store(a_.time + r * w + j); });
    if (!barrier_.wait()) return;
    for (int64_t s = 0; s < a_.steps; ++s) {
      if (s % a_.chunk == 0 && !modulate(s)) return;
      for (int64_t b = 0; b < d; ++b) {
        if (!block(s % a_.chunk * rows_, b)) return;
      }
      for (int64_t n = cta_; n < a_.tokens; n += ctas_) end_token(s, n);
      if (s + 1 < a_.steps && !barrier_.wait()) return;
    }
  }

 private:
  static __device__ T* elements(void* p) { return static_cast<T*>(p); }
  __device__ const T* weight(int64_t i) const { return static_cast<const T*>(a_.weights[i]); }
  __device__ Span own_rows(int64_t rows) const {
    const int64_t p = cta_ / a_.column_groups, n = a_.row_groups;
    return {rows * p / n, rows * (p + 1) / n};
  }
  __device__ Span own_outputs(int64_t outputs) const {
    const int64_t q = cta_ % a_.column_groups, n = a_.column_groups;
    return {outputs * q / n, outputs * (q + 1) / n};
  }
  __device__ int64_t modulation_width() const { return (3 * a_.shape.depth + 2) * a_.shape.width; }

  // Starts the copy of this CTA's weights of one of the 2 d products to a slot.
  __device__ void fetch(int product, int64_t slot) {
    const int64_t w = a_.shape.width, each = 16 / sizeof(T), across = w / each;
    const Span own = own_outputs(w);
    const T* from = weight(8 + 8 * (product / 2) + 2 + 2 * (product % 2)) + own.begin * w;
    T* to = slots_ + slot * a_.columns * weight_pitch_;
    for (int64_t i = threadIdx.x; i < (own.end - own.begin) * across; i += kSampleThreads) {
      const int64_t j = i / across, k = i % across * each;
      ptx::cp_async_16(to + j * weight_pitch_ + k, from + j * w + k);
    }
    ptx::cp_async_commit_group();
  }

  __device__ void load(const T* x, int64_t stride, int64_t rows) {
    for (int64_t i = threadIdx.x; i < rows * stride; i += kSampleThreads) {
      tile_[i / stride * pitch_ + i % stride] = x[i];
    }
  }

  // Two neighbours of a row, zeros past its end.
  static __device__ uint32_t pair(const T* row, int64_t k, int64_t size) {
    if constexpr (kFloat) {
      return 0;
    } else {
      const uint32_t low = k < size ? row[k].bits : 0, high = k + 1 < size ? row[k + 1].bits : 0;
      return low | high << 16;
    }
  }

  // sums[block][row][output] of the tile's first `rows` rows and `outputs` rows of W.
  __device__ void chains(int64_t rows, int64_t inputs, const T* w, int64_t w_stride,
                         int64_t outputs) {
    const int64_t blocks = divide_up(inputs, kBlock);
    if constexpr (kFloat) {
      for (int64_t i = threadIdx.x; i < blocks * rows * outputs; i += kSampleThreads) {
        const int64_t j = i % outputs, r = i / outputs % rows, b = i / outputs / rows;
        const int64_t end = (b + 1) * kBlock < inputs ? (b + 1) * kBlock : inputs;
        Lane sum(0.0f);
        for (int64_t k = b * kBlock; k < end; ++k) {
          sum = fma(Lane(tile_[r * pitch_ + k]), Lane(w[j * w_stride + k]), sum);
        }
        sums_[i] = sum.value;
      }
    } else {
      const int64_t across = divide_up(outputs, 16), down = divide_up(rows, 8);
      const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
      for (int64_t i = threadIdx.x / 32; i < blocks * across * down; i += kSampleThreads / 32) {
        const int64_t j0 = i % across * 16, r0 = i / across % down * 8, b = i / across / down;
        const int64_t end = (b + 1) * kBlock < inputs ? (b + 1) * kBlock : inputs;
        const T* low = w + clamp(j0 + g, outputs) * w_stride;
        const T* high = w + clamp(j0 + g + 8, outputs) * w_stride;
        const T* row = tile_ + clamp(r0 + g, rows) * pitch_;
        float sum[4] = {};
        for (int64_t k = b * kBlock + 2 * t; k < end + 2 * t; k += 16) {
          const uint32_t m[4] = {pair(low, k, end), pair(high, k, end), pair(low, k + 8, end),
                                 pair(high, k + 8, end)};
          const uint32_t n[2] = {pair(row, k, end), pair(row, k + 8, end)};
          ptx::mma_m16n8k16(sum, m, n, T{});
        }
        for (int e = 0; e < 4; ++e) {
          const int64_t j = j0 + g + e / 2 * 8, r = r0 + 2 * t + e % 2;
          if (j < outputs && r < rows) sums_[(b * rows + r) * outputs + j] = sum[e];
        }
      }
    }
  }

  static __device__ int64_t clamp(int64_t i, int64_t size) { return i < size ? i : size - 1; }

  // epilogue(row, j, y) of the tile's rows and the outputs `own` of a layer whose row own.begin of
  // weights is at w.
  template <class Epilogue>
  __device__ void multiply(int64_t rows, int64_t inputs, const T* w, int64_t w_stride,
                           const T* bias, Span own, Epilogue epilogue) {
    const int64_t blocks = divide_up(inputs, kBlock);
    ptx::bar_sync();  // the tile is whole
    for (int64_t j0 = own.begin; j0 < own.end; j0 += a_.columns) {
      const int64_t outputs = own.end - j0 < a_.columns ? own.end - j0 : a_.columns;
      chains(rows, inputs, w + (j0 - own.begin) * w_stride, w_stride, outputs);
      ptx::bar_sync();
      for (int64_t i = threadIdx.x; i < rows * outputs; i += kSampleThreads) {
        Lane sum(sums_[i]);
        for (int64_t b = 1; b < blocks; ++b) sum = sum + Lane(sums_[b * rows * outputs + i]);
        const int64_t j = j0 + i % outputs;
        epilogue(i / outputs, j, sum + Lane::load(bias + j));
      }
      ptx::bar_sync();
    }
  }

  // The layer of weights[at], at + 1, of this CTA's share of x [rows, inputs].
  template <class Epilogue>
  __device__ void product(int64_t at, const T* x, int64_t inputs, int64_t rows, int64_t outputs,
                          Epilogue epilogue) {
    const Span own = own_rows(rows), columns = own_outputs(outputs);
    for (int64_t r = own.begin; r < own.end; r += a_.row_tile) {
      const int64_t count = own.end - r < a_.row_tile ? own.end - r : a_.row_tile;
      load(x + r * inputs, inputs, count);
      multiply(count, inputs, weight(at) + columns.begin * inputs, inputs, weight(at + 1), columns,
               [&](int64_t i, int64_t j, Lane y) { epilogue(r + i, j, y); });
    }
  }

  // M of the steps step ... step + chunk - 1.
  __device__ bool modulate(int64_t step) {
    const int64_t w = a_.shape.width, d = a_.shape.depth, left = a_.steps - step;
    const int64_t pairs = (left < a_.chunk ? left : a_.chunk) * rows_;
    for (int64_t i = cta_ * kSampleThreads + threadIdx.x; i < pairs * w;
         i += ctas_ * kSampleThreads) {
      const int64_t p = i / w, j = i % w;
      silu(Lane(a_.time[(step + p / rows_) * w + j]) + Lane(a_.embedded[p % rows_ * w + j]))
          .store(elements(a_.activated) + i);
    }
    if (!barrier_.wait()) return false;
    for (int64_t b = 0; b <= d; ++b) {
      float* out = a_.modulation + 3 * w * b;
      product(b < d ? 14 + 8 * b : 10 + 8 * d, elements(a_.activated), w, pairs,
              b < d ? 3 * w : 2 * w,
              [&](int64_t p, int64_t j, Lane y) { y.store(out + p * modulation_width() + j); });
    }
    return barrier_.wait();
  }

  __device__ void normalise(int64_t first_pair, int64_t b, int64_t row, T* out) {
    const int64_t w = a_.shape.width;
    const float* shift = a_.modulation + (first_pair + row) * modulation_width() + 3 * w * b;
    const bool last = b == a_.shape.depth;
    layer_norm_modulate_row(static_cast<int>(threadIdx.x % 32), a_.x + row * w, shift, shift + w,
                            last ? nullptr : weight(8 + 8 * b), last ? nullptr : weight(9 + 8 * b),
                            w, kEps, [=](int64_t j, Lane y) { y.store(out + j); });
  }

  __device__ bool block(int64_t first_pair, int64_t b) {
    const int64_t w = a_.shape.width;
    if (a_.normalise_once) {
      for (int64_t r = cta_ + threadIdx.x / 32 * ctas_; r < rows_;
           r += ctas_ * (kSampleThreads / 32)) {
        normalise(first_pair, b, r, elements(a_.normed) + r * w);
      }
      if (!barrier_.wait()) return false;
    }
    half(
        2 * b,
        [&](int64_t r, int64_t count) {
          if (a_.normalise_once) return load(elements(a_.normed) + r * w, w, count);
          for (int64_t i = threadIdx.x / 32; i < count; i += kSampleThreads / 32) {
            normalise(first_pair, b, r + i, tile_ + i * pitch_);
          }
        },
        [&](int64_t r, int64_t j, Lane y) { silu(y).store(elements(a_.hidden) + r * w + j); });
    if (!barrier_.wait()) return false;
    const float* gate = a_.modulation + first_pair * modulation_width() + 3 * w * b + 2 * w;
    half(
        2 * b + 1, [&](int64_t r, int64_t count) { load(elements(a_.hidden) + r * w, w, count); },
        [&](int64_t r, int64_t j, Lane y) {
          float* x = a_.x + r * w + j;
          (Lane(*x) + Lane(gate[r * modulation_width() + j]) * y).store(x);
        });
    return barrier_.wait();
  }

  // One of the 2 d products; the next one's copy begins when its slot is free.
  template <class Load, class Epilogue>
  __device__ void half(int64_t i, Load load_rows, Epilogue epilogue) {
    const int64_t w = a_.shape.width, at = 8 + 8 * (i / 2) + 2 + 2 * (i % 2);
    const Span own = own_rows(rows_), columns = own_outputs(w);
    const bool streamed = i >= a_.stationary, shared = !streamed || a_.staged;
    const T* from = shared ? slots_ + (streamed ? a_.stationary : i) * a_.columns * weight_pitch_
                           : weight(at) + columns.begin * w;
    ptx::cp_async_wait_group<0>();
    for (int64_t r = own.begin; r < own.end; r += a_.row_tile) {
      const int64_t count = own.end - r < a_.row_tile ? own.end - r : a_.row_tile;
      load_rows(r, count);
      multiply(count, w, from, shared ? weight_pitch_ : w, weight(at + 1), columns,
               [&](int64_t k, int64_t j, Lane y) { epilogue(r + k, j, y); });
    }
    if (streamed && a_.staged) {
      fetch(static_cast<int>(i + 1 < 2 * a_.shape.depth ? i + 1 : a_.stationary), a_.stationary);
    }
  }

  // x of the token's rows; thread j itself wrote channel j of its state.
  __device__ void input(int64_t n) {
    const int64_t c = a_.shape.channels, w = a_.shape.width;
    for (int64_t j = threadIdx.x; j < c; j += kSampleThreads) {
      Lane(a_.state[n * c + j]).store(tile_ + j);
    }
    multiply(1, c, weight(6), c, weight(7), {0, w}, [&](int64_t, int64_t j, Lane y) {
      for (int64_t r = n; r < rows_; r += a_.tokens) y.store(a_.x + r * w + j);
    });
  }

  __device__ void end_token(int64_t s, int64_t n) {
    const int64_t c = a_.shape.channels, w = a_.shape.width, d = a_.shape.depth;
    const int64_t count = a_.guided ? 2 : 1, warp = threadIdx.x / 32;
    if (warp < count)
      normalise(s % a_.chunk * rows_, d, n + warp * a_.tokens, tile_ + warp * pitch_);
    multiply(count, w, weight(8 + 8 * d), w, weight(9 + 8 * d), {0, 2 * c},
             [&](int64_t r, int64_t j, Lane y) { output_[r * 2 * c + j] = y.value; });
    const float* noise = a_.step_noise + s * a_.step_noise_stride + n * c;
    float* to = s + 1 < a_.steps ? a_.state : a_.out;
    for (int64_t j = threadIdx.x; j < c; j += kSampleThreads) {
      to[n * c + j] = step(s, a_.state[n * c + j], output_ + j, noise[j]);
    }
    if (s + 1 < a_.steps) input(n);
  }

  // csrc/cpu/ddpm_step.h's formula of one number; `output` is its eps.
  __device__ float step(int64_t s, float state, const float* output, float noise_value) const {
    const float* k = a_.schedule + 7 * s;
    const int64_t c = a_.shape.channels;
    const Lane one(1.0f), x(state);
    Lane eps(output[0]);
    if (a_.guided) {
      const Lane uncond(output[2 * c]);
      eps = uncond + Lane(a_.guidance[0]) * (eps - uncond);
    }
    const Lane fraction = (Lane(output[c]) + one) * Lane(0.5f);
    const Lane sigma = exp(Lane(0.5f) * (fraction * Lane(k[4]) + (one - fraction) * Lane(k[5])));
    Lane x0 = Lane(k[0]) * x - Lane(k[1]) * eps;
    if (a_.clip_denoised) x0 = min(one, max(Lane(-1.0f), x0));
    const Lane mean = Lane(k[2]) * x0 + Lane(k[3]) * x;
    return (mean + Lane(k[6]) * sigma * Lane(noise_value) * Lane(a_.temperature)).value;
  }

  const PersistentSample& a_;
  const int64_t rows_;
  const SharedLayout layout_;
  const int64_t pitch_, weight_pitch_, ctas_, cta_;
  GridBarrier barrier_;
  T* tile_;
  float *sums_, *output_;
  T* slots_;
};

template <class T>
__global__ void __launch_bounds__(kSampleThreads, 1) ddpm_sample(const PersistentSample a) {
  PersistentSampler<T>(a).run();
}

}  // namespace marfast::cuda
