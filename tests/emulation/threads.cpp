// Threads: scheduling, launches, and the report that ends one.

#include <dlfcn.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <new>
#include <tuple>

#include "machine.h"

namespace marfast::emulation {

Grid* grid = nullptr;
Thread* current = nullptr;

namespace {

Options chosen;
uint32_t next_id = 1;
size_t idle = 0;  // blocks
std::vector<Site> places;
std::map<std::tuple<const char*, int>, uint32_t> place_of;
constexpr uint32_t is_site = 0x80000000;

uint64_t random_number() {
  uint64_t& x = grid->random;
  x ^= x << 13, x ^= x >> 7, x ^= x << 17;
  return x;
}

const Dl_info& module() {
  static const Dl_info info = [] {
    Dl_info found;
    dladdr(&current, &found);
    return found;
  }();
  return info;
}

std::pair<std::string, int> source(uint32_t place) {
  if (place & is_site) return {places[place & ~is_site].file, places[place & ~is_site].line};
  char command[4096], line[4096] = "";
  std::snprintf(command, sizeof command, "addr2line -e '%s' 0x%x 2> /dev/null", module().dli_fname,
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

// What keeps a thread, where none can go on.
void stuck() {
  for (Thread& thread : grid->threads) {
    if (thread.done) continue;
    Block& block = *thread.block;
    for (int id = 0; id < 16; ++id) {
      const Barrier& barrier = block.barriers[id];
      const auto& waiting = barrier.waiting;
      if (std::find(waiting.begin(), waiting.end(), &thread) != waiting.end())
        return fail(thread, "deadlock", place(barrier.site),
                    "no thread can go on; it waits at barrier " + std::to_string(id) + " with " +
                        std::to_string(waiting.size()) + " of " + std::to_string(barrier.expected) +
                        " threads");
    }
    const WarpOp& op = block.warps[thread.local / 32];
    if (op.arrived >> thread.local % 32 & 1)
      return fail(thread, "deadlock", place(op.site),
                  "no thread can go on; it waits in " + std::string(op.name) + " for other lanes");
  }
}

void finish_thread() {
  Thread& self = *current;
  for (const Copy& copy : self.copies) land(copy);
  self.copies.clear();
  if (cost::counted()) cost::finish(self);
  self.done = true;
  --self.block->live;
  --grid->remaining;
  grid->idle = 0;
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

size_t count(Dim3 size) { return size_t{size.x} * size.y * size.z; }

Dim3 unflatten(unsigned i, Dim3 size) {
  return {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
}

bool is_late(const Block& block, const Grid& now) {
  return chosen.schedule == Schedule::late && now.blocks.size() > 1 && block.index == now.late;
}

void hold_another(Grid& now) {
  auto& ready = now.ready;
  ready.insert(ready.end(), now.held.begin(), now.held.end());
  now.late = (now.late + 1) % now.blocks.size();
  const auto late = std::stable_partition(
      ready.begin(), ready.end(), [&](Thread* thread) { return !is_late(*thread->block, now); });
  now.held.assign(late, ready.end());
  ready.erase(late, ready.end());
}

constexpr size_t most_shared = 227 << 10;  // of any architecture

// Threads of one block, ready to run, and its shared memory in `arena`.
void start_block(Grid& now, unsigned index, std::vector<unsigned char>& arena) {
  arena.assign(now.shape.shared_bytes + 256, 0xff);
  Block& block = now.blocks[index];
  block.index = index;
  block.first = index * now.size;
  block.shared = arena.data() + (128 - number(arena.data()) % 128);
  block.live = now.size;
  block.warps.resize((now.size + 31) / 32);
  add_region(block.shared, now.shape.shared_bytes, false, "shared memory", static_cast<int>(index));
  for (unsigned i = 0; i < now.size; ++i) {
    Thread& thread = now.threads[block.first + i];
    thread.block = &block;
    thread.local = i;
    thread.id = now.first_id + block.first + i;
    thread.clock.assign(now.size, 0);
    thread.clock[i] = 1;
    unsigned char* stack = now.stacks + (block.first + i) * stack_bytes;
    std::memset(stack + stack_bytes - 4096, 0xff, 4096);  // locals never written are NaN
    start_fiber(thread.fiber, stack, stack_bytes, fiber);
    (is_late(block, now) ? now.held : now.ready).push_back(&thread);
  }
}

void run(Grid& now) {
  while (now.remaining && !now.failure) {
    const size_t patience = 4 * now.threads.size();
    const bool others_spin = now.idle % patience == patience - 1;
    if (!now.held.empty() && (others_spin || now.ready.empty())) hold_another(now);
    if (now.ready.empty()) return stuck();
    if (++now.idle > 10000 + 64 * now.ready.size() + 4 * patience)
      return fail(*now.ready.front(), "deadlock", place(now.spinning),
                  "spins for a value that never comes");
    const size_t pick =
        chosen.schedule == Schedule::random ? random_number() % now.ready.size() : 0;
    std::swap(now.ready[pick], now.ready.front());
    current = now.ready.front();
    now.ready.pop_front();
    switch_fibers(now.main, current->fiber);
    current = nullptr;
  }
}

}  // namespace

uint32_t place(const void* pc) {
  return static_cast<uint32_t>(number(pc) - 1 - number(module().dli_fbase));
}

uint32_t place(Site site) {
  auto [at, fresh] = place_of.try_emplace({site.file, site.line}, places.size());
  if (fresh) places.push_back(site);
  return at->second | is_site;
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

// Ends the launch: no fiber runs again.
void stop(const std::string& kind, uint32_t at, const std::string& what) {
  fail(*current, kind, at, what);
  leave();
  __builtin_unreachable();
}

void leave() { switch_fibers(current->fiber, grid->main); }

void make_ready(Thread& thread) {
  (is_late(*thread.block, *grid) ? grid->held : grid->ready).push_back(&thread);
}

void yield() {
  make_ready(*current);
  leave();
}

void maybe_yield(unsigned one_in, bool idle) {
  if (chosen.schedule != Schedule::random || random_number() % one_in != 0) return;
  if (!idle && grid->idle > 0) --grid->idle;
  yield();
}

void wake(std::vector<Thread*>& threads) {
  grid->idle = 0;
  std::sort(threads.begin(), threads.end(), [](Thread* a, Thread* b) { return a->id < b->id; });
  if (chosen.schedule == Schedule::reverse) std::reverse(threads.begin(), threads.end());
  for (Thread* thread : threads)
    if (thread != current) make_ready(*thread);
  threads.clear();
}

Options& options() { return chosen; }
size_t idle_blocks() { return idle; }

void launch(const Launch& shape, const std::function<void()>& body, const void* parameters,
            size_t parameter_bytes) {
  if (shape.shared_bytes > most_shared) {
    Report report;
    report.kind = "shared_memory";
    report.message = "shared_memory: the launch asks for " + std::to_string(shape.shared_bytes) +
                     " bytes; a block has " + std::to_string(most_shared) + " at most";
    throw report;
  }
  unsigned blocks = static_cast<unsigned>(count(shape.grid)), apart = 1;
  if (chosen.costs)
    while (blocks / apart > 6 || blocks % apart) ++apart;
  blocks /= apart;
  const size_t threads = blocks * count(shape.block);
  if (threads == 0) return;
  Grid now;
  now.shape = shape;
  now.body = &body;
  now.apart = apart;
  now.size = static_cast<unsigned>(count(shape.block));
  now.random = chosen.seed * 0x9e3779b97f4a7c15 | 1;
  now.late = chosen.seed % blocks;
  now.first_id = next_id;
  now.remaining = threads;
  next_id += threads;
  now.stacks =
      static_cast<unsigned char*>(mmap(nullptr, stack_bytes * threads, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (now.stacks == MAP_FAILED) throw std::bad_alloc();
  // A guard page a stack, as long as the kernel's number of mappings allows it.
  for (size_t i = 0; i < threads && threads < 16384; ++i)
    mprotect(now.stacks + i * stack_bytes, 4096, PROT_NONE);

  const size_t kept = count_regions();
  std::vector<std::vector<unsigned char>> shared(blocks);
  now.blocks.resize(blocks);
  now.threads.resize(threads);
  for (unsigned b = 0; b < blocks; ++b) start_block(now, b, shared[b]);
  add_region(&body, sizeof body, true, "parameters", -1);
  if (parameters) add_region(parameters, parameter_bytes, true, "parameters", -1);
  if (chosen.schedule == Schedule::reverse) std::reverse(now.ready.begin(), now.ready.end());

  grid = &now;
  run(now);
  const auto has_idled = [](const Block& block) { return !block.has_written; };
  idle = now.failure ? 0 : std::count_if(now.blocks.begin(), now.blocks.end(), has_idled);
  current = nullptr;
  grid = nullptr;
  keep_regions(kept);
  munmap(now.stacks, stack_bytes * threads);
  if (now.failure) throw *now.failure;
}

Dim3 thread_index() { return unflatten(current->local, grid->shape.block); }
Dim3 block_index() { return unflatten(current->block->index * grid->apart, grid->shape.grid); }
Dim3 block_size() { return grid->shape.block; }
Dim3 grid_size() { return grid->shape.grid; }
unsigned char* shared_memory() { return current->block->shared; }
unsigned lane() { return current->local % 32; }

}  // namespace marfast::emulation
