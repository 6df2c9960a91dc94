// What a step of the persistent ddpm_sample would cost, by cost.h's rules: `costs HEAD ROWS DTYPE`
// prints the names and values of a row of the table (costs.py), of the plan that an H100 would get.

#include "sample_call.h"

namespace {

struct Mar {
  const char* name;
  int64_t width, depth;
} constexpr kMars[] = {{"B", 1024, 6}, {"L", 1280, 8}, {"H", 1536, 12}, {"small", 128, 2}};

constexpr cuda::GpuProfile kGpu = cuda::kGpuProfiles[2];
constexpr int64_t kSteps = 100, kBudget = 1 << 30;

template <class T>
emu::Costs costs_of(const Sizes& sizes, const cuda::HeadPlan& plan) {
  SampleCall<T> call(sizes);
  if (plan.modulation_bytes > 0.8 * kGpu.l2_bytes) emu::is_far(call.modulation.data());
  for (Buffer<float>* given : {&call.x, &call.own})
    for (size_t i = 0; i < given->count; ++i) given->data()[i] = number();
  for (Buffer<T>* given : {&call.normed, &call.hidden})
    for (size_t i = 0; i < given->count; ++i) from_float(number(), given->data() + i);
  emu::take_costs();
  if (const char* error = call.run(plan)) std::printf("failed\t%s\n", error);
  return emu::take_costs();
}

template <class T>
void print(const Mar& mar, int64_t rows) {
  const HeadShape shape{16, 768, mar.width, mar.depth, 256, mar.width};
  cuda::HeadPlan plan = cuda::head_plan(kGpu, shape, dtype<T>, rows, kSteps, kBudget, true);
  Sizes sizes{16, mar.width, mar.depth, rows / 2, 1, true, true};
  const emu::Costs once = costs_of<T>(sizes, plan);
  sizes.steps = 2;
  const emu::Costs twice = costs_of<T>(sizes, plan);
  const emu::Path &a = once.path, &b = twice.path;
  const emu::Totals &t = once.totals, &u = twice.totals;
  const struct {
    const char* name;
    double value;
  } values[] = {
      {"row groups", double(plan.row_groups)},
      {"stationary", double(plan.stationary)},
      {"once", double(plan.normalise_once)},
      {"plan us", (plan.time) / kSteps * 1e6},
      {"us", (b.ns - a.ns) / 1e3},
      {"L2 trips", double(b.near - a.near)},
      {"memory trips", double(b.far - a.far)},
      {"grid barriers", double(b.grid_barriers - a.grid_barriers)},
      {"block barriers", double(b.block_barriers - a.block_barriers)},
      {"wavefronts", double(u.wavefronts - t.wavefronts)},
      {"conflicts", double(u.conflicts - t.conflicts)},
      {"KiB from L2", double(u.sectors - t.sectors) / 32},
      {"of it unused", double(u.wasted - t.wasted) / 32},
      {"FFMA", double(u.fma - t.fma) / 32},
      {"HMMA", double(u.mma - t.mma)},
  };
  for (const auto& [name, value] : values) std::printf("%s\t%.10g\n", name, value);
}

}  // namespace

int main(int count, char** words) {
  if (count != 4) return 2;
  emu::options().costs = true;
  for (const Mar& mar : kMars) {
    if (std::string(words[1]) != mar.name) continue;
    const int64_t rows = std::stoll(words[2]);
    const std::string type = words[3];
    if (type == "float32") print<float>(mar, rows);
    if (type == "bfloat16") print<bfloat16>(mar, rows);
  }
}
