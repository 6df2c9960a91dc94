// The clock of cost.h: what each access, meeting and product adds to it.

#include "cost.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "machine.h"

namespace marfast::emulation {
namespace {

constexpr Rates rates;
std::map<const void*, Path> released;  // by atomic variable
Costs found;

ThreadCost& self() { return current->cost; }
BlockCost& block() { return current->block->cost; }

void later(Path& path, const Path& other) {
  if (other.ns > path.ns) path = other;
}

// Registers are needed now: whatever is outstanding has come.
void drain() {
  ThreadCost& mine = self();
  for (const auto& [_, when] : mine.ready) mine.path.ns = std::max(mine.path.ns, when);
  mine.ready.clear();
  mine.global = mine.shared = {};
}

// A load: it waits with those that nothing separates from it, a few at a time.
void batch(ThreadCost::Batch& open, double latency) {
  ThreadCost& mine = self();
  if (open.loads == rates.in_flight) open = {};
  ++open.loads;
  if (latency <= open.latency) return;
  mine.path.ns += latency - open.latency;
  if (open.latency < rates.l2 && latency >= rates.l2)
    ++(latency > rates.l2 ? mine.path.far : mine.path.near);
  open.latency = latency;
}

int distinct(const Instruction::Once& row, int first, int lanes, int bytes, uintptr_t unit) {
  std::vector<uintptr_t> units;
  for (int l = first; l < first + lanes; ++l)
    if (row.lanes >> l & 1)
      for (uintptr_t u = row.at[l] / unit; u <= (row.at[l] + bytes - 1) / unit; ++u)
        units.push_back(u);
  std::sort(units.begin(), units.end());
  return static_cast<int>(std::unique(units.begin(), units.end()) - units.begin());
}

// The wavefronts of one instruction: lanes go together as far as 128 bytes reach; words in one bank
// come one after another.
void shared_row(const Instruction::Once& row, int bytes) {
  const int together = std::min(32, 128 / bytes);
  for (int first = 0; first < 32; first += together) {
    std::vector<uintptr_t> words;
    for (int l = first; l < first + together; ++l)
      if (row.lanes >> l & 1)
        for (uintptr_t word = row.at[l] / 4; word <= (row.at[l] + bytes - 1) / 4; ++word)
          words.push_back(word);
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    size_t banks[32] = {}, most = 0;
    for (const uintptr_t word : words) most = std::max(most, ++banks[word % 32]);
    block().totals.wavefronts += most;
    block().totals.conflicts += most ? most - 1 : 0;
    block().pipe += static_cast<double>(most) * rates.cycle;
  }
}

void global_row(const Instruction::Once& row, int bytes) {
  const int sectors = distinct(row, 0, 32, bytes, 32);
  const int asked = (distinct(row, 0, 32, bytes, bytes) * bytes + 31) / 32;
  block().totals.sectors += sectors;
  block().totals.wasted += std::max(0, sectors - asked);
  block().pipe += distinct(row, 0, 32, bytes, 128) * rates.cycle;
}

void finish_rows(Instruction& instruction, bool all) {
  auto& rows = instruction.rows;
  for (size_t& i = instruction.done; i < rows.size(); ++i) {
    if (!all && rows[i].lanes != ~0u) return;
    (instruction.shared ? shared_row : global_row)(rows[i], instruction.bytes);
  }
  rows.clear(), instruction.done = 0;
  std::fill(std::begin(instruction.next), std::end(instruction.next), 0);
}

void finish_warps(Block& which) {
  for (auto& warp : which.cost.warps)
    for (auto& [_, instruction] : warp) finish_rows(instruction, true);
}

void note(uintptr_t at, int bytes, bool shared, uint32_t where) {
  auto& warps = block().warps;
  warps.resize(current->block->warps.size());
  Instruction& instruction = warps[current->local / 32][where];
  instruction.bytes = bytes, instruction.shared = shared;
  const unsigned lane = current->local % 32;
  const size_t i = instruction.next[lane]++;
  if (i >= instruction.rows.size()) instruction.rows.resize(i + 1);
  instruction.rows[i].at[lane] = at, instruction.rows[i].lanes |= 1u << lane;
  if (lane == 31) finish_rows(instruction, false);
}

}  // namespace

Costs take_costs() {
  released.clear();
  return std::exchange(found, {});
}

namespace cost {

bool counted() { return options().costs; }

void access(uintptr_t at, int bytes, bool write, bool caches, uint32_t where) {
  const Memory kind = memory_of(at);
  if (kind == Memory::own || kind == Memory::constant) return;
  ThreadCost& mine = self();
  mine.polls = false;
  mine.path.ns += rates.issue;
  if (kind == Memory::shared) {
    note(at, bytes, true, where);
    return write ? drain() : batch(mine.shared, rates.l1);
  }
  bool hit = !write && caches;
  for (uintptr_t sector = at / 32; sector <= (at + bytes - 1) / 32; ++sector) {
    if (hit && block().cached.count(sector)) continue;
    hit = false;
    block().bytes += write ? 0 : 32;
    if (caches) block().cached.insert(sector);
  }
  if (!hit) note(at, bytes, false, where);
  if (write) return drain();
  batch(mine.global, hit ? rates.l1 : kind == Memory::far ? rates.memory : rates.l2);
}

double copy(uintptr_t shared, uintptr_t global, int bytes, uint32_t where) {
  self().polls = false;
  self().path.ns += rates.issue;
  note(global, bytes, false, where);
  note(shared, bytes, true, ~where);
  double& queue = block().copied;
  queue = std::max(queue, self().path.ns) + bytes * rates.byte;
  return queue + (memory_of(global) == Memory::far ? rates.memory : rates.l2);
}

void wait(double until) {
  Path& path = self().path;
  if (until > path.ns + rates.l2 / 2) ++path.near;
  path.ns = std::max(path.ns, until);
}

void meet(const std::vector<Thread*>& threads, Block* whole) {
  Path path;
  Thread* last = current;
  for (Thread* thread : threads) {
    current = thread;
    drain();
    later(path, self().path);
  }
  current = last;
  path.ns += rates.bar_sync, ++path.block_barriers;
  if (whole) {
    finish_warps(*whole);
    BlockCost& b = whole->cost;
    path.ns =
        std::max(path.ns, b.begun + std::max({b.pipe, b.bytes * rates.byte,
                                              b.fma * rates.cycle / 128, b.mma * rates.hmma}));
    b.begun = path.ns, b.pipe = b.bytes = b.fma = b.mma = 0;
  }
  for (Thread* thread : threads) thread->cost.path = path;
}

void meet_lanes(const std::vector<Thread*>& lanes, const char* name) {
  Path path;
  for (Thread* thread : lanes) later(path, thread->cost.path);
  if (std::strncmp(name, "shfl", 4) == 0) path.ns += rates.shuffle;
  for (Thread* thread : lanes) thread->cost.path = path;
}

void load_matrix(const uint32_t* registers, int matrices) {
  for (int i = 0; i < matrices; ++i) self().ready[registers + i] = self().path.ns + rates.l1;
}

void mma(const float* d, const uint32_t* a, const uint32_t* b) {
  ThreadCost& mine = self();
  mine.shared = {};
  for (const void* needed :
       {static_cast<const void*>(d), static_cast<const void*>(a), static_cast<const void*>(b)}) {
    const auto at = mine.ready.find(needed);
    if (at != mine.ready.end()) mine.path.ns = std::max(mine.path.ns, at->second);
  }
  mine.path.ns += rates.issue;
  mine.ready[d] = mine.path.ns + rates.mma;
  if (current->local % 32 == 0) ++block().totals.mma, ++block().mma;
}

void fma(float addend, float sum) {
  ThreadCost& mine = self();
  mine.path.ns += std::memcmp(&addend, &mine.sum, 4) == 0 ? rates.fma : rates.cycle;
  mine.sum = sum;
  ++block().totals.fma, ++block().fma;
}

void atomic(const void* at, bool read, bool write) {
  ThreadCost& mine = self();
  drain();
  if (write) {
    mine.path.ns += rates.release, ++mine.path.grid_barriers;
    Path arrived = mine.path;
    arrived.ns += rates.arrival;
    later(released[at], arrived);
    mine.polls = false;
  } else if (read) {
    if (!mine.polls) mine.polling = mine.path, mine.polls = true;
    mine.path = mine.polling;
    later(mine.path, released[at]);
    mine.path.ns += rates.poll;
    block().cached.clear();
  }
}

void finish(Thread& thread) {
  drain();
  later(found.path, thread.cost.path);
  if (thread.block->live > 1) return;
  finish_warps(*thread.block);
  const Totals& totals = thread.block->cost.totals;
  if (totals.wavefronts >= found.totals.wavefronts) found.totals = totals;
}

}  // namespace cost
}  // namespace marfast::emulation
