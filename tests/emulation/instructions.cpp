// What ptx.cuh calls, and what -fsanitize=thread does; faults are planted here.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>

#include "machine.h"

namespace marfast::emulation {
namespace {

std::map<std::tuple<std::string, std::string, int>, bool> sites;  // reached, and whether faulty
std::tuple<std::string, std::string, int> fault;

// Notes that a site is reached; true if it is the one to be dropped or weakened.
bool faulty(const char* operation, Site site) {
  auto key = std::make_tuple(std::string(operation), std::string(site.file), site.line);
  return sites.try_emplace(key, key == fault).first->second;
}

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

void bar_sync(int id, int threads, Site site) {
  if (faulty("bar_sync", site)) return;
  maybe_yield(4);
  Block& block = *current->block;
  const bool whole = threads == 0;
  Barrier& barrier = block.barriers[id];
  if (whole && block.live != static_cast<int>(grid->size))
    stop("divergence", place(site), "a thread of the block has ended before this barrier");
  if (threads % 32) stop("divergence", place(site), "a barrier counts whole warps");
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
  if (cost::counted()) {
    cost::meet(barrier.waiting, whole ? &block : nullptr);
  } else {
    meet(barrier.waiting);
  }
  wake(barrier.waiting);
  yield();
}

void warp_collective(const char* name, uint32_t mask, void* mine, Collective collective,
                     bool orders, Site site) {
  if (orders && faulty(name, site)) return;
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
  if (cost::counted()) {
    cost::meet_lanes(lanes, name);
  } else if (orders) {
    meet(lanes);
  }
  wake(lanes);
}

void access(const void* at, int bytes, Space space, bool write, bool caches, Site site) {
  if (cost::counted()) return cost::access(number(at), bytes, write, caches, place(site));
  check(number(at), bytes, bytes, write, place(site));
  require(space, number(at), bytes, place(site));
}

void cp_async(void* shared, const void* global, int bytes, int valid, Site site) {
  auto* to = static_cast<unsigned char*>(shared);
  const auto* from = static_cast<const unsigned char*>(global);
  if (cost::counted()) {
    const double lands = cost::copy(number(shared), number(global), valid, place(site));
    current->copies.push_back({to, from, bytes, valid, current->groups, site, lands});
    return;
  }
  if (number(global) % bytes)
    stop("misaligned", place(site),
         "cp.async's source needs alignment to " + std::to_string(bytes));
  if (valid) {
    check(number(global), valid, 1, false, place(site));
    require(Space::global, number(global), valid, place(site));
  }
  check(number(shared), bytes, bytes, true, place(site), Role::copy_issue);
  require(Space::shared, number(shared), bytes, place(site));
  std::memset(to, 0xff, bytes);
  current->copies.push_back({to, from, bytes, valid, current->groups, site, 0});
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
  if (cost::counted()) return;
  if (faulty("fence_gpu", site)) return;
  learn(*current, current->seen);
  current->fenced = snapshot(*current);
}

uint32_t atomic(Atomic kind, uint32_t* at, uint32_t value, bool acquire, bool release,
                const char* name, Site site) {
  maybe_yield(2);
  if ((acquire || release) && faulty(name, site)) acquire = release = false;
  Thread& self = *current;
  if (cost::counted()) {
    cost::atomic(at, kind != Atomic::store, kind != Atomic::load);
    const uint32_t before = *at;
    if (kind == Atomic::load) {
      yield();
    } else {
      *at = kind == Atomic::add ? before + value * grid->apart : value;
      grid->idle = 0;
    }
    return before;
  }
  for (const bool write : {false, true})
    if (kind == Atomic::add || write == (kind == Atomic::store))
      check(number(at), 4, 4, write, place(site), Role::strong_access);
  Snapshot& history = grid->released[at];
  if (kind != Atomic::store) {
    self.seen = join(self.seen, history);
    if (acquire) learn(self, history);
  }
  const uint32_t before = *at;
  if (kind == Atomic::load) {
    grid->spinning = site;
    yield();
    return before;
  }
  const Snapshot mine = release ? snapshot(self) : self.fenced;
  history = kind == Atomic::add ? join(history, mine) : mine;
  *at = kind == Atomic::add ? before + value : value;
  grid->idle = 0;
  return before;
}

void pause(Site site) {
  if (!grid->shape.cooperative && grid->blocks.size() > 1)
    stop("residency", place(site), "waits, perhaps for a block that isn't resident");
  yield();
}

void trap(Site site) { stop("trap", place(site), "the kernel gave up"); }

void load_matrix(uint32_t* registers, const void* row, int matrices, bool trans, Site site) {
  Rows mine{{}, registers, matrices, trans};
  if (lane() < 8u * matrices) {
    access(row, 16, Space::shared, false, false, site);
    std::memcpy(mine.row, row, 16);
  }
  warp_collective("ldmatrix", ~0u, &mine, distribute, false, site);
  if (cost::counted()) cost::load_matrix(registers, matrices);
}

void mma(float* d, const uint32_t* a, const uint32_t* b, bool half, Site site) {
  Product mine{d, a, b, half};
  warp_collective("mma", ~0u, &mine, multiply, false, site);
  if (cost::counted()) cost::mma(d, a, b);
}

float fma(float a, float b, float c) {
  const float sum = std::fmaf(a, b, c);
  if (current && cost::counted()) cost::fma(c, sum);
  return sum;
}

namespace {
void plain(void* at, size_t bytes, int alignment, bool write, void* pc) {
  if (!current) return;
  if (cost::counted()) {
    return cost::access(number(at), static_cast<int>(bytes), write, true, place(pc));
  }
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
