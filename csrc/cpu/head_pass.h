#pragma once

// The layers of the head as its kernels run them, each thread its share:
//
//   y[t, r] = SiLU(T[t] + c[r])      T = time_embed(t), c = cond_embed(z)
//   M[t, r] = W y[t, r] + b          every block's shift, scale, gate, and the final shift, scale
//   x = input_proj(token); blocks (residual_block.h); final(modulate(LN(x)))
//
// M depends on no x, so it is computed for many pairs (t, r) at once, as one tall product (61-65 %
// of the head's work at the speed of large matrices). Order of operations: linear.h,
// layer_norm_modulate.h; the rest as written, each operation rounded on its own.

#include "head_workspace.h"
#include "residual_block.h"

namespace marfast {

template <class V, class F>
class HeadPass {
  using Element = typename F::Element;

 public:
  HeadPass(const HeadShape& shape, const HeadOptions& options, DType dtype, const float* packed,
           const HeadWorkspace& at, int64_t rows, const Team& team)
      : shape_(shape),
        options_(options),
        head_(shape, dtype, packed),
        at_(at),
        rows_(rows),
        team_(team) {}

  // T of `times` timesteps and c of all rows; time_embedding [T, frequencies], condition [R, D].
  void embed(const float* time_embedding, int64_t times, const float* condition) {
    const Linear &in = head_.time_in, &out = head_.time_out, &from = head_.condition;
    read(time_embedding, times, in.inputs, at_.frequencies, at_.frequencies_stride);
    read(condition, rows_, from.inputs, at_.condition_in, at_.condition_stride);
    team_.barrier();
    product(in, elements(at_.frequencies), at_.frequencies_stride, times, own(in), first_panel(out),
            activate(at_.time_hidden));
    product(from, elements(at_.condition_in), at_.condition_stride, rows_, own(from),
            first_panel(out), store_to(at_.condition, at_.stride));
    team_.barrier();
    product(out, elements(at_.time_hidden), at_.stride, times, own(out),
            first_panel(head_.modulation), store_to(at_.time, at_.stride));
    team_.barrier();
  }

  // M of `pairs` pairs; pair p is of row p % R and of timestep time_of(p).
  template <class TimeOf>
  void modulate(int64_t pairs, TimeOf time_of) {
    const Range mine = team_.share(pairs);
    for (int64_t p = mine.begin; p < mine.end; ++p) {
      const float* time = at_.time + time_of(p) * at_.stride;
      const float* condition = at_.condition + p % rows_ * at_.stride;
      for (int64_t j = 0; j < shape_.width; j += V::lanes) {
        const int64_t left = shape_.width - j, count = left < V::lanes ? left : V::lanes;
        const V y = V::load(time + j, count) + V::load(condition + j, count);
        F::store(silu(y).first(count), elements(at_.activated) + p * at_.stride + j);
      }
    }
    team_.barrier();
    const Linear& layer = head_.modulation;
    product(layer, elements(at_.activated), at_.stride, pairs, own(layer), first_panel(head_.final),
            store_to(at_.modulation, at_.modulation_stride));
    team_.barrier();
  }

  // x of the rows row, row + every, ... < R, which all take `token` [C] in. By one thread.
  void input(const float* token, int64_t row, int64_t every) {
    const Linear& layer = head_.input;
    Element* in = elements(at_.tokens) + row * at_.channels_stride;
    to_elements<V, F>(token, layer.inputs, in);
    product(layer, in, at_.channels_stride, 1, {0, layer.panel_count}, layer.panels,
            [&](int64_t, int64_t j, int64_t count, V value) {
              for (int64_t r = row; r < rows_; r += every) {
                value.store(at_.x + r * at_.stride + j, count);
              }
            });
  }

  // All rows through all blocks; row r's modulation is that of pair first_pair + r. Barriers before
  // and after it are the caller's.
  void blocks(int64_t first_pair) {
    const int64_t w = shape_.width;
    for (int64_t b = 0; b < shape_.depth; ++b) {
      if (b > 0) team_.barrier();
      BlockRows<F> block{};
      block.out = at_.x;
      block.x = at_.x;
      block.shift = at_.modulation + first_pair * at_.modulation_stride + 3 * w * b;
      block.scale = block.shift + w;
      block.gate = block.scale + w;
      block.normed = elements(at_.normed);
      block.hidden = elements(at_.hidden);
      block.rows = rows_;
      block.width = w;
      block.out_stride = block.x_stride = block.stride = at_.stride;
      block.shift_stride = block.scale_stride = block.gate_stride = at_.modulation_stride;
      block.options = options_;
      block.eps = kEps;
      const int64_t next = b + 1 < shape_.depth ? b + 1 : 0;
      residual_block<V>(team_, head_.block(b), block, first_panel(head_.block(next).in));
    }
  }

  // epsilon and v of the rows row, row + every, ... < R -> out [., 2C], `out_stride` apart. By one
  // thread.
  void final(int64_t first_pair, int64_t row, int64_t every, float* out, int64_t out_stride) {
    const Linear& layer = head_.final;
    int64_t count = 0;
    for (int64_t r = row; r < rows_; r += every, ++count) {
      const float* shift = at_.modulation + (first_pair + r) * at_.modulation_stride +
                           3 * shape_.depth * shape_.width;
      const float* none = nullptr;
      Element* normed = elements(at_.normed) + r * at_.stride;
      layer_norm_modulate_row<V>(
          at_.x + r * at_.stride, shift, shift + shape_.width, none, none, shape_.width, kEps,
          [=](int64_t j, int64_t n, V y) { F::store(y.first(n), normed + j); });
    }
    product(layer, elements(at_.normed) + row * at_.stride, every * at_.stride, count,
            {0, layer.panel_count}, layer.panels, store_to(out, out_stride));
  }

 private:
  static constexpr float kEps = 1e-6f;

  static Element* elements(void* rows) { return static_cast<Element*>(rows); }
  Range own(const Linear& layer) const { return team_.share(layer.panel_count); }
  const char* first_panel(const Linear& layer) const { return layer.panel(own(layer).begin); }

  template <class Epilogue>
  static void product(const Linear& layer, const Element* x, int64_t x_stride, int64_t rows,
                      Range panels, const char* then, Epilogue epilogue) {
    linear<V, F>(layer, x, x_stride, rows, panels, then, epilogue);
  }
  static auto store_to(float* out, int64_t stride) {
    return [=](int64_t row, int64_t j, int64_t count, V value) {
      value.store(out + row * stride + j, count);
    };
  }
  auto activate(void* out) const {
    return [=](int64_t row, int64_t j, int64_t count, V value) {
      F::store(silu(value).first(count), elements(out) + row * at_.stride + j);
    };
  }
  void read(const float* x, int64_t rows, int64_t size, void* out, int64_t stride) const {
    const Range mine = team_.share(rows);
    for (int64_t r = mine.begin; r < mine.end; ++r) {
      to_elements<V, F>(x + r * size, size, elements(out) + r * stride);
    }
  }

  const HeadShape shape_;
  const HeadOptions options_;
  const PackedHead head_;
  const HeadWorkspace at_;
  const int64_t rows_;
  const Team& team_;
};

}  // namespace marfast
