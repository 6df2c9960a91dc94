// One ddpm_sample on AVX2 and one thread, for callgrind: benchmarks/studies/counts.py counts the
// instructions inside `counted` alone. Arguments: width, depth, rows, steps, f32 or bf16; without
// any, prints which compiler built it.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "cpu/head_workspace.h"
#include "cpu/kernel_table.h"
#include "cpu/packed_head.h"

using namespace marfast;

extern "C" __attribute__((noinline)) void counted(const DdpmSample& a) {
  avx2::kernels.ddpm_sample(a);
}

int main(int argc, char** argv) {
  if (argc == 1) return std::puts(MARFAST_COMPILER) < 0;
  if (argc != 6 || !__builtin_cpu_supports("avx2")) {
    std::fputs("counts: needs AVX2, and width depth rows steps f32|bf16\n", stderr);
    return 2;
  }
  const auto number = [&](int i) { return std::strtoll(argv[i], nullptr, 10); };
  const auto values = [](int64_t size) { return std::vector<float>(size, 0.01f); };
  const int64_t rows = number(3), steps = number(4), c = 16;  // C, D and frequencies are MAR-B's
  DdpmSample a{};
  a.shape = {c, 768, number(1), number(2), 256, number(1)};
  a.tokens = a.group = rows / 2;
  a.options = {2, 1.0f, false, true};
  a.steps = a.step_end = a.chunk = steps;
  a.step_noise_stride = a.tokens * c;
  a.weight_dtype = std::strcmp(argv[5], "bf16") == 0 ? DType::bf16 : DType::f32;
  a.threads = 1;
  const auto noise = values(a.tokens * c), step_noise = values(steps * a.tokens * c);
  const auto condition = values(rows * a.shape.condition), guidance = values(steps);
  const auto embedding = values(steps * a.shape.frequencies),
             schedule = values(steps * kCoefficients);
  const auto packed = values(PackedHead(a.shape, a.spec, a.weight_dtype, nullptr).size());
  auto workspace = values(sample_workspace(a)), out = values(a.tokens * c);
  a.out = out.data();
  a.noise = noise.data();
  a.step_noise = step_noise.data();
  a.condition = condition.data();
  a.packed = packed.data();
  a.schedule = reinterpret_cast<const StepCoefficients*>(schedule.data());
  a.time_embedding = embedding.data();
  a.guidance = guidance.data();
  a.workspace = workspace.data();
  counted(a);
}
