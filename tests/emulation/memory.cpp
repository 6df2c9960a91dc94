// Clocks and shadow memory: whether a thread may touch memory, and what orders it after the others.

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <cstring>

#include "machine.h"

namespace marfast::emulation {
namespace {

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

// One cell for two bytes, the smallest element that kernels have.
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
  int block;  // whose shared memory, or -1
  bool far;
  std::vector<Cell> cells;
};

std::vector<std::unique_ptr<Region>> regions;

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

}  // namespace

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

void check(uintptr_t at, int bytes, int alignment, bool write, uint32_t where, Role role) {
  Thread& thread = *current;
  const auto stacks = reinterpret_cast<uintptr_t>(grid->stacks);
  if (at - stacks < stack_bytes * grid->threads.size()) {
    if ((at - stacks) / stack_bytes == thread.id - grid->first_id) return;
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
  if (write && region->block < 0) thread.block->has_written = true;
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

// Of an address that was checked.
void require(Space space, uintptr_t at, int bytes, uint32_t where) {
  const Region* region = find(at, at + bytes);
  if ((region && region->block >= 0) != (space == Space::shared))
    stop("address_space", where,
         space == Space::shared ? "takes shared memory" : "takes global memory");
}

Memory memory_of(uintptr_t at) {
  if (at - number(grid->stacks) < stack_bytes * grid->threads.size()) return Memory::own;
  const Block& block = *current->block;
  if (at - number(block.shared) < grid->shape.shared_bytes) return Memory::shared;
  const Region* region = find(at, at + 1);
  if (!region || region->name == "parameters") return Memory::constant;
  return region->far ? Memory::far : Memory::global;
}

void land(const Copy& copy) {
  if (cost::counted()) {
    cost::wait(copy.lands);
  } else {
    if (copy.valid) check(number(copy.from), copy.valid, 1, false, place(copy.site));
    check(number(copy.to), copy.bytes, 1, true, place(copy.site), Role::copy_landing);
  }
  std::memset(copy.to, 0, copy.bytes);
  std::memcpy(copy.to, copy.from, copy.valid);
}

void add_region(const void* begin, size_t bytes, bool written, const char* name, int block) {
  const uintptr_t at = number(begin);
  auto region = std::make_unique<Region>(Region{at, at + bytes, name, block, false, {}});
  if (!options().costs) region->cells.resize(bytes / 2 + 1);
  if (written)
    for (Cell& cell : region->cells) cell.writer = host;
  regions.push_back(std::move(region));
}

size_t count_regions() { return regions.size(); }

void keep_regions(size_t count) {
  regions.resize(count);
  for (auto& region : regions)  // what is left of a launch that was stopped
    for (Cell& cell : region->cells) cell.flags = 0;
}

void add_memory(const void* begin, size_t bytes, bool written, const char* name) {
  remove_memory(begin);
  add_region(begin, bytes, written, name, -1);
}

void is_far(const void* begin) {
  for (auto& region : regions) region->far |= region->begin == number(begin);
}

void remove_memory(const void* begin) {
  regions.erase(std::remove_if(regions.begin(), regions.end(),
                               [&](const auto& r) { return r->begin == number(begin); }),
                regions.end());
}

}  // namespace marfast::emulation
