#include "emulator.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <new>
#include <tuple>

#if !defined(__x86_64__) || !defined(__linux__)
#error "the emulator switches fibers on x86-64 Linux only"
#endif

// ---- Fibers: six registers and a stack pointer --------------------------------------------------

extern "C" void marfast_switch(void** save, void* load);
asm(R"(
.text
.globl marfast_switch
.hidden marfast_switch
marfast_switch:
  push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
  ret
)");

namespace marfast::emulation {
namespace {

// ---- Clocks: who knows of whose past ------------------------------------------------------------
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
  void* stack_pointer = nullptr;
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
  Barrier barriers[16];
  std::vector<WarpOp> warps;
};

// ---- Shadow memory: one cell for two bytes, the smallest element kernels have -------------------

constexpr uint32_t never = 0xffffffff, host = 0;
constexpr uint8_t pending = 1, strong = 2, strong_read[2] = {4, 8};

struct Cell {
  uint32_t writer = never, written = 0;
  uint32_t reader[2] = {host, host}, read[2] = {};  // the first since the write, and the latest
  uint32_t write_place = 0, read_place[2] = {};
  uint8_t flags = 0;
};

struct Region {
  uintptr_t begin, end;
  std::string name;
  std::vector<Cell> cells;
  int block;  // whose shared memory, or -1
};

std::vector<std::unique_ptr<Region>> regions;
std::map<const void*, Snapshot> published;  // by atomic variable
std::vector<Site> places;
std::map<std::tuple<const char*, int>, uint32_t> place_of;
std::map<std::tuple<std::string, std::string, int>, bool> sites;  // reached, and whether faulty
std::tuple<std::string, std::string, int> fault;

struct Grid {
  Launch shape;
  const std::function<void()>* body;
  unsigned size;  // threads of a block
  std::vector<Block> blocks;
  std::vector<Thread> threads;
  std::deque<Thread*> ready;
  unsigned char* stacks;
  size_t stack, remaining, idle = 0;
  uint32_t first_id;
  void* main = nullptr;
  uint64_t random;
  std::unique_ptr<Report> failure;
};

Grid* grid = nullptr;
Thread* current = nullptr;
uint32_t next_id = 1;
Options chosen;
constexpr uint32_t is_site = 0x80000000;

uint64_t random_number() {
  uint64_t& x = grid->random;
  x ^= x << 13, x ^= x >> 7, x ^= x << 17;
  return x;
}

// ---- Reports ------------------------------------------------------------------------------------

uintptr_t module_begin() {
  static const uintptr_t begin = [] {
    Dl_info info;
    dladdr(reinterpret_cast<void*>(&marfast_switch), &info);
    return reinterpret_cast<uintptr_t>(info.dli_fbase);
  }();
  return begin;
}

uint32_t place(const void* pc) {
  return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(pc) - 1 - module_begin());
}

uint32_t place(Site site) {
  auto [at, fresh] = place_of.try_emplace({site.file, site.line}, places.size());
  if (fresh) places.push_back(site);
  return at->second | is_site;
}

std::pair<std::string, int> source(uint32_t place) {
  if (place & is_site) return {places[place & ~is_site].file, places[place & ~is_site].line};
  Dl_info info;
  dladdr(reinterpret_cast<void*>(&marfast_switch), &info);
  char command[4096], line[4096] = "";
  std::snprintf(command, sizeof command, "addr2line -e '%s' 0x%x 2> /dev/null", info.dli_fname,
                place);
  if (FILE* pipe = popen(command, "r")) {
    if (!std::fgets(line, sizeof line, pipe)) line[0] = 0;
    pclose(pipe);
  }
  char* colon = std::strrchr(line, ':');
  if (!colon || line[0] == '?') return {"unknown", 0};
  *colon = 0;
  return {line, std::atoi(colon + 1)};
}

std::string text(uint32_t place) {
  auto [file, line] = source(place);
  return file + ":" + std::to_string(line);
}

std::string name(uint32_t id) {
  if (id < grid->first_id) return "the host";
  id -= grid->first_id;
  return "block " + std::to_string(id / grid->size) + ", thread " + std::to_string(id % grid->size);
}

void fail(const Thread& thread, const std::string& kind, uint32_t at, const std::string& what) {
  auto report = std::make_unique<Report>();
  std::tie(report->file, report->line) = source(at);
  report->kind = kind;
  report->block = thread.block->index;
  report->thread = thread.local;
  report->message = kind + " at " + report->file + ":" + std::to_string(report->line) + ", " +
                    name(thread.id) + ": " + what;
  if (chosen.schedule == Schedule::random)
    report->message += " (random schedule, seed " + std::to_string(chosen.seed) + ")";
  grid->failure = std::move(report);
}

// Ends the launch: no fiber runs again.
[[noreturn]] void stop(const std::string& kind, uint32_t at, const std::string& what) {
  fail(*current, kind, at, what);
  void* lost;
  marfast_switch(&lost, grid->main);
  __builtin_unreachable();
}

// ---- Scheduling ---------------------------------------------------------------------------------

void leave() {
  Thread* self = current;
  marfast_switch(&self->stack_pointer, grid->main);
}

void yield() {
  grid->ready.push_back(current);
  leave();
}

void progress() { grid->idle = 0; }

// idle: whether a thread that does so for long may be spinning.
void maybe_yield(unsigned one_in, bool idle = true) {
  if (chosen.schedule != Schedule::random || random_number() % one_in != 0) return;
  if (!idle && grid->idle > 0) --grid->idle;
  yield();
}

void wake(std::vector<Thread*>& threads) {
  progress();
  std::sort(threads.begin(), threads.end(), [](Thread* a, Thread* b) { return a->id < b->id; });
  if (chosen.schedule == Schedule::reverse) std::reverse(threads.begin(), threads.end());
  for (Thread* thread : threads)
    if (thread != current) grid->ready.push_back(thread);
  threads.clear();
}

// ---- Ordering -----------------------------------------------------------------------------------

bool happened(const Thread& thread, uint32_t id, uint32_t when) {
  if (id < grid->first_id) return true;
  const uint32_t at = id - grid->first_id, block = at / grid->size, local = at % grid->size;
  if (block == thread.block->index) return thread.clock[local] >= when;
  if (!thread.others) return false;
  const auto& known = (*thread.others)[block];
  return known && (*known)[local] >= when;
}

void raise(BlockClock& to, const BlockClock& from) {
  for (size_t i = 0; i < to.size(); ++i) to[i] = std::max(to[i], from[i]);
}

Snapshot join(const Snapshot& a, const Snapshot& b) {
  if (!b || a == b) return a;
  if (!a) return b;
  auto both = std::make_shared<GridClock>(*a);
  for (size_t i = 0; i < both->size(); ++i) {
    auto& mine = (*both)[i];
    const auto& other = (*b)[i];
    if (!other || mine == other) continue;
    if (!mine) {
      mine = other;
    } else {
      auto merged = std::make_shared<BlockClock>(*mine);
      raise(*merged, *other);
      mine = merged;
    }
  }
  return both;
}

void tick(Thread& thread) { ++thread.clock[thread.local]; }

Snapshot snapshot(Thread& thread) {
  auto all = thread.others ? std::make_shared<GridClock>(*thread.others)
                           : std::make_shared<GridClock>(grid->blocks.size());
  (*all)[thread.block->index] = std::make_shared<BlockClock>(thread.clock);
  tick(thread);
  return all;
}

void learn(Thread& thread, const Snapshot& from) {
  if (!from) return;
  if (const auto& own = (*from)[thread.block->index]) raise(thread.clock, *own);
  thread.others = join(thread.others, from);
}

void meet(const std::vector<Thread*>& threads) {
  BlockClock clock(grid->size, 0);
  Snapshot others;
  for (Thread* thread : threads) {
    raise(clock, thread->clock);
    others = join(others, thread->others);
  }
  for (Thread* thread : threads) {
    thread->clock = clock;
    thread->others = others;
    tick(*thread);
  }
}

// Notes that a site is reached; true if it is the one to be dropped or weakened.
bool faulty(const char* operation, Site site) {
  auto key = std::make_tuple(std::string(operation), std::string(site.file), site.line);
  return sites.try_emplace(key, key == fault).first->second;
}

// ---- Memory accesses ----------------------------------------------------------------------------

int write_or_read_only(dl_phdr_info* info, size_t, void* address) {
  const auto at = *static_cast<uintptr_t*>(address);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& part = info->dlpi_phdr[i];
    const uintptr_t begin = info->dlpi_addr + part.p_vaddr;
    if (part.p_type == PT_LOAD && at >= begin && at < begin + part.p_memsz)
      return part.p_flags & PF_W ? 1 : 2;
  }
  return 0;
}

Region* find(uintptr_t at, uintptr_t end) {
  static size_t last = 0;
  if (last < regions.size() && at >= regions[last]->begin && end <= regions[last]->end)
    return regions[last].get();
  for (size_t i = 0; i < regions.size(); ++i)
    if (at >= regions[i]->begin && end <= regions[i]->end) return regions[last = i].get();
  return nullptr;
}

enum class Role { plain, strong_access, copy_issue, copy_landing };

void check(uintptr_t at, int bytes, int alignment, bool write, uint32_t where,
           Role role = Role::plain) {
  Thread& thread = *current;
  const auto stacks = reinterpret_cast<uintptr_t>(grid->stacks);
  if (at - stacks < grid->stack * grid->threads.size()) {
    if ((at - stacks) / grid->stack == thread.id - grid->first_id) return;
    stop("out_of_bounds", where, "another thread's local memory");
  }
  if (at % alignment)
    stop("misaligned", where, "an access needs alignment to " + std::to_string(alignment));
  const char* verb = write ? "writes" : "reads";
  Region* region = find(at, at + bytes);
  if (!region || (region->block >= 0 && region->block != static_cast<int>(thread.block->index))) {
    if (!region && !write && dl_iterate_phdr(write_or_read_only, &at) == 2) return;
    std::string near;
    for (const auto& other : regions)
      if (at + bytes > other->begin - 256 && at < other->end + 256)
        near = " near " + other->name + " (byte " +
               std::to_string(static_cast<int64_t>(at - other->begin)) + " of " +
               std::to_string(other->end - other->begin) + ")";
    stop("out_of_bounds", where, std::string(verb) + " " + std::to_string(bytes) + " bytes" + near);
  }
  const uint32_t clock = thread.clock[thread.local];
  for (uintptr_t i = (at - region->begin) / 2; i <= (at + bytes - 1 - region->begin) / 2; ++i) {
    Cell& cell = region->cells[i];
    const auto inside = [&] { return " byte " + std::to_string(2 * i) + " of " + region->name; };
    if (cell.flags & pending && role != Role::copy_landing)
      stop(write ? "race" : "not_arrived", where,
           verb + inside() + ", where a cp.async of " + name(cell.writer) + " (" +
               text(cell.write_place) + ") may not have landed");
    if (!write && cell.writer == never) stop("uninitialised", where, "reads" + inside());
    const bool both_strong = role == Role::strong_access && cell.flags & strong;
    if (cell.writer != never && !both_strong && !happened(thread, cell.writer, cell.written))
      stop("race", where,
           verb + inside() + ", written by " + name(cell.writer) + " at " + text(cell.write_place) +
               " with nothing to order the two");
    if (!write) {
      const int slot = happened(thread, cell.reader[0], cell.read[0]) ? 0 : 1;
      cell.reader[slot] = thread.id, cell.read[slot] = clock, cell.read_place[slot] = where;
      cell.flags &= ~strong_read[slot];
      if (role == Role::strong_access) cell.flags |= strong_read[slot];
      continue;
    }
    for (int j = 0; j < 2; ++j)
      if (!(role == Role::strong_access && cell.flags & strong_read[j]) &&
          !happened(thread, cell.reader[j], cell.read[j]))
        stop("race", where,
             "writes" + inside() + ", read by " + name(cell.reader[j]) + " at " +
                 text(cell.read_place[j]) + " with nothing to order the two");
    cell = {thread.id, clock, {}, {}, where, {}, 0};
    if (role == Role::copy_issue) cell.flags = pending;
    if (role == Role::strong_access) cell.flags = strong;
  }
}

uintptr_t number(const void* p) { return reinterpret_cast<uintptr_t>(p); }

void land(const Copy& copy) {
  if (copy.valid) check(number(copy.from), copy.valid, 1, false, place(copy.site));
  check(number(copy.to), copy.bytes, 1, true, place(copy.site), Role::copy_landing);
  std::memset(copy.to, 0, copy.bytes);
  std::memcpy(copy.to, copy.from, copy.valid);
}

void finish_thread() {
  Thread& self = *current;
  for (const Copy& copy : self.copies) land(copy);
  self.copies.clear();
  self.done = true;
  --self.block->live;
  --grid->remaining;
  progress();
  const WarpOp& op = self.block->warps[self.local / 32];
  if (op.arrived && op.mask >> self.local % 32 & 1)
    stop("missing_lane", place(op.site),
         std::string(op.name) + " waits for this thread, which has ended");
  const Barrier& barrier = self.block->barriers[0];
  if (!barrier.waiting.empty())
    stop("divergence", place(barrier.site), "bar_sync waits for this thread, which has ended");
}

void fiber() {
  (*grid->body)();
  finish_thread();
  leave();
}

void stuck(const std::string& how) {
  for (Thread& thread : grid->threads) {
    if (thread.done) continue;
    Block& block = *thread.block;
    for (int id = 0; id < 16; ++id) {
      const auto& waiting = block.barriers[id].waiting;
      if (std::find(waiting.begin(), waiting.end(), &thread) != waiting.end())
        return fail(thread, "deadlock", place(block.barriers[id].site),
                    how + "; it waits at barrier " + std::to_string(id) + " with " +
                        std::to_string(waiting.size()) + " of " +
                        std::to_string(block.barriers[id].expected) + " threads");
    }
    const WarpOp& op = block.warps[thread.local / 32];
    if (op.arrived >> thread.local % 32 & 1)
      return fail(thread, "deadlock", place(op.site),
                  how + "; it waits in " + std::string(op.name) + " for other lanes");
  }
}

Site last_spin{"unknown", 0};

}  // namespace

Options& options() { return chosen; }

void add_memory(const void* begin, size_t bytes, bool written, const char* name) {
  remove_memory(begin);
  const uintptr_t at = number(begin);
  auto region = std::make_unique<Region>(Region{at, at + bytes, name, {}, -1});
  region->cells.resize(bytes / 2 + 1);
  if (written)
    for (Cell& cell : region->cells) cell.writer = host;
  regions.push_back(std::move(region));
}

void remove_memory(const void* begin) {
  regions.erase(std::remove_if(regions.begin(), regions.end(),
                               [&](const auto& r) { return r->begin == number(begin); }),
                regions.end());
}

void launch(const Launch& shape, const std::function<void()>& body, const void* parameters,
            size_t parameter_bytes) {
  constexpr size_t most_shared = 227 << 10;  // of any architecture that the kernels are built for
  if (shape.shared_bytes > most_shared) {
    Report report;
    report.kind = "shared_memory";
    report.message = "shared_memory: the launch asks for " + std::to_string(shape.shared_bytes) +
                     " bytes; a block has " + std::to_string(most_shared) + " at most";
    throw report;
  }
  Grid now;
  now.shape = shape;
  now.body = &body;
  now.size = shape.block.x * shape.block.y * shape.block.z;
  now.random = chosen.seed * 0x9e3779b97f4a7c15 | 1;
  now.first_id = next_id;
  const unsigned blocks = shape.grid.x * shape.grid.y * shape.grid.z;
  now.remaining = size_t{blocks} * now.size;
  if (now.remaining == 0) return;
  next_id += now.remaining;
  now.stack = 64 << 10;
  now.stacks =
      static_cast<unsigned char*>(mmap(nullptr, now.stack * now.remaining, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (now.stacks == MAP_FAILED) throw std::bad_alloc();
  // A guard page a stack, as long as the kernel's number of mappings allows it.
  for (size_t i = 0; i < now.remaining && now.remaining < 16384; ++i)
    mprotect(now.stacks + i * now.stack, 4096, PROT_NONE);

  const size_t kept = regions.size();
  std::vector<std::vector<unsigned char>> shared(blocks);
  now.blocks.resize(blocks);
  now.threads.resize(now.remaining);
  for (unsigned b = 0; b < blocks; ++b) {
    Block& block = now.blocks[b];
    shared[b].assign(shape.shared_bytes + 256, 0xff);
    auto* arena = shared[b].data() + (128 - number(shared[b].data()) % 128);
    block.index = b;
    block.first = b * now.size;
    block.shared = arena;
    block.live = now.size;
    block.warps.resize((now.size + 31) / 32);
    for (unsigned i = 0; i < now.size; ++i) {
      Thread& thread = now.threads[block.first + i];
      thread.block = &block;
      thread.local = i;
      thread.id = now.first_id + block.first + i;
      thread.clock.assign(now.size, 0);
      thread.clock[i] = 1;
      auto** top = reinterpret_cast<void**>(now.stacks + (block.first + i + 1) * now.stack);
      top[-1] = nullptr;
      top[-2] = reinterpret_cast<void*>(&fiber);
      thread.stack_pointer = top - 8;
      now.ready.push_back(&thread);
    }
    auto region = std::make_unique<Region>(
        Region{number(arena), number(arena) + shape.shared_bytes, "shared memory", {}, int(b)});
    region->cells.resize(shape.shared_bytes / 2 + 1);
    regions.push_back(std::move(region));
  }
  const auto allow = [](const void* begin, size_t bytes) {
    auto region = std::make_unique<Region>(
        Region{number(begin), number(begin) + bytes, "parameters", {}, -1});
    region->cells.resize(bytes / 2 + 1);
    for (Cell& cell : region->cells) cell.writer = host;
    regions.push_back(std::move(region));
  };
  allow(&body, sizeof body);
  if (parameters) allow(parameters, parameter_bytes);
  if (chosen.schedule == Schedule::reverse) std::reverse(now.ready.begin(), now.ready.end());

  grid = &now;
  published.clear();
  while (now.remaining && !now.failure) {
    if (now.ready.empty()) {
      stuck("no thread can go on");
      break;
    }
    if (++now.idle > 10000 + 64 * now.ready.size() + 4 * now.threads.size()) {
      fail(*now.ready.front(), "deadlock", place(last_spin), "spins for a value that never comes");
      break;
    }
    const size_t pick =
        chosen.schedule == Schedule::random ? random_number() % now.ready.size() : 0;
    std::swap(now.ready[pick], now.ready.front());
    current = now.ready.front();
    now.ready.pop_front();
    marfast_switch(&now.main, current->stack_pointer);
    current = nullptr;
  }
  current = nullptr;
  regions.resize(kept);
  munmap(now.stacks, now.stack * now.threads.size());
  grid = nullptr;
  for (auto& region : regions)  // what is left of a launch that was stopped
    for (Cell& cell : region->cells) cell.flags = 0;
  if (now.failure) throw *now.failure;
}

std::vector<Reached> reached() {
  std::vector<Reached> all;
  for (const auto& [key, _] : sites)
    all.push_back({std::get<0>(key), std::get<1>(key), std::get<2>(key)});
  return all;
}
void forget_reached() { sites.clear(); }
void plant_fault(const std::string& operation, const std::string& file, int line) {
  fault = {operation, file, line};
  sites.clear();
}
void remove_fault() { plant_fault("", "", 0); }

namespace {
Dim3 unflatten(unsigned i, Dim3 size) {
  return {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
}
}  // namespace

Dim3 thread_index() { return unflatten(current->local, grid->shape.block); }
Dim3 block_index() { return unflatten(current->block->index, grid->shape.grid); }
Dim3 block_size() { return grid->shape.block; }
Dim3 grid_size() { return grid->shape.grid; }
unsigned char* shared_memory() { return current->block->shared; }
unsigned lane() { return current->local % 32; }

void bar_sync(int id, int threads, Site site) {
  if (faulty("bar_sync", site)) return;
  maybe_yield(4);
  Block& block = *current->block;
  const bool whole = threads == 0;
  Barrier& barrier = block.barriers[id];
  if (whole && block.live != static_cast<int>(grid->size))
    stop("divergence", place(site), "a thread of the block has ended before this barrier");
  const int expected = whole ? grid->size : threads;
  if (barrier.waiting.empty()) {
    barrier.expected = expected;
    barrier.site = site;
  } else if (barrier.expected != expected) {
    stop("divergence", place(site), "other threads wait at this barrier with another count");
  } else if (whole &&
             (barrier.site.line != site.line || std::strcmp(barrier.site.file, site.file) != 0)) {
    stop("divergence", place(site), "other threads wait at " + text(place(barrier.site)));
  }
  barrier.waiting.push_back(current);
  if (static_cast<int>(barrier.waiting.size()) < expected) return leave();
  meet(barrier.waiting);
  wake(barrier.waiting);
  yield();
}

void warp_collective(const char* name, uint32_t mask, void* mine, Collective collective,
                     bool orders, Site site) {
  const bool dropped = orders && faulty(name, site);
  if (dropped) return;
  maybe_yield(4);
  Block& block = *current->block;
  const unsigned at = current->local % 32, first = current->local - at;
  WarpOp& op = block.warps[current->local / 32];
  if (!(mask >> at & 1)) stop("missing_lane", place(site), "the mask leaves out its own lane");
  for (unsigned i = 0; i < 32 && !op.arrived; ++i)
    if (mask >> i & 1 && (first + i >= grid->size || grid->threads[block.first + first + i].done))
      stop("missing_lane", place(site),
           std::string(name) + ": lane " + std::to_string(i) + " has ended or never was");
  if (!op.arrived) {
    op.name = name, op.site = site, op.mask = mask;
  } else if (op.site.line != site.line || std::strcmp(op.site.file, site.file) != 0 ||
             op.mask != mask) {
    stop("divergence", place(site), "other lanes are at " + text(place(op.site)));
  }
  op.arrived |= 1u << at;
  op.lanes[at] = mine;
  if (op.arrived != op.mask) return leave();
  op.arrived = 0;
  Thread* self = current;
  current = nullptr;  // the wrappers' own accesses aren't the kernel's
  collective(op.lanes);
  current = self;
  std::vector<Thread*> lanes;
  for (unsigned i = 0; i < 32; ++i)
    if (mask >> i & 1) lanes.push_back(&grid->threads[block.first + first + i]);
  if (orders) meet(lanes);
  wake(lanes);
}

void access(const void* at, int bytes, int alignment, bool write, Site site) {
  check(number(at), bytes, alignment, write, place(site));
}

void cp_async(void* shared, const void* global, int bytes, int valid, Site site) {
  auto* to = static_cast<unsigned char*>(shared);
  if (number(global) % bytes)
    stop("misaligned", place(site),
         "cp.async's source needs alignment to " + std::to_string(bytes));
  if (valid) check(number(global), valid, 1, false, place(site));
  check(number(shared), bytes, bytes, true, place(site), Role::copy_issue);
  if (const Region* region = find(number(shared), number(shared) + bytes);
      !region || region->block < 0)
    stop("out_of_bounds", place(site), "cp.async's target isn't shared memory");
  std::memset(to, 0xff, bytes);
  current->copies.push_back(
      {to, static_cast<const unsigned char*>(global), bytes, valid, current->groups, site});
}

void cp_async_commit(Site site) {
  if (!faulty("cp_async_commit_group", site)) ++current->groups;
}

void cp_async_wait(int groups, Site site) {
  if (faulty("cp_async_wait_group", site)) ++groups;
  auto& copies = current->copies;
  size_t landed = 0;
  while (landed < copies.size() && copies[landed].group < current->groups - groups)
    land(copies[landed++]);
  copies.erase(copies.begin(), copies.begin() + landed);
  maybe_yield(4);
}

void fence(Site site) {
  if (faulty("fence_gpu", site)) return;
  learn(*current, current->seen);
  current->fenced = snapshot(*current);
}

uint32_t atomic(Atomic kind, uint32_t* at, uint32_t value, bool acquire, bool release,
                const char* name, Site site) {
  maybe_yield(2);
  if ((acquire || release) && faulty(name, site)) acquire = release = false;
  Thread& self = *current;
  check(number(at), 4, 4, kind != Atomic::store ? false : true, place(site), Role::strong_access);
  if (kind == Atomic::add) check(number(at), 4, 4, true, place(site), Role::strong_access);
  Snapshot& history = published[at];
  if (kind != Atomic::store) {
    self.seen = join(self.seen, history);
    if (acquire) learn(self, history);
  }
  const uint32_t before = *at;
  if (kind == Atomic::load) {
    last_spin = site;
    yield();
    return before;
  }
  const Snapshot mine = release ? snapshot(self) : self.fenced;
  history = kind == Atomic::add ? join(history, mine) : mine;
  *at = kind == Atomic::add ? before + value : value;
  progress();
  return before;
}

void pause() { yield(); }

void trap(Site site) { stop("trap", place(site), "the kernel gave up"); }

// ---- Matrices -----------------------------------------------------------------------------------

namespace {

struct Rows {
  uint16_t row[8];
  uint32_t* registers;
  int matrices;
  bool trans;
};

// Lane l gets, of each matrix, row l / 4 and columns 2 (l % 4) and the next; trans: of its
// transpose.
void distribute(void** lanes) {
  for (int l = 0; l < 32; ++l) {
    auto* mine = static_cast<Rows*>(lanes[l]);
    for (int m = 0; m < mine->matrices; ++m) {
      const auto element = [&](int r, int c) {
        if (mine->trans) std::swap(r, c);
        return static_cast<Rows*>(lanes[8 * m + r])->row[c];
      };
      const int r = l / 4, c = l % 4 * 2;
      mine->registers[m] = element(r, c) | uint32_t{element(r, c + 1)} << 16;
    }
  }
}

float widen(uint16_t bits, bool half) {
  uint32_t wide = uint32_t{bits} << 16;
  if (half) {
    const uint32_t sign = wide & 0x80000000, exponent = bits >> 10 & 31, fraction = bits & 1023;
    if (exponent == 0) {
      const float value = static_cast<float>(fraction) / (1 << 24);
      return sign ? -value : value;
    }
    wide = sign | (exponent == 31 ? 0x7f800000 : (exponent + 112) << 23) | fraction << 13;
  }
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

struct Product {
  float* d;
  const uint32_t *a, *b;
  bool half;
};

// d += a b, a [16, 16], b [16, 8]. The products are exact in float32; they are added one by one, k
// ascending. A GPU's order isn't defined: tests bound the difference.
void multiply(void** lanes) {
  float a[16][16], b[16][8];
  const auto lane = [&](int l) { return static_cast<Product*>(lanes[l]); };
  for (int l = 0; l < 32; ++l)
    for (int i = 0; i < 4; ++i)
      for (int half = 0; half < 2; ++half) {
        const int g = l / 4, t = l % 4 * 2 + half;
        a[g + i % 2 * 8][t + i / 2 * 8] = widen(lane(l)->a[i] >> 16 * half, lane(l)->half);
        if (i < 2) b[t + i * 8][g] = widen(lane(l)->b[i] >> 16 * half, lane(l)->half);
      }
  for (int l = 0; l < 32; ++l)
    for (int i = 0; i < 4; ++i) {
      const int row = l / 4 + i / 2 * 8, column = l % 4 * 2 + i % 2;
      for (int k = 0; k < 16; ++k) lane(l)->d[i] += a[row][k] * b[k][column];
    }
}

}  // namespace

void load_matrix(uint32_t* registers, const void* row, int matrices, bool trans, Site site) {
  Rows mine{{}, registers, matrices, trans};
  if (lane() < 8u * matrices) {
    check(number(row), 16, 16, false, place(site));
    std::memcpy(mine.row, row, 16);
  }
  warp_collective("ldmatrix", ~0u, &mine, distribute, false, site);
}

void mma(float* d, const uint32_t* a, const uint32_t* b, bool half, Site site) {
  Product mine{d, a, b, half};
  warp_collective("mma", ~0u, &mine, multiply, false, site);
}

namespace {
void plain(void* at, size_t bytes, int alignment, bool write, void* pc) {
  if (!current) return;
  maybe_yield(64, false);
  check(number(at), static_cast<int>(bytes), alignment, write, place(pc));
}
}  // namespace

}  // namespace marfast::emulation

// ---- What -fsanitize=thread calls ---------------------------------------------------------------

#define PC __builtin_return_address(0)
#define HOOKS(n)                                                                              \
  void __tsan_read##n(void* at) { marfast::emulation::plain(at, n, n, false, PC); }           \
  void __tsan_write##n(void* at) { marfast::emulation::plain(at, n, n, true, PC); }           \
  void __tsan_unaligned_read##n(void* at) { marfast::emulation::plain(at, n, 1, false, PC); } \
  void __tsan_unaligned_write##n(void* at) { marfast::emulation::plain(at, n, 1, true, PC); }

extern "C" {
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
void __tsan_read_range(void* at, size_t n) { marfast::emulation::plain(at, n, 1, false, PC); }
void __tsan_write_range(void* at, size_t n) { marfast::emulation::plain(at, n, 1, true, PC); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void* __tsan_memcpy(void* to, const void* from, size_t n) {
  if (n) marfast::emulation::plain(const_cast<void*>(from), n, 1, false, PC);
  if (n) marfast::emulation::plain(to, n, 1, true, PC);
  return std::memcpy(to, from, n);
}
void* __tsan_memset(void* to, int value, size_t n) {
  if (n) marfast::emulation::plain(to, n, 1, true, PC);
  return std::memset(to, value, n);
}
}
