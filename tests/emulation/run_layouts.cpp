// csrc/cuda's kernels on operands that lie anyhow: at an odd address, in rows an odd number apart,
// or so far apart that 32 bits don't count it. Results have the bits of operands that lie densely.

#include <sys/mman.h>

#include <stdexcept>
#include <utility>

#include "cases.h"

namespace {

// odd: an element further; far: memory that is reserved, and there only where rows lie.
enum class Lie { dense, odd_address, odd_stride, far };
constexpr int64_t kFar = (int64_t{1} << 32) + (int64_t{1} << 20);

// Which of a call's operands doesn't lie densely.
struct Way {
  int operand;
  Lie lie;
  Lie of(int i) const { return i == operand ? lie : Lie::dense; }
};

// Memory of `count` elements from an address that is a multiple of 4 KiB, or one past it.
template <class T>
struct Reserved {
  int64_t bytes;
  T* memory;
  T* data;
  Reserved(int64_t count, Lie lie)
      : bytes((count + 1) * static_cast<int64_t>(sizeof(T))),
        memory(static_cast<T*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))),
        data(memory + (lie == Lie::odd_address)) {
    if (memory == MAP_FAILED) throw std::bad_alloc();
  }
  Reserved(const Reserved&) = delete;
  ~Reserved() { munmap(memory, bytes); }
};

// [rows, columns], the same numbers however they lie.
template <class T>
struct Operand {
  int64_t rows, columns, stride;
  Reserved<T> memory;
  Operand(int64_t rows, int64_t columns, Lie lie, bool written = true)
      : rows(rows),
        columns(columns),
        stride(lie == Lie::far          ? kFar
               : lie == Lie::odd_stride ? columns + 1
                                        : columns),
        memory(rows * stride, lie) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; written && c < columns; ++c) from_float(number(), row(r) + c);
      emu::add_memory(row(r), columns * sizeof(T), written, "row");
    }
    if (stride == columns) {  // vectors may go from one row to the next
      for (int64_t r = 0; r < rows; ++r) emu::remove_memory(row(r));
      emu::add_memory(data(), rows * columns * sizeof(T), written, "rows");
    }
  }
  ~Operand() {
    for (int64_t r = 0; r < rows; ++r) emu::remove_memory(row(r));
  }
  T* data() { return memory.data; }
  T* row(int64_t r) { return data() + r * stride; }
  std::vector<float> values() {
    std::vector<float> all;
    for (int64_t i = 0; i < rows * columns; ++i)
      all.push_back(to_float(row(i / columns)[i % columns]));
    return all;
  }
};

void expect(cuda::Status status) {
  if (status) throw std::runtime_error(status);
}

void set_epilogue(cuda::Epilogue& a, Operand<float>& gate, Operand<float>& residual,
                  Operand<float>& out) {
  a.gate = gate.data(), a.gate_stride = gate.stride;
  a.residual = residual.data(), a.residual_stride = residual.stride;
  a.out = out.data(), a.out_stride = out.stride;
  a.rows = out.rows, a.outputs = out.columns;
}

template <class T, int64_t kRows>
std::vector<float> linear(Way way) {
  Operand<T> x(kRows, 40, way.of(0)), weight(24, 40, way.of(4)), bias(1, 24, way.of(5));
  Operand<float> gate(kRows, 24, way.of(1)), residual(kRows, 24, way.of(2));
  Operand<float> out(kRows, 24, way.of(3), false);
  cuda::LinearLayer a{};
  set_epilogue(a, gate, residual, out);
  a.x = x.data(), a.x_stride = x.stride, a.inputs = 40, a.dtype = dtype<T>;
  a.weight = weight.data(), a.bias = bias.data();
  expect(cuda::linear_by(a, emu::Emulated{}));
  return out.values();
}

template <class T>
std::vector<float> linear_epilogue(Way way) {
  Operand<T> product(3, 24, way.of(0)), bias(1, 24, way.of(4));
  Operand<float> gate(3, 24, way.of(1)), residual(3, 24, way.of(2));
  Operand<float> out(3, 24, way.of(3), false);
  cuda::LinearEpilogue a{};
  set_epilogue(a, gate, residual, out);
  a.product = product.data(), a.product_stride = product.stride, a.dtype = dtype<T>;
  a.bias = bias.data();
  expect(cuda::linear_epilogue_by(a, emu::Emulated{}));
  return out.values();
}

template <class T>
std::vector<float> layer_norm_modulate(Way way) {
  Operand<T> x(3, 40, way.of(0)), shift(3, 40, way.of(1)), scale(3, 40, way.of(2));
  Operand<T> weight(1, 40, way.of(3)), bias(1, 40, way.of(4)), out(3, 40, way.of(5), false);
  cuda::NormModulate a{};
  a.x = x.data(), a.shift = shift.data(), a.scale = scale.data(), a.out = out.data();
  a.x_stride = x.stride, a.shift_stride = shift.stride, a.scale_stride = scale.stride;
  a.weight = weight.data(), a.bias = bias.data();
  a.rows = 3, a.width = 40, a.eps = 1e-3f;
  a.dtype = a.modulation_dtype = a.affine_dtype = a.out_dtype = dtype<T>;
  expect(cuda::layer_norm_modulate_by(a, emu::Emulated{}));
  return out.values();
}

template <class T>
std::vector<float> ddpm_step(Way way) {
  Operand<float> x(3, 5, way.of(0)), noise(3, 5, way.of(1)), out(3, 5, way.of(3), false);
  Operand<T> model_output(6, 10, way.of(2));
  Operand<float> coefficients(1, kCoefficients, Lie::dense), guidance(1, 1, Lie::dense);
  DdpmStep a{};
  a.out = out.data(), a.x = x.data(), a.noise = noise.data(), a.guidance = guidance.data();
  a.coefficients = reinterpret_cast<const StepCoefficients*>(coefficients.data());
  a.model_output = model_output.data(), a.model_output_dtype = dtype<T>;
  a.x_stride = x.stride, a.noise_stride = noise.stride;
  a.model_output_stride = model_output.stride;
  a.tokens = 3, a.channels = 5, a.options = {2, 0.75f, true, true};
  expect(cuda::ddpm_step_by(a, emu::Emulated{}));
  return out.values();
}

// Operands are qkv by the strides of batch, position, part and head; its address; out's.
template <class T>
std::vector<float> attention(Way way) {
  constexpr int64_t sizes[] = {2, 5, 3, 2}, head_dim = 24;
  int64_t strides[] = {1920, 320, 80, 32}, last = head_dim;
  for (int i = 0; i < 4; ++i) {
    if (way.of(i) == Lie::odd_stride) ++strides[i];
    if (way.of(i) == Lie::far) strides[i] = kFar;
    last += (sizes[i] - 1) * strides[i];
  }
  Reserved<T> qkv(last, way.of(4));
  std::vector<T*> heads;
  for (int64_t i = 0; i < 2 * 5 * 3 * 2; ++i) {
    heads.push_back(qkv.data + i / 30 * strides[0] + i / 6 % 5 * strides[1] +
                    i / 2 % 3 * strides[2] + i % 2 * strides[3]);
    for (int64_t d = 0; d < head_dim; ++d) from_float(number(), heads.back() + d);
    emu::add_memory(heads.back(), head_dim * sizeof(T), true, "head");
  }
  Operand<T> out(10, 48, way.of(5), false);
  Attention a{};
  a.out = out.data(), a.qkv = qkv.data, a.scale = 0.2f, a.dtype = dtype<T>;
  a.batch = 2, a.length = a.wanted = 5, a.heads = 2, a.head_dim = head_dim;
  a.batch_stride = strides[0], a.position_stride = strides[1];
  a.part_stride = strides[2], a.head_stride = strides[3];
  expect(cuda::attention_by(a, emu::Emulated{}));
  for (const T* head : heads) emu::remove_memory(head);
  return out.values();
}

// `strided`: how many operands have strides; `all`: how many there are.
void add(std::vector<Case>& cases, const std::string& name, int strided, int all,
         std::vector<float> (*values)(Way)) {
  constexpr std::pair<Lie, const char*> lies[] = {{Lie::odd_address, "at an odd address"},
                                                  {Lie::odd_stride, "rows an odd number apart"},
                                                  {Lie::far, "rows far apart"}};
  for (int operand = 0; operand < all; ++operand)
    for (const auto& [lie, how] : lies) {
      if (operand >= strided && lie != Lie::odd_address) continue;
      const Way way{operand, lie};
      cases.push_back(
          {name + ", operand " + std::to_string(operand) + " " + how, [=]() -> std::string {
             state = 23;
             const std::vector<float> wanted = values({-1, Lie::dense});
             state = 23;
             const std::vector<float> got = values(way);
             for (size_t i = 0; i < wanted.size(); ++i)
               if (!(got[i] == wanted[i])) return differs("out", i, got[i], wanted[i]);
             return "ok";
           }});
    }
}

template <class T>
void add_cases(std::vector<Case>& cases, const std::string& type) {
  add(cases, "linear of few rows, " + type, 4, 6, linear<T, 3>);
  add(cases, "linear, " + type, 4, 6, linear<T, 9>);
  if constexpr (sizeof(T) == 2) add(cases, "linear_epilogue, " + type, 4, 5, linear_epilogue<T>);
  add(cases, "layer_norm_modulate, " + type, 3, 6, layer_norm_modulate<T>);
  add(cases, "ddpm_step, " + type, 3, 4, ddpm_step<T>);
  add(cases, "attention, " + type, 4, 6, attention<T>);
}

}  // namespace

int main(int count, char** words) {
  std::vector<Case> cases;
  each_dtype([&](auto element, const char* name) { add_cases<decltype(element)>(cases, name); });
  return run_cases(cases, count, words);
}
