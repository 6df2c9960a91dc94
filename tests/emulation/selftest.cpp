// Runs the kernels of kernels.cuh and grid_kernels.cuh under every schedule, or (`selftest faults`)
// the right ones with each synchronisation dropped or weakened in turn. Prints what was reported,
// or "ok" where the result is right.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "grid_kernels.cuh"

using namespace marfast;
namespace emu = marfast::emulation;

namespace {

float in[256], out[256];
uint32_t counter[1];

float as_bfloat16_pair(int low, int high) {  // small integers, exact
  float a = low, b = high, both;
  uint32_t x, y;
  std::memcpy(&x, &a, 4);
  std::memcpy(&y, &b, 4);
  x = x >> 16 | (y & 0xffff0000);
  std::memcpy(&both, &x, 4);
  return both;
}

int element(int i) { return i * 37 % 11 - 5; }

bool sum_is_right() {
  for (int b = 0; b < 2; ++b) {
    float sum = 0;
    for (int t = 0; t < 64; ++t) sum += in[b * 64 + t];
    if (out[b] != sum) return false;
  }
  return true;
}
bool warp_is_right() {
  for (int t = 0; t < 64; ++t)
    if (out[t] != in[t ^ 31]) return false;
  return true;
}
bool pairs_are_right() {
  for (int t = 0; t < 256; ++t)
    if (out[t] != in[(t % 128 ^ 32) + t / 128]) return false;
  return true;
}
bool shuffles_are_right() {
  for (int t = 0; t < 64; ++t) {
    const int first = t / 32 * 32;
    float sum = in[first] + in[t % 32 == 31 ? t : t + 1];
    for (int i = 0; i < 32; ++i) sum += in[first + i];
    if (out[t] != sum) return false;
  }
  return true;
}
bool copies_are_right() {
  for (int t = 0; t < 64; ++t)
    if (out[t] != in[63 - t] + in[127 - t]) return false;
  return true;
}
bool mma_is_right() {
  for (int r = 0; r < 16; ++r)
    for (int c = 0; c < 8; ++c) {
      float sum = 0;
      for (int k = 0; k < 16; ++k) sum += element(r * 16 + k) * element(256 + c * 16 + k);
      if (out[r * 8 + c] != sum) return false;
    }
  return true;
}
bool mma_trans_is_right() {
  for (int r = 0; r < 16; ++r)
    for (int c = 0; c < 8; ++c) {
      float sum = 0;
      for (int k = 0; k < 16; ++k) sum += element(r * 16 + k) * element(256 + k * 8 + c);
      if (out[r * 8 + c] != sum) return false;
    }
  return true;
}
bool conversions_are_right() {
  for (int t = 0; t < 32; ++t)
    if (out[t] != 0) return false;
  return true;
}
bool fences_are_right() { return out[1] == in[0] && out[3] == in[0]; }
bool anything() { return true; }

struct Case {
  const char* name;
  void (*kernel)(Io);
  unsigned blocks, threads;
  bool (*right)();
  size_t shared = 4096;
  bool cooperative = true;
};
#define CASE(name, ...) {#name, name, __VA_ARGS__}

const Case cases[] = {
    CASE(right_sum, 2, 64, sum_is_right),
    CASE(right_warp_barrier, 1, 64, warp_is_right),
    CASE(right_named_barriers, 1, 128, pairs_are_right),
    CASE(right_most_shared_memory, 1, 64, anything, 227 << 10),
    CASE(shared_memory_too_much, 1, 64, anything, (227 << 10) + 1),
    CASE(race_another_named_barrier, 1, 128, anything),
    CASE(race_too_few_at_named_barrier, 1, 96, anything),
    CASE(divergence_counts_at_named_barrier, 1, 96, anything),
    CASE(divergence_part_of_a_warp, 1, 64, anything),
    CASE(right_shuffles, 1, 64, shuffles_are_right),
    CASE(right_long_stretch, 1, 64, anything),
    CASE(right_copies, 1, 64, copies_are_right),
    CASE(right_grid_barrier, 3, 64, anything),
    CASE(right_fences, 2, 32, fences_are_right),
    CASE(right_release_store, 2, 32, fences_are_right),
    CASE(right_mma, 1, 32, mma_is_right),
    CASE(right_mma_trans, 1, 32, mma_trans_is_right),
    CASE(right_conversions, 1, 32, conversions_are_right),
    CASE(race_missing_barrier, 1, 64, anything),
    CASE(race_in_global_memory, 1, 64, anything),
    CASE(race_between_blocks, 2, 64, anything),
    CASE(race_warp_barrier_only, 1, 64, anything),
    CASE(race_wait_without_barrier, 1, 64, anything),
    CASE(race_relaxed_flag, 2, 32, anything),
    CASE(race_relaxed_reader, 2, 32, anything),
    CASE(not_arrived_missing_wait, 1, 64, anything),
    CASE(not_arrived_wait_too_weak, 1, 64, anything),
    CASE(out_of_bounds_global, 1, 64, anything),
    CASE(out_of_bounds_shared, 1, 64, anything),
    CASE(misaligned_vector, 1, 64, anything),
    CASE(misaligned_copy, 1, 64, anything),
    CASE(address_space_global_load_of_shared_memory, 1, 64, anything),
    CASE(address_space_shared_store_to_global_memory, 1, 64, anything),
    CASE(address_space_matrix_in_global_memory, 1, 32, anything),
    CASE(address_space_copy_of_shared_memory, 1, 64, anything),
    CASE(residency_not_cooperative, 2, 64, anything, 4096, false),
    CASE(uninitialised_shared, 1, 64, anything),
    CASE(divergence_at_barrier, 1, 64, anything),
    CASE(divergence_ended_thread, 1, 64, anything),
    CASE(missing_lane_in_shuffle, 1, 64, anything),
    CASE(misaligned_matrix, 1, 32, anything),
    CASE(uninitialised_matrix, 1, 32, anything),
    CASE(not_arrived_matrix, 1, 32, anything),
    CASE(missing_lane_in_matrix, 1, 32, anything),
    CASE(deadlock_named_barrier, 1, 64, anything),
    CASE(deadlock_spin, 1, 32, anything),
    CASE(trap_always, 1, 32, anything),
    CASE(late_block_misses_a_reset, 2, 64, anything),
    CASE(late_block_takes_the_counter_as_found, 2, 64, anything),
};

std::string run(const Case& which) {
  for (int i = 0; i < 256; ++i) in[i] = static_cast<float>(i * 7 % 31);
  if (which.right == mma_is_right || which.right == mma_trans_is_right)
    for (int i = 0; i < 192; ++i) in[i] = as_bfloat16_pair(element(2 * i), element(2 * i + 1));
  for (float& value : out) value = NAN;
  counter[0] = 0;
  emu::add_memory(in, sizeof in, true, "in");
  emu::add_memory(out, sizeof out, false, "out");
  emu::add_memory(counter, sizeof counter, true, "count");
  try {
    emu::launch({{which.blocks}, {which.threads}, which.shared, which.cooperative}, which.kernel,
                Io{out, in, counter});
  } catch (const emu::Report& report) {
    return report.what();
  }
  return which.right() ? "ok" : "wrong result";
}

bool set_schedule(const std::string& name) {
  if (name == "forward") emu::options().schedule = emu::Schedule::forward;
  if (name == "reverse") emu::options().schedule = emu::Schedule::reverse;
  if (name == "random") emu::options().schedule = emu::Schedule::random;
  if (name == "late") emu::options().schedule = emu::Schedule::late;
  return true;
}

// Drops or weakens each synchronisation of the right kernels in turn.
void faults() {
  for (const Case& which : cases) {
    if (std::strncmp(which.name, "right_", 6) != 0) continue;
    emu::remove_fault();
    run(which);
    for (const auto& site : emu::reached()) {
      std::string found = "ok";
      for (const char* schedule : {"forward", "reverse", "random"}) {
        set_schedule(schedule);
        emu::plant_fault(site.operation, site.file, site.line);
        if (found == "ok") found = run(which);
      }
      std::printf("%s\t%s\t%d\t%s\n", which.name, site.operation.c_str(), site.line, found.c_str());
    }
  }
}

}  // namespace

int main(int count, char** words) {
  const std::string name = count > 1 ? words[1] : "";
  if (name == "faults") return faults(), 0;
  for (const std::string schedule : {"forward", "reverse", "random", "late"})
    for (const Case& which : cases)
      for (int seed = 1; seed <= (schedule == "random" || schedule == "late" ? 3 : 1); ++seed) {
        set_schedule(schedule);
        emu::options().seed = seed;
        std::printf("%s\t%s\t%s\n", which.name, schedule.c_str(), run(which).c_str());
      }
}
