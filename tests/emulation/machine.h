#pragma once

// What the emulator's files share: a launch's threads, blocks and clocks.

#include <deque>
#include <map>
#include <memory>

#include "emulator.h"
#include "fiber.h"

namespace marfast::emulation {

// A thread's clock holds, for each thread, how much of its past has happened before. Within the
// block it is the thread's own vector; of other blocks it keeps shared snapshots, which arrive by
// release and acquire only.
using BlockClock = std::vector<uint32_t>;                          // [threads of a block]
using GridClock = std::vector<std::shared_ptr<const BlockClock>>;  // [blocks]
using Snapshot = std::shared_ptr<const GridClock>;

struct Copy {
  unsigned char* to;
  const unsigned char* from;
  int bytes, valid, group;
  Site site;
  double lands;  // by the costs' clock
};

struct Block;

struct Thread {
  Block* block;
  unsigned local;
  uint32_t id;  // unique over launches, from 1
  BlockClock clock;
  Snapshot others, fenced, seen;  // known; published by a fence; read, but not yet fenced
  std::vector<Copy> copies;
  int groups = 0;
  ThreadCost cost;
  Fiber fiber;
  bool done = false;
};

struct Barrier {
  int expected = 0;
  Site site{};
  std::vector<Thread*> waiting;
};

struct WarpOp {
  const char* name = nullptr;
  Site site{};
  uint32_t mask = 0, arrived = 0;
  void* lanes[32] = {};
};

struct Block {
  unsigned index, first;  // its place in the grid, its first thread
  unsigned char* shared;
  int live;
  bool has_written = false;  // to memory that isn't its own
  Barrier barriers[16];
  std::vector<WarpOp> warps;
  BlockCost cost;
};

constexpr size_t stack_bytes = 64 << 10;

struct Grid {
  Launch shape;
  const std::function<void()>* body;
  unsigned size;       // threads of a block
  unsigned apart = 1;  // costs are of every so many blocks, each of which stands for its neighbours
  std::vector<Block> blocks;
  std::vector<Thread> threads;
  std::deque<Thread*> ready, held;  // held: of the late block
  unsigned late;
  unsigned char* stacks;
  size_t remaining, idle = 0;
  uint32_t first_id;
  Fiber main;
  uint64_t random;
  Site spinning{"unknown", 0};               // the latest load of an atomic
  std::map<const void*, Snapshot> released;  // by atomic variable
  std::unique_ptr<Report> failure;
};

extern Grid* grid;
extern Thread* current;  // none where the host or a wrapper runs

inline uintptr_t number(const void* p) { return reinterpret_cast<uintptr_t>(p); }

// memory.cpp: clocks, shadow memory
void tick(Thread&);
Snapshot join(const Snapshot&, const Snapshot&);
Snapshot snapshot(Thread&);
void learn(Thread&, const Snapshot&);
void meet(const std::vector<Thread*>&);
enum class Role { plain, strong_access, copy_issue, copy_landing };
void check(uintptr_t at, int bytes, int alignment, bool write, uint32_t where,
           Role role = Role::plain);
void require(Space, uintptr_t at, int bytes, uint32_t where);
void land(const Copy&);
enum class Memory { own, constant, shared, global, far };
Memory memory_of(uintptr_t at);
void add_region(const void* begin, size_t bytes, bool written, const char* name, int block);
size_t count_regions();
void keep_regions(size_t count);

// threads.cpp: scheduling, reports
void leave();
void make_ready(Thread&);
void yield();
// Under the random schedule. idle: whether a thread that does so for long may be spinning.
void maybe_yield(unsigned one_in, bool idle = true);
void wake(std::vector<Thread*>&);
uint32_t place(const void* pc);
uint32_t place(Site);
std::string text(uint32_t place);
std::string name(uint32_t thread_id);
[[noreturn]] void stop(const std::string& kind, uint32_t at, const std::string& what);

}  // namespace marfast::emulation
