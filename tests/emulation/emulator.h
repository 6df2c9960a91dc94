#pragma once

// Runs CUDA kernels on the host, one fiber a thread, and reports what they do wrong
// (docs/gpu_without_a_gpu.md). The kernels' file is compiled with -fsanitize=thread and linked with
// the emulator instead of libtsan: so every plain load and store calls it.

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "cost.h"

namespace marfast::emulation {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

// Where a wrapper of ptx.cuh is called.
struct Site {
  const char* file;
  int line;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

// The first thing found wrong; it ends the launch.
struct Report : std::exception {
  std::string kind;  // race, uninitialised, not_arrived, out_of_bounds, misaligned, divergence,
                     // missing_lane, deadlock, trap, shared_memory, address_space, residency
  std::string file;
  int line = 0;
  unsigned block = 0, thread = 0;
  std::string message;
  const char* what() const noexcept override { return message.c_str(); }
};

// late: a block stands still until no other gets on; then it may, and the next stands still.
enum class Schedule { forward, reverse, random, late };

struct Launch {
  Dim3 grid, block;
  size_t shared_bytes = 0;
  bool cooperative = false;  // all blocks resident: they may wait for each other
};

struct Options {
  Schedule schedule = Schedule::forward;
  uint64_t seed = 1;
  bool costs = false;  // counted instead of checking what is done
};
Options& options();

// Memory that kernels may touch. Without `written`, a read before a write is reported.
void add_memory(const void* begin, size_t bytes, bool written, const char* name);
void remove_memory(const void* begin);
// What costs take to be too large for L2.
void is_far(const void* begin);

// Runs `body` as every thread of the grid, all blocks resident; `parameters` are readable, too.
void launch(const Launch& shape, const std::function<void()>& body,
            const void* parameters = nullptr, size_t parameter_bytes = 0);

template <typename Kernel, typename Args>
void launch(const Launch& shape, Kernel kernel, const Args& args) {
  struct Both {
    Kernel kernel;
    Args args;
  } both{kernel, args};
  launch(shape, [&both] { both.kernel(both.args); }, &both, sizeof both);
}

// Blocks of the latest launch that wrote nothing to memory.
size_t idle_blocks();

// Of the launches since the last call.
Costs take_costs();

// Synchronisation that launches reached, and the one that is dropped or weakened.
struct Reached {
  std::string operation, file;
  int line;
};
std::vector<Reached> reached();
void forget_reached();
void plant_fault(const std::string& operation, const std::string& file, int line);
void remove_fault();

// What ptx.cuh calls.
Dim3 thread_index(), block_index(), block_size(), grid_size();
unsigned char* shared_memory();
void bar_sync(int id, int threads, Site);
using Collective = void (*)(void** lanes);
void warp_collective(const char* name, uint32_t mask, void* lane, Collective, bool orders, Site);
enum class Space { global, shared };
void access(const void*, int bytes, Space, bool write, bool caches, Site);
void cp_async(void* shared, const void* global, int bytes, int valid, Site);
void cp_async_commit(Site);
void cp_async_wait(int groups, Site);
void fence(Site);
enum class Atomic { load, store, add };
uint32_t atomic(Atomic, uint32_t*, uint32_t, bool acquire, bool release, const char* name, Site);
void pause(Site);
[[noreturn]] void trap(Site);
unsigned lane();
void load_matrix(uint32_t* registers, const void* row, int matrices, bool trans, Site);
void mma(float* d, const uint32_t* a, const uint32_t* b, bool half, Site);
float fma(float a, float b, float c);

}  // namespace marfast::emulation
