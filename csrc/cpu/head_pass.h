#pragma once

// The layers of the head as its kernels run them, each thread its share:
//
//   y[t, r] = SiLU(T[t] + c[r])      T = time_embed(t), c = cond_embed(z)
//   M[t, r] = W y[t, r] + b          every block's shift, scale, gate, and the final shift, scale
//   x = input_proj(token); blocks (residual_block.h); final(modulate(norm(x)))
//
// as MAR's; marfast/reference/head_spec.py has what others do otherwise.
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
  HeadPass(const HeadShape& shape, const HeadSpec& spec, DType dtype, const float* packed,
           const HeadWorkspace& at, int64_t rows, const Team& team)
      : shape_(shape),
        spec_(spec),
        head_(shape, spec, dtype, packed),
        at_(at),
        rows_(rows),
        team_(team) {}

  // T of `times` timesteps and c of all rows; time_embedding [spec's times, T, frequencies],
  // condition [R, D].
  void embed(const float* time_embedding, int64_t times, const float* condition) {
    read(condition, rows_, shape_.condition, at_.condition_in, at_.condition_stride);
    for (int64_t i = 0; i < spec_.times; ++i) {
      const TimeWeights weights = head_.time(i);
      const Linear &in = weights.in, &out = weights.out;
      float* const embedded = i == 0 ? at_.time : at_.other_time;
      read(time_embedding + i * times * in.inputs, times, in.inputs, at_.frequencies,
           at_.frequencies_stride);
      team_.barrier();
      product(in, elements(at_.frequencies), at_.frequencies_stride, times, own(in),
              first_panel(out), activate(at_.time_hidden));
      if (i == 0) condition_in(first_panel(out));
      team_.barrier();
      product(out, elements(at_.time_hidden), at_.stride, times, own(out),
              first_panel(head_.modulation), store_to(embedded, at_.stride));
      if (i == 0) condition_out(first_panel(head_.modulation));
      team_.barrier();
      end_time(weights.norm, embedded, times, i);
    }
    if (spec_.times > 1 || spec_.time_norm != Norm::none) team_.barrier();
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
        const V activated = spec_.modulation_silu ? silu(y) : y;
        F::store(activated.first(count), elements(at_.activated) + p * at_.stride + j);
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
      block.shift = at_.modulation + first_pair * at_.modulation_stride + 3 * w * (b / spec_.share);
      block.scale = block.shift + w;
      block.gate = block.scale + w;
      block.normed = elements(at_.normed);
      block.hidden = elements(at_.hidden);
      block.rows = rows_;
      block.width = w;
      block.out_stride = block.x_stride = block.stride = at_.stride;
      block.shift_stride = block.scale_stride = block.gate_stride = at_.modulation_stride;
      block.hidden_stride = at_.hidden_stride;
      const int64_t next = b + 1 < shape_.depth ? b + 1 : 0;
      residual_block<V>(team_, spec_, head_.block(b), block, first_panel(head_.block(next).in));
    }
  }

  // The outputs of the rows row, row + every, ... < R -> out [., 2C] (or [., C]), `out_stride`
  // apart. By one thread.
  void final(int64_t first_pair, int64_t row, int64_t every, float* out, int64_t out_stride) {
    const Linear& layer = head_.final;
    int64_t count = 0;
    for (int64_t r = row; r < rows_; r += every, ++count) {
      const float* shift = at_.modulation + (first_pair + r) * at_.modulation_stride +
                           3 * spec_.groups(shape_.depth) * shape_.width;
      const float *none = nullptr, *x = at_.x + r * at_.stride;
      Element* normed = elements(at_.normed) + r * at_.stride;
      normalise_modulate_row(moments_of<V>(spec_.norm, x, shape_.width, spec_.eps), x, shift,
                             shift + shape_.width, none, none, shape_.width,
                             [=](int64_t j, int64_t n, V y) { F::store(y.first(n), normed + j); });
    }
    product(layer, elements(at_.normed) + row * at_.stride, every * at_.stride, count,
            {0, layer.panel_count}, layer.panels, store_to(out, out_stride));
  }

 private:
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
  // c = W z + b, or W SiLU(W' z + b') + b: the first of its layers, and the last.
  void condition_in(const char* then) const {
    const Linear& layer = head_.condition_in;
    const auto run = [&](auto epilogue) {
      product(layer, elements(at_.condition_in), at_.condition_stride, rows_, own(layer), then,
              epilogue);
    };
    spec_.condition == Condition::mlp ? run(activate(at_.condition_hidden))
                                      : run(store_to(at_.condition, at_.stride));
  }
  void condition_out(const char* then) const {
    const Linear& layer = head_.condition;
    if (spec_.condition != Condition::mlp) return;
    product(layer, elements(at_.condition_hidden), at_.stride, rows_, own(layer), then,
            store_to(at_.condition, at_.stride));
  }
  // The norm of the i-th time's embedding, and the mean of all after the last one.
  void end_time(const Affine& affine, float* embedded, int64_t times, int64_t i) const {
    const bool last = i == spec_.times - 1;
    const Range mine = team_.share(times);
    for (int64_t t = mine.begin; t < mine.end; ++t) {
      float *row = embedded + t * at_.stride, *sum = at_.time + t * at_.stride;
      if (spec_.time_norm != Norm::none) {
        normalise_row(moments_of<V>(spec_.time_norm, row, shape_.width, spec_.time_eps), row,
                      affine.weight, affine.bias, shape_.width,
                      [=](int64_t j, int64_t n, V value) { value.store(row + j, n); });
      }
      if (i == 0) continue;
      const V count(last ? static_cast<float>(spec_.times) : 1.0f);
      for (int64_t j = 0; j < shape_.width; j += V::lanes) {
        const int64_t left = shape_.width - j, n = left < V::lanes ? left : V::lanes;
        ((V::load(sum + j, n) + V::load(row + j, n)) / count).store(sum + j, n);
      }
    }
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
  const HeadSpec spec_;
  const PackedHead head_;
  const HeadWorkspace at_;
  const int64_t rows_;
  const Team& team_;
};

}  // namespace marfast
