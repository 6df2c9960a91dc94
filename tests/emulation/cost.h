#pragma once

// What a launch would cost on a device: a clock for each thread that runs by rules instead of an
// accelerator (docs/gpu_without_a_gpu.md). Counted are round trips to memory that wait for each
// other, barriers, wavefronts of shared memory with their bank conflicts, sectors, FFMA and HMMA.
// Not seen: addresses, loops, additions.

#include <cstdint>
#include <map>
#include <memory>
#include <unordered_set>
#include <vector>

namespace marfast::emulation {

struct Thread;
struct Block;

// Of an H100 SXM, nanoseconds: data sheets and published microbenchmarks; none was measured here.
struct Rates {
  double cycle = 0.57;
  double issue = 2 * cycle;       // of an instruction that is counted, with its addresses
  double l1 = 33 * cycle;         // shared memory, and a hit in L1
  double l2 = 200, memory = 600;  // a round trip
  double shuffle = 23 * cycle;
  double bar_sync = 20;
  double release = 400, arrival = 250, poll = 350;  // a fence, an atomic's way, a load of it
  double fma = 4 * cycle, mma = 33 * cycle;
  double byte = 1 / 41.7;     // from L2, of one of 132 SMs
  double hmma = 1.6 * cycle;  // m16n8k16, at 62 % of the peak
  int in_flight = 8;          // loads of a thread that wait together
};

// What happened before, one after another, on the way that took longest.
struct Path {
  double ns = 0;
  uint32_t near = 0, far = 0, block_barriers = 0, grid_barriers = 0;
};

// Of a block: how often in all.
struct Totals {
  uint64_t wavefronts = 0, conflicts = 0;  // of shared memory; those beyond one for each 128 bytes
  uint64_t sectors = 0, wasted = 0;        // 32 bytes from L2; those beyond what was asked for
  uint64_t fma = 0, mma = 0;               // of a thread; of a warp
};

struct Costs {
  Path path;      // the longest of all threads
  Totals totals;  // of the block that has the most wavefronts
};

// What of a thread's time isn't over.
struct ThreadCost {
  Path path, polling;
  bool polls = false;
  struct Batch {
    int loads = 0;
    double latency = 0;
  } global, shared;
  std::map<const void*, double> ready;  // registers
  float sum = 0;                        // the latest FMA's
};

// An instruction of a warp: lanes come one by one.
struct Instruction {
  struct Once {
    uintptr_t at[32];
    uint32_t lanes = 0;
  };
  int bytes = 0;
  bool shared = false;
  size_t done = 0;
  std::vector<Once> rows;
  size_t next[32] = {};
};

struct BlockCost {
  Totals totals;
  double begun = 0, pipe = 0, bytes = 0, fma = 0, mma = 0;  // since the latest bar_sync
  double copied = 0;                                        // when cp.async's queue is empty
  std::unordered_set<uintptr_t> cached;                     // sectors
  std::vector<std::map<uint32_t, Instruction>> warps;
};

namespace cost {
bool counted();
void access(uintptr_t at, int bytes, bool write, bool caches, uint32_t where);
double copy(uintptr_t shared, uintptr_t global, int bytes, uint32_t where);  // when it has landed
void wait(double until);
void meet(const std::vector<Thread*>&, Block* whole);
void meet_lanes(const std::vector<Thread*>&, const char* name);
void load_matrix(const uint32_t* registers, int matrices);
void mma(const float* d, const uint32_t* a, const uint32_t* b);
void fma(float addend, float sum);
void atomic(const void* at, bool read, bool write);
void finish(Thread&);
}  // namespace cost

}  // namespace marfast::emulation
