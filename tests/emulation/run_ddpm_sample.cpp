// Runs the persistent ddpm_sample in the emulator: sizes and settings as arguments, tensors as one
// file of each, the result to standard output. With "faults", each synchronisation that a run
// reaches is then dropped in turn; a line on standard error says what became of it.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "cuda/ddpm_sample.cuh"

namespace {

using namespace marfast;

using Bytes = std::vector<char>;

struct Input {
  std::string folder;
  Bytes read(const std::string& name) const {
    std::ifstream file(folder + "/" + name, std::ios::binary);
    return Bytes(std::istreambuf_iterator<char>(file), {});
  }
};

// Memory that the kernel may touch for as long as this lives.
struct Memory {
  Bytes bytes;
  Memory(Bytes from, bool written, const char* name) : bytes(std::move(from)) {
    emulation::add_memory(bytes.data(), bytes.size(), written, name);
  }
  Memory(const Memory&) = delete;
  ~Memory() { emulation::remove_memory(bytes.data()); }
  template <class T>
  T* as() {
    return reinterpret_cast<T*>(bytes.data());
  }
};

template <class T>
Bytes sample(const Input& in, cuda::PersistentSample a, int64_t rows) {
  const int64_t w = a.shape.width, c = a.shape.channels, size = sizeof(T);
  Memory noise(in.read("noise"), true, "noise"),
      step_noise(in.read("step_noise"), true, "step_noise");
  Memory condition(in.read("cond"), true, "cond"), time(in.read("time"), true, "time");
  Memory schedule(in.read("schedule"), true, "schedule");
  Memory guidance(in.read("guidance"), true, "guidance");
  std::vector<std::unique_ptr<Memory>> weights;
  Bytes table;
  for (int64_t i = 0; i < 12 + 8 * a.shape.depth; ++i) {
    weights.push_back(std::make_unique<Memory>(in.read(std::to_string(i)), true, "weight"));
    const char* at = weights.back()->bytes.data();
    table.insert(table.end(), reinterpret_cast<char*>(&at), reinterpret_cast<char*>(&at + 1));
  }
  Memory pointers(table, true, "weights"), words(Bytes(8, 0), true, "barrier");
  auto floats = [](int64_t n) { return Bytes(4 * n); };
  Memory out(floats(a.tokens * c), false, "out"), state(floats(a.tokens * c), false, "state");
  Memory times(floats(a.steps * w), false, "time"), embedded(floats(rows * w), false, "embedded");
  Memory x(floats(rows * w), false, "x");
  Memory modulation(floats(a.chunk * rows * (3 * a.shape.depth + 2) * w), false, "modulation");
  Memory time_hidden(Bytes(size * a.steps * w), false, "time_hidden");
  Memory activated(Bytes(size * a.chunk * rows * w), false, "activated");
  Memory normed(Bytes(size * rows * w), false, "normed"),
      hidden(Bytes(size * rows * w), false, "hidden");
  a.out = out.as<float>();
  a.noise = noise.as<float>();
  a.step_noise = step_noise.as<float>();
  a.condition = condition.as<void>();
  a.time_embedding = time.as<void>();
  a.weights = pointers.as<const void*>();
  a.schedule = schedule.as<float>();
  a.guidance = guidance.as<float>();
  a.time = times.as<float>();
  a.embedded = embedded.as<float>();
  a.x = x.as<float>();
  a.modulation = modulation.as<float>();
  a.state = state.as<float>();
  a.time_hidden = time_hidden.as<void>();
  a.activated = activated.as<void>();
  a.normed = normed.as<void>();
  a.hidden = hidden.as<void>();
  a.barrier = words.as<cuda::GridBarrierWords>();
  const cuda::SharedLayout layout(a.shape, sizeof(T) == 4 ? DType::f32 : DType::bf16, a.row_tile,
                                  a.columns);
  const int64_t products = 2 * a.shape.depth;
  const int64_t slots = a.staged && a.stationary < products ? a.stationary + 1 : a.stationary;
  emulation::Launch shape;
  shape.grid.x = a.row_groups * a.column_groups;
  shape.block.x = cuda::kSampleThreads;
  shape.shared_bytes = layout.size(slots);
  emulation::launch(shape, cuda::ddpm_sample<T>, a);
  if (a.barrier->error) std::fprintf(stderr, "the grid barrier gave up\n"), std::exit(4);
  return out.bytes;
}

Bytes any(const std::string& dtype, const Input& in, const cuda::PersistentSample& a,
          int64_t rows) {
  if (dtype == "f32") return sample<float>(in, a, rows);
  if (dtype == "bf16") return sample<bfloat16>(in, a, rows);
  return sample<float16>(in, a, rows);
}

}  // namespace

// folder dtype schedule C D w d F N S chunk guided clip temperature P Q tile columns stationary
// staged once [faults]
int main(int, char** v) {
  auto number = [&](int i) { return std::atoll(v[i]); };
  cuda::PersistentSample a{};
  a.shape = {number(4), number(5), number(6), number(7), number(8)};
  a.tokens = number(9), a.steps = number(10), a.chunk = number(11);
  a.guided = number(12), a.clip_denoised = number(13);
  a.temperature = static_cast<float>(std::atof(v[14]));
  a.row_groups = number(15), a.column_groups = number(16), a.row_tile = number(17);
  a.columns = number(18), a.stationary = number(19), a.staged = number(20);
  a.normalise_once = number(21);
  a.step_noise_stride = a.tokens * a.shape.channels;
  a.limit_ns = 600'000'000'000;
  const int64_t rows = a.guided ? 2 * a.tokens : a.tokens;
  emulation::options().schedule = static_cast<emulation::Schedule>(number(3));
  const Input in{v[1]};
  try {
    const Bytes right = any(v[2], in, a, rows);
    std::fwrite(right.data(), 1, right.size(), stdout);
    if (!v[22]) return 0;
    a.limit_ns = 2'000'000'000;
    for (const auto& site : emulation::reached()) {
      emulation::plant_fault(site.operation, site.file, site.line);
      std::string result = "unnoticed";
      try {
        if (any(v[2], in, a, rows) != right) result = "wrong";
      } catch (const emulation::Report& report) {
        result = report.kind;
      }
      emulation::remove_fault();
      std::fprintf(stderr, "%s %s:%d %s\n", site.operation.c_str(),
                   std::strrchr(site.file.c_str(), '/') + 1, site.line, result.c_str());
    }
  } catch (const emulation::Report& report) {
    std::fprintf(stderr, "%s\n", report.what());
    return 3;
  }
}
