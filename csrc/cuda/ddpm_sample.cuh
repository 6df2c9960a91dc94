#pragma once

// ddpm_sample, persistent: consecutive steps of the head's loop in one cooperative kernel, given
// the modulation M of all of them (its product is tall: linear_mma.cuh and linear_fp32.cuh do it).
//
//   step s: x = input_proj(state); d blocks: x = x + gate (W2 act(W1 modulate(LN(x)) + b1) + b2);
//   output = final(modulate(LN(x))); state = ddpm_step(state, output)
//
// CTA (p, q) of P x Q owns the rows share(R, P, p) and the outputs share(w, Q, q) of each product
// (plan.h). It takes row_tile rows into shared memory; sample_products.cuh makes the sums of blocks
// of k, which are added in order, so the bits depend on neither P, Q, tile nor batch. Weights of
// the first `stationary` products stay in shared memory, as the final layer's do; others are copied
// by cp.async, begun before the barrier that they hide behind, or read in L2 where there is no
// room. What else a product needs and no other CTA writes is read before a barrier. Every CTA finds
// the state of its rows' tokens from the output; one of a token's keeps it.
//
// Barriers a step: 2 d + 2, or 3 d + 3 where rows are normalised once. Bytes moved and floor:
// plan.h.

#include "cuda/ddpm_step.cuh"
#include "cuda/grid_barrier.cuh"
#include "cuda/row_norm.cuh"
#include "cuda/sample_products.cuh"
#include "marfast/silu.h"

namespace marfast::cuda {

struct Span {
  int64_t begin, end;
};

template <class T, bool kStaged>
class PersistentSampler {
  static constexpr bool kFloat = sizeof(T) == 4;
  static constexpr DType kDType = kFloat ? DType::f32 : DType::bf16;  // or f16: the same sizes
  static constexpr int64_t kEach = 16 / sizeof(T);                    // elements of a vector

 public:
  __device__ explicit PersistentSampler(const PersistentSample& a)
      : a_(a),
        rows_(a.options.branches * a.tokens),
        modulation_width_((3 * a.shape.depth + 2) * a.shape.width),
        weights_(a.weights, a.shape.depth),
        layout_(a.shape, kDType, a.plan),
        norm_(a.x, a.shape.width, modulation_width_),
        ctas_(gridDim.x),
        cta_(blockIdx.x),
        barrier_(a.barrier, a.limit_ns) {
    unsigned char* at = ptx::shared_memory();
    tile_ = reinterpret_cast<T*>(at);
    sums_ = reinterpret_cast<float*>(at += layout_.tile);
    inputs_ = reinterpret_cast<float*>(at += layout_.sums);
    final_ = reinterpret_cast<T*>(at += layout_.inputs);
    slots_ = reinterpret_cast<T*>(at += layout_.final);
  }

  __device__ void run() {
    const int64_t products = 2 * a_.shape.depth;
    for (int64_t i = 0; i < a_.plan.stationary; ++i) fetch(i, i);
    if (kStaged && a_.plan.stationary < products) {
      fetch(a_.plan.stationary, a_.plan.stationary);
    }
    if (kStaged) {
      copy_weights(elements(weights_.final().weight), final_outputs(), final_);
      ptx::cp_async_commit_group();
    }
#pragma unroll 1
    for (int64_t s = 0; s < a_.steps; ++s) {
      const float* modulation = a_.modulation + s * rows_ * modulation_width_;
      last_step_ = s + 1 == a_.steps;
      start(s);
#pragma unroll 1
      for (int64_t b = 0; b <= a_.shape.depth; ++b) {
        const float* shift = modulation + 3 * a_.shape.width * b;
        first_product(shift, b);
        if (b < a_.shape.depth) second_product(shift + 2 * a_.shape.width, b);
      }
      barrier_.wait();  // the output is whole
    }
    start(a_.steps);
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
  __device__ Span own_outputs() const { return share_of(a_.shape.width); }
  __device__ Span final_outputs() const { return share_of(2 * a_.shape.channels); }
  __device__ Span share_of(int64_t outputs) const {
    const int64_t q = cta_ % a_.plan.column_groups, n = a_.plan.column_groups;
    return {outputs * q / n, outputs * (q + 1) / n};
  }

  // Starts the copy of rows of W.
  __device__ void copy_weights(const T* weight, Span rows, T* to) const {
    const int w = static_cast<int>(a_.shape.width), across = w / static_cast<int>(kEach);
    const int vectors = static_cast<int>(rows.end - rows.begin) * across;
    for (int i = threadIdx.x; i < vectors; i += kSampleThreads) {
      const int64_t j = i / across, k = i % across * kEach;
      ptx::cp_async_16(to + j * layout_.weight_pitch + k, weight + (rows.begin + j) * w + k);
    }
  }

  // Of this CTA's weights of one of the 2 d products to a slot.
  __device__ void fetch(int64_t product, int64_t slot) {
    copy_weights(elements(layer_of(product).weight), own_outputs(),
                 slots_ + slot * a_.plan.columns * layout_.weight_pitch);
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

  // Rows of W, `pitch` apart.
  struct Weights {
    const T* data;
    int pitch;
  };

  // What is added to and multiplied with a product's result.
  struct Others {
    Lane bias, gate, x;
  };

  // others(row, j) of this thread's first result in the tile of rows from `first` on.
  template <class Read>
  __device__ __forceinline__ Others others_of(int64_t first, Span own, Read others) const {
    const int outputs = static_cast<int>(own.end - own.begin), mine = threadIdx.x;
    if (mine >= tile_rows(first).count * outputs) return {};
    return others(first + mine / outputs, own.begin + mine % outputs);
  }

  // epilogue(row, j, y, others(row, j)) of the tile's rows, from `first` on, and the outputs `own`
  // of a layer whose row own.begin of weights is the first of w; `ahead` is others_of them.
  template <class Read, class Epilogue>
  __device__ __forceinline__ void multiply(int64_t first, Weights w, Span own, Others ahead,
                                           Read others, Epilogue epilogue) {
    const int rows = tile_rows(first).count, outputs = static_cast<int>(own.end - own.begin);
    const int count = rows * outputs, mine = threadIdx.x;
    const SampleProduct<T, kStaged> product{
        tile_,   static_cast<int>(layout_.pitch),  rows, w.data, w.pitch,
        outputs, static_cast<int>(a_.shape.width), sums_};
    ptx::bar_sync();  // the tile is whole
    product.run();
    ptx::bar_sync();
    for (int i = mine; i < count; i += kSampleThreads) {
      const int64_t r = first + i / outputs, j = own.begin + i % outputs;
      const Others now = i == mine ? ahead : others(r, j);
      Lane sum(sums_[i]);
      for (int b = 1; b < product.blocks(); ++b) sum = sum + Lane(sums_[b * count + i]);
      epilogue(r, j, sum + now.bias, now);
    }
  }

  // Those that this CTA normalises for all.
  __device__ Rows shared_rows() const {
    return {cta_, ctas_, cta_ < rows_ ? static_cast<int>(divide_up(rows_ - cta_, ctas_)) : 0};
  }
  // Of this CTA's own from r on, as many as the tile takes.
  __device__ Rows tile_rows(int64_t r) const {
    const int64_t left = own_rows().end - r, tile = a_.plan.row_tile;
    return {r, 1, static_cast<int>(left < tile ? left : tile)};
  }

  // LN + modulate, then W1 and the activation of block b; or after all blocks the final layer.
  __device__ void first_product(const float* shift, int64_t b) {
    const int64_t w = a_.shape.width;
    const bool ends = b == a_.shape.depth, once = a_.plan.normalise_once;
    const Layer affine = ends ? Layer{} : weights_.norm(b);
    const Layer layer = ends ? weights_.final() : weights_.in(b);
    const Span own = own_rows(), outputs = ends ? final_outputs() : own_outputs();
    Rows rows = once ? shared_rows() : tile_rows(own.begin);
    typename RowNorm<T>::Ahead ahead;
    norm_.look_ahead(shift, affine, rows, ahead);
    const auto others = [&](int64_t, int64_t j) {
      const Lane bias = Lane::load(elements(layer.bias) + j);
      return Others{bias, bias, bias};
    };
    Others next = others_of(own.begin, outputs, others);
    barrier_.wait();  // x is whole
    const Weights weights = weights_at(layer, outputs, ends ? -1 : 2 * b);
#pragma unroll 1
    for (int64_t first = own.begin; first < own.end; first += a_.plan.row_tile) {
      if (!once) rows = tile_rows(first);
      if (once ? first == own.begin : outputs.begin < outputs.end) {
        norm_(shift, affine, rows, ahead, once ? elements(a_.normed) + cta_ * w : tile_,
              once ? ctas_ * w : layout_.pitch);
      }
      if (once && first == own.begin) barrier_.wait();
      if (outputs.begin == outputs.end) continue;
      if (once) load(elements(a_.normed) + first * w, tile_rows(first).count);
      multiply(first, weights, outputs, next, others, [&](int64_t r, int64_t j, Lane y, Others) {
        if (ends) return y.store(a_.output + r * 2 * a_.shape.channels + j);
        store_operand(silu(y), elements(a_.hidden) + r * w + j);
      });
      next = others_of(first + a_.plan.row_tile, outputs, others);
    }
    if (!ends) fetch_after(2 * b);
  }

  // x = x + gate (W2 hidden + b2), of block b.
  __device__ void second_product(const float* gate, int64_t b) {
    const int64_t w = a_.shape.width;
    const Layer layer = weights_.out(b);
    const Span own = own_rows(), outputs = own_outputs();
    const auto others = [&](int64_t r, int64_t j) {
      return Others{Lane::load(elements(layer.bias) + j), Lane(gate[r * modulation_width_ + j]),
                    Lane(a_.x[r * w + j])};
    };
    Others next = others_of(own.begin, outputs, others);
    barrier_.wait();  // the hidden rows are whole
    const Weights weights = weights_at(layer, outputs, 2 * b + 1);
#pragma unroll 1
    for (int64_t first = own.begin; first < own.end; first += a_.plan.row_tile) {
      load(elements(a_.hidden) + first * w, tile_rows(first).count);
      multiply(first, weights, outputs, next, others,
               [&](int64_t r, int64_t j, Lane y, Others with) {
                 (with.x + with.gate * y).store(a_.x + r * w + j);
               });
      next = others_of(first + a_.plan.row_tile, outputs, others);
    }
    fetch_after(2 * b + 1);
  }

  // Where W's rows `outputs` are, of one of the 2 d products or, -1, the final layer; they have
  // arrived when the block has met once more.
  __device__ Weights weights_at(const Layer& layer, Span outputs, int64_t product) const {
    const int pitch = static_cast<int>(layout_.weight_pitch), w = static_cast<int>(a_.shape.width);
    if (!kStaged) return {elements(layer.weight) + outputs.begin * w, w};
    ptx::cp_async_wait_group<0>();
    if (product < 0) return {final_, pitch};
    const int64_t slot = product < a_.plan.stationary ? product : a_.plan.stationary;
    return {slots_ + slot * a_.plan.columns * pitch, pitch};
  }

  // The copy after a streamed product's begins when its slot is free.
  __device__ void fetch_after(int64_t product) {
    const bool last = product + 1 == 2 * a_.shape.depth;
    if (kStaged && product >= a_.plan.stationary && !(last && last_step_)) {
      fetch(last ? a_.plan.stationary : product + 1, a_.plan.stationary);
    }
  }

  // Channel j of the state of a row's token, as step s finds it. Steps leave it, and x0, in turns
  // at two places each.
  __device__ Lane state(int64_t s, int64_t row, int64_t j, bool keeps) const {
    const int64_t c = a_.shape.channels, n = row % a_.tokens, at = n * c + j;
    if (s == 0) return Lane(a_.before[at]);
    const auto place = [&](int64_t t) { return a_.state + t % 2 * a_.tokens * c + at; };
    const float* y = a_.output + n * 2 * c + j;
    Lane eps(*y);
    if (a_.options.branches > 1) {
      const Lane uncond(y[a_.tokens * 2 * c]);
      eps = uncond + Lane(a_.guidance[s - 1]) * (eps - uncond);
    }
    const int64_t x0s = 2 * a_.tokens * c;  // from a state's place to its x0's
    float x0 = 0.0f;
    if (a_.x0) x0 = s == 1 ? a_.x0[at] : place(s - 1)[x0s];
    const auto update = [&](float* x0_at) {
      return ddpm_update(Lane(s == 1 ? a_.before[at] : *place(s - 1)), eps, y + c,
                         Lane(a_.step_noise[(s - 1) * a_.step_noise_stride + at]), x0_at,
                         a_.schedule[s - 1], a_.options);
    };
    const Lane next = a_.x0 ? update(&x0) : update(nullptr);  // so that x0 stays in a register
    if (keeps) {
      next.store(s == a_.steps ? a_.out + at : place(s));
      if (a_.x0) (s == a_.steps ? a_.x0 + at : place(s) + x0s)[0] = x0;
    }
    return next;
  }

  // x of this CTA's rows and outputs; after the last step, no more than the state.
  __device__ void start(int64_t s) {
    const int c = static_cast<int>(a_.shape.channels);
    const Span own = own_rows(), outputs = own_outputs();
    const int width = static_cast<int>(outputs.end - outputs.begin);
    const Layer layer = weights_.input();
    for (int64_t first = own.begin; first < own.end; first += a_.plan.row_tile) {
      const int rows = tile_rows(first).count;
      for (int i = threadIdx.x; i < rows * c; i += kSampleThreads) {
        const int64_t row = first + i / c;
        const bool keeps = row < a_.tokens && cta_ % a_.plan.column_groups == 0;
        if (s == a_.steps && !keeps) continue;
        T factor;
        store_operand(state(s, row, i % c, keeps), &factor);
        inputs_[i] = to_float(factor);
      }
      if (s == a_.steps) continue;
      ptx::bar_sync();
      for (int i = threadIdx.x; i < rows * width; i += kSampleThreads) {
        const int64_t r = i / width, j = outputs.begin + i % width;
        const T* weight = elements(layer.weight) + j * c;
        Lane sum(0.0f);
        for (int k = 0; k < c; k += 256) {
          Lane chain(0.0f);
          for (int e = k; e < c && e < k + 256; ++e) {
            chain = fma(Lane(inputs_[r * c + e]), Lane::load(weight + e), chain);
          }
          sum = k ? sum + chain : chain;
        }
        (sum + Lane::load(elements(layer.bias) + j)).store(a_.x + (first + r) * a_.shape.width + j);
      }
      ptx::bar_sync();  // before the next tile's
    }
  }

  const PersistentSample& a_;
  const int64_t rows_, modulation_width_;
  const HeadWeights weights_;
  const SharedLayout layout_;
  const RowNorm<T> norm_;
  const int64_t ctas_, cta_;
  bool last_step_ = false;
  GridBarrier barrier_;
  T* tile_;
  float *sums_, *inputs_;
  T *final_, *slots_;
};

inline LaunchShape shape_of(const PersistentSample& a) {
  const int64_t products = 2 * a.shape.depth, slots = a.plan.stationary + a.plan.staged;
  const SharedLayout layout(a.shape, a.dtype, a.plan);
  return {static_cast<uint32_t>(a.plan.row_groups * a.plan.column_groups), 1, kSampleThreads,
          static_cast<uint32_t>(layout.size(slots < products ? slots : products)), true};
}

template <class T, bool kStaged>
__global__ void __launch_bounds__(kSampleThreads, 1)
    ddpm_sample(const __grid_constant__ PersistentSample a) {
  PersistentSampler<T, kStaged>(a).run();
}

}  // namespace marfast::cuda
