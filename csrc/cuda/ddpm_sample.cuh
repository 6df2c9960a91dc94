#pragma once

// ddpm_sample, persistent: consecutive steps of the head's loop in one cooperative kernel, given
// the modulation M of all of them (its product is tall: linear_mma.cuh and linear_fp32.cuh do it).
//
//   step s: x = input_proj(state); d blocks: x = x + gate (W2 act(W1 modulate(LN(x)) + b1) + b2);
//   state = ddpm_step(state, final(modulate(LN(x))))
//
// CTA (p, q) of P x Q owns the rows share(R, P, p) and the outputs share(w, Q, q) of each product
// (plan.h). It takes row_tile rows into shared memory and `columns` outputs at a time; one (row,
// output, block of k) is one chain, block sums meet in shared memory and are added in order:
//   fp32        a thread a chain, blocks of 256, one FMA after another: docs/numerics.md, to the
//               bit
//   bf16, fp16  a warp 16 outputs (m) x up to 32 rows (n) of a block of 128, mma.sync m16n8k16
// so the bits depend on neither P, Q, tile nor batch. Weights of the first `stationary` products
// stay in shared memory; others are copied by cp.async, begun before the barrier that they hide
// behind, or read in L2 where there is no room. Token n's final layer, update and next input are
// CTA n % PQ's.
//
// Barriers a step: 2 d + 1, or 3 d + 1 where rows are normalised once. Bytes moved and floor:
// plan.h.

#include "cuda/ddpm_step.cuh"
#include "cuda/grid_barrier.cuh"
#include "cuda/layer_norm_modulate.cuh"
#include "cuda/plan.h"
#include "marfast/head_weights.h"
#include "marfast/silu.h"

namespace marfast::cuda {

constexpr int kSampleThreads = 256;

struct Span {
  int64_t begin, end;
};

template <class T>
class PersistentSampler {
  static constexpr bool kFloat = sizeof(T) == 4;
  static constexpr DType kDType = kFloat ? DType::f32 : DType::bf16;  // or f16: the same sizes
  static constexpr int64_t kBlock = product_block(kDType);
  static constexpr int64_t kEach = 16 / sizeof(T);  // elements of a vector
  static constexpr int kTiles = 4;                  // of 8 rows, that a warp takes at once
  static constexpr float kEps = 1e-6f;

 public:
  __device__ explicit PersistentSampler(const PersistentSample& a)
      : a_(a),
        rows_(a.options.branches * a.tokens),
        modulation_width_((3 * a.shape.depth + 2) * a.shape.width),
        weights_(a.weights, a.shape.depth),
        layout_(a.shape, kDType, a.plan.row_tile, a.plan.columns),
        ctas_(gridDim.x),
        cta_(blockIdx.x),
        barrier_(a.barrier, a.limit_ns) {
    unsigned char* at = ptx::shared_memory();
    tile_ = reinterpret_cast<T*>(at);
    sums_ = reinterpret_cast<float*>(at += layout_.tile);
    output_ = reinterpret_cast<float*>(at += layout_.sums);
    slots_ = reinterpret_cast<T*>(at += layout_.output);
  }

  __device__ void run() {
    const int64_t products = 2 * a_.shape.depth;
    for (int64_t i = 0; i < a_.plan.stationary; ++i) fetch(i, i);
    if (a_.plan.staged && a_.plan.stationary < products) {
      fetch(a_.plan.stationary, a_.plan.stationary);
    }
    for (int64_t n = cta_; n < a_.tokens; n += ctas_) {
      for (int64_t j = threadIdx.x; j < a_.shape.channels; j += kSampleThreads) {
        a_.state[n * a_.shape.channels + j] = a_.before[n * a_.shape.channels + j];
      }
      input(n);
    }
    for (int64_t s = 0; s < a_.steps; ++s) {
      barrier_.wait();  // x is whole
      const float* modulation = a_.modulation + s * rows_ * modulation_width_;
      last_step_ = s + 1 == a_.steps;
      for (int64_t b = 0; b < a_.shape.depth; ++b) block(modulation, b);
      for (int64_t n = cta_; n < a_.tokens; n += ctas_) end_token(s, n);
    }
  }

 private:
  static __device__ T* elements(void* p) { return static_cast<T*>(p); }
  static __device__ const T* elements(const void* p) { return static_cast<const T*>(p); }
  // One of the 2 d products.
  __device__ Layer layer_of(int64_t product) const {
    return product % 2 ? weights_.out(product / 2) : weights_.in(product / 2);
  }
  __device__ Span own_rows() const {
    const int64_t p = cta_ / a_.plan.column_groups, n = a_.plan.row_groups;
    return {rows_ * p / n, rows_ * (p + 1) / n};
  }
  __device__ Span own_outputs() const {
    const int64_t q = cta_ % a_.plan.column_groups, n = a_.plan.column_groups;
    return {a_.shape.width * q / n, a_.shape.width * (q + 1) / n};
  }

  // Starts the copy of this CTA's weights of one of the 2 d products to a slot.
  __device__ void fetch(int64_t product, int64_t slot) {
    const int64_t w = a_.shape.width;
    const int across = static_cast<int>(w / kEach);
    const Span own = own_outputs();
    const T* from = elements(layer_of(product).weight) + own.begin * w;
    T* to = slots_ + slot * a_.plan.columns * layout_.weight_pitch;
    const int vectors = static_cast<int>(own.end - own.begin) * across;
    for (int i = threadIdx.x; i < vectors; i += kSampleThreads) {
      const int64_t j = i / across, k = i % across * kEach;
      ptx::cp_async_16(to + j * layout_.weight_pitch + k, from + j * w + k);
    }
    ptx::cp_async_commit_group();
  }

  // Rows of x [., w] into the tile.
  __device__ void load(const T* x, int64_t rows) {
    const int across = static_cast<int>(a_.shape.width / kEach);
    for (int i = threadIdx.x; i < static_cast<int>(rows) * across; i += kSampleThreads) {
      const int64_t r = i / across, k = i % across * kEach;
      ptx::st_shared_v4(tile_ + r * layout_.pitch + k,
                        ptx::ld_global_v4(x + r * a_.shape.width + k));
    }
  }

  // Rows of W, `stride` apart; in shared memory rows are whole vectors.
  struct Weights {
    const T* data;
    int64_t stride;
    bool shared;
  };

  // W[j0 ...][k ...] as mma.sync's 16 x 16 operand, zeros past `end`.
  static __device__ void operand(const Weights& w, int64_t j0, int64_t outputs, int64_t k,
                                 int64_t end, uint32_t (&m)[4]) {
    const int lane = threadIdx.x % 32;
    if (w.shared) {
      return ptx::ldmatrix_x4(
          m, w.data + clamp(j0 + lane % 16, outputs) * w.stride + k + lane / 16 * 8);
    }
    for (int i = 0; i < 4; ++i) {
      const T* row = w.data + clamp(j0 + lane / 4 + i % 2 * 8, outputs) * w.stride;
      const int64_t at = k + lane % 4 * 2 + i / 2 * 8;
      const uint32_t low = at < end ? row[at].bits : 0, high = at + 1 < end ? row[at + 1].bits : 0;
      m[i] = low | high << 16;
    }
  }

  // sums[block][row][output] of the tile's first `rows` rows and `outputs` rows of W. The tile is 0
  // from `inputs` to the next multiple of 16.
  __device__ void chains(int64_t rows, int64_t inputs, const Weights& w, int64_t outputs) {
    const int64_t blocks = divide_up(inputs, kBlock);
    if constexpr (kFloat) {
      const int width = static_cast<int>(outputs), count = static_cast<int>(rows);
      for (int i = threadIdx.x; i < blocks * count * width; i += kSampleThreads) {
        const int64_t j = i % width, r = i / width % count, b = i / width / count;
        const int64_t end = (b + 1) * kBlock < inputs ? (b + 1) * kBlock : inputs;
        const T *x = tile_ + r * layout_.pitch, *y = w.data + j * w.stride;
        float sum = 0.0f;
        for (int64_t k = b * kBlock; k < end; ++k) sum = ptx::fma_rn(x[k], y[k], sum);
        sums_[i] = sum;
      }
    } else {
      const int across = static_cast<int>(divide_up(outputs, 16)), lane = threadIdx.x % 32;
      const int down = static_cast<int>(divide_up(rows, 8 * kTiles));
      for (int i = threadIdx.x / 32; i < blocks * across * down; i += kSampleThreads / 32) {
        const int64_t j0 = i % across * 16, r0 = i / across % down * 8 * kTiles;
        const int64_t b = i / across / down;
        const int64_t end = (b + 1) * kBlock < inputs ? (b + 1) * kBlock : inputs;
        float sum[kTiles][4] = {};
        for (int64_t k = b * kBlock; k < end; k += 16) {
          uint32_t m[4];
          operand(w, j0, outputs, k, end, m);
#pragma unroll
          for (int n = 0; n < kTiles; ++n) {
            if (r0 + 8 * n >= rows) break;
            uint32_t column[2];
            ptx::ldmatrix_x2(column, tile_ + clamp(r0 + 8 * n + lane % 8, rows) * layout_.pitch +
                                         k + lane / 8 % 2 * 8);
            ptx::mma_m16n8k16(sum[n], m, column, T{});
          }
        }
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
          for (int e = 0; e < 4; ++e) {
            const int64_t j = j0 + lane / 4 + e / 2 * 8;
            const int64_t r = r0 + 8 * n + lane % 4 * 2 + e % 2;
            if (j < outputs && r < rows) sums_[(b * rows + r) * outputs + j] = sum[n][e];
          }
        }
      }
    }
  }

  static __device__ int64_t clamp(int64_t i, int64_t size) { return i < size ? i : size - 1; }

  // The most outputs whose sums there is room for.
  __device__ int64_t piece(int64_t rows, int64_t inputs) const {
    const int64_t fit = layout_.sums / 4 / (divide_up(inputs, kBlock) * rows);
    return fit < 16 ? fit : fit / 16 * 16;
  }

  // epilogue(row, j, y) of the tile's rows and the outputs `own` of a layer whose row own.begin of
  // weights is the first of w.
  template <class Epilogue>
  __device__ void multiply(int64_t rows, int64_t inputs, const Weights& w, const void* bias,
                           Span own, Epilogue epilogue) {
    const int64_t blocks = divide_up(inputs, kBlock), most = piece(rows, inputs);
    ptx::bar_sync();  // the tile is whole
    for (int64_t j0 = own.begin; j0 < own.end; j0 += most) {
      const int64_t outputs = own.end - j0 < most ? own.end - j0 : most;
      chains(rows, inputs, {w.data + (j0 - own.begin) * w.stride, w.stride, w.shared}, outputs);
      ptx::bar_sync();
      const int width = static_cast<int>(outputs), count = static_cast<int>(rows) * width;
      for (int i = threadIdx.x; i < count; i += kSampleThreads) {
        Lane sum(sums_[i]);
        for (int b = 1; b < blocks; ++b) sum = sum + Lane(sums_[b * count + i]);
        const int64_t j = j0 + i % width;
        epilogue(i / width, j, sum + Lane::load(elements(bias) + j));
      }
      ptx::bar_sync();
    }
  }

  // By a warp.
  __device__ void normalise(const float* modulation, int64_t b, int64_t row, T* out) {
    const int64_t w = a_.shape.width;
    const float* shift = modulation + row * modulation_width_ + 3 * w * b;
    const Layer affine = b == a_.shape.depth ? Layer{} : weights_.norm(b);
    layer_norm_modulate_row(static_cast<int>(threadIdx.x % 32), a_.x + row * w, shift, shift + w,
                            elements(affine.weight), elements(affine.bias), w, kEps,
                            [=](int64_t j, Lane y) { store_operand(y, out + j); });
  }

  __device__ void block(const float* modulation, int64_t b) {
    const int64_t w = a_.shape.width;
    if (a_.plan.normalise_once) {
      for (int64_t r = cta_ + threadIdx.x / 32 * ctas_; r < rows_;
           r += ctas_ * (kSampleThreads / 32)) {
        normalise(modulation, b, r, elements(a_.normed) + r * w);
      }
      barrier_.wait();
    }
    half(
        2 * b,
        [&](int64_t r, int64_t count) {
          if (a_.plan.normalise_once) return load(elements(a_.normed) + r * w, count);
          for (int64_t i = threadIdx.x / 32; i < count; i += kSampleThreads / 32) {
            normalise(modulation, b, r + i, tile_ + i * layout_.pitch);
          }
        },
        [&](int64_t r, int64_t j, Lane y) {
          store_operand(silu(y), elements(a_.hidden) + r * w + j);
        });
    barrier_.wait();
    const float* gate = modulation + 3 * w * b + 2 * w;
    half(
        2 * b + 1, [&](int64_t r, int64_t count) { load(elements(a_.hidden) + r * w, count); },
        [&](int64_t r, int64_t j, Lane y) {
          float* x = a_.x + r * w + j;
          (Lane(*x) + Lane(gate[r * modulation_width_ + j]) * y).store(x);
        });
    barrier_.wait();
  }

  // One of the 2 d products; the next one's copy begins when its slot is free.
  template <class Load, class Epilogue>
  __device__ void half(int64_t i, Load load_rows, Epilogue epilogue) {
    const int64_t w = a_.shape.width;
    const Layer layer = layer_of(i);
    const Span own = own_rows(), outputs = own_outputs();
    const bool streamed = i >= a_.plan.stationary;
    const int64_t slot = streamed ? a_.plan.stationary : i;
    const Weights weights = streamed && !a_.plan.staged
                                ? Weights{elements(layer.weight) + outputs.begin * w, w, false}
                                : Weights{slots_ + slot * a_.plan.columns * layout_.weight_pitch,
                                          layout_.weight_pitch, true};
    ptx::cp_async_wait_group<0>();
    for (int64_t r = own.begin; r < own.end; r += a_.plan.row_tile) {
      const int64_t count = own.end - r < a_.plan.row_tile ? own.end - r : a_.plan.row_tile;
      load_rows(r, count);
      multiply(count, w, weights, layer.bias, outputs,
               [&](int64_t k, int64_t j, Lane y) { epilogue(r + k, j, y); });
    }
    const bool last = i + 1 == 2 * a_.shape.depth;
    if (streamed && a_.plan.staged && !(last && last_step_)) {
      fetch(last ? a_.plan.stationary : i + 1, a_.plan.stationary);
    }
  }

  // x of the token's rows; thread j itself wrote channel j of its state.
  __device__ void input(int64_t n) {
    const int64_t c = a_.shape.channels, w = a_.shape.width;
    for (int64_t j = threadIdx.x; j < round_up(c, 16); j += kSampleThreads) {
      store_operand(Lane(j < c ? a_.state[n * c + j] : 0.0f), tile_ + j);
    }
    const Layer layer = weights_.input();
    multiply(1, c, {elements(layer.weight), c, false}, layer.bias, {0, w},
             [&](int64_t, int64_t j, Lane y) {
               for (int64_t r = n; r < rows_; r += a_.tokens) y.store(a_.x + r * w + j);
             });
  }

  __device__ void end_token(int64_t s, int64_t n) {
    const int64_t c = a_.shape.channels, w = a_.shape.width, d = a_.shape.depth;
    const int64_t count = a_.options.branches, warp = threadIdx.x / 32;
    const float* modulation = a_.modulation + s * rows_ * modulation_width_;
    if (warp < count) normalise(modulation, d, n + warp * a_.tokens, tile_ + warp * layout_.pitch);
    const Layer layer = weights_.final();
    multiply(count, w, {elements(layer.weight), w, false}, layer.bias, {0, 2 * c},
             [&](int64_t r, int64_t j, Lane y) { output_[r * 2 * c + j] = y.value; });
    const float* noise = a_.step_noise + s * a_.step_noise_stride + n * c;
    float* to = last_step_ ? a_.out : a_.state;
    for (int64_t j = threadIdx.x; j < c; j += kSampleThreads) {
      Lane eps(output_[j]);
      if (a_.options.branches > 1) {
        const Lane uncond(output_[2 * c + j]);
        eps = uncond + Lane(a_.guidance[s]) * (eps - uncond);
      }
      ddpm_update(Lane(a_.state[n * c + j]), eps, output_ + c + j, Lane(noise[j]),
                  a_.x0 ? a_.x0 + n * c + j : nullptr, a_.schedule[s], a_.options)
          .store(to + n * c + j);
    }
    if (!last_step_) input(n);
  }

  const PersistentSample& a_;
  const int64_t rows_, modulation_width_;
  const HeadWeights weights_;
  const SharedLayout layout_;
  const int64_t ctas_, cta_;
  bool last_step_ = false;
  GridBarrier barrier_;
  T* tile_;
  float *sums_, *output_;
  T* slots_;
};

inline LaunchShape shape_of(const PersistentSample& a) {
  const int64_t products = 2 * a.shape.depth, slots = a.plan.stationary + a.plan.staged;
  const SharedLayout layout(a.shape, a.dtype, a.plan.row_tile, a.plan.columns);
  return {static_cast<uint32_t>(a.plan.row_groups * a.plan.column_groups), 1, kSampleThreads,
          static_cast<uint32_t>(layout.size(slots < products ? slots : products)), true};
}

template <class T>
__global__ void __launch_bounds__(kSampleThreads, 1)
    ddpm_sample(const __grid_constant__ PersistentSample a) {
  PersistentSampler<T>(a).run();
}

}  // namespace marfast::cuda
