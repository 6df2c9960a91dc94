// Compiled without any instruction-set flag.

#include "parallel.h"

#include <dlfcn.h>
#include <fenv.h>
#include <sched.h>

#include <atomic>

namespace marfast {

// Where a team meets. Spins briefly, then gives the core away, so that a team larger than the
// cores that it gets still moves on.
class Barrier {
 public:
  void wait(int threads);

 private:
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<unsigned> phase_{0};
};

namespace {

// The entry points of an OpenMP runtime (GNU's; LLVM's and Intel's export them too), found in the
// process and never linked.
struct OpenMp {
  void (*parallel)(void (*)(void*), void*, unsigned, unsigned);
  int (*thread_num)();
  int (*num_threads)();
};

template <class Function>
void find(Function*& function, const char* name) {
  function = reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, name));
}

const OpenMp* open_mp() {
  static const OpenMp found = [] {
    OpenMp omp{};
    find(omp.parallel, "GOMP_parallel");
    find(omp.thread_num, "omp_get_thread_num");
    find(omp.num_threads, "omp_get_num_threads");
    return omp;
  }();
  return found.parallel && found.thread_num && found.num_threads ? &found : nullptr;
}

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

constexpr int kSpins = 4000;  // before a waiting thread gives its core away: about 50 us

}  // namespace

void Barrier::wait(int threads) {
  const unsigned phase = phase_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    return;
  }
  for (int spins = 0; phase_.load(std::memory_order_acquire) == phase; ++spins) {
    if (spins < kSpins) {
      pause();
    } else {
      sched_yield();
    }
  }
}

Team::Team(int thread, int threads, Barrier& barrier)
    : thread(thread), threads(threads), barrier_(barrier) {}

Range Team::share(int64_t size) const {
  return {size * thread / threads, size * (thread + 1) / threads};
}

Team Team::alone() const { return {0, 1, barrier_}; }

void Team::barrier() const {
  if (threads > 1) barrier_.wait(threads);
}

void run_team(int threads, void (*body)(void*, const Team&), void* data) {
  struct Call {
    void (*body)(void*, const Team&);
    void* data;
    const OpenMp* omp;
    fenv_t environment;  // the caller's: rounding and subnormals are part of the defined bits
    Barrier barrier;
  } call{body, data, threads > 1 ? open_mp() : nullptr, {}, {}};
  if (call.omp == nullptr) return body(data, Team(0, 1, call.barrier));

  fegetenv(&call.environment);
  call.omp->parallel(
      [](void* argument) {
        Call& c = *static_cast<Call*>(argument);
        fenv_t own;
        fegetenv(&own);
        fesetenv(&c.environment);
        // The runtime may give fewer threads than were asked for.
        c.body(c.data, Team(c.omp->thread_num(), c.omp->num_threads(), c.barrier));
        fesetenv(&own);
      },
      &call, static_cast<unsigned>(threads), 0);
}

}  // namespace marfast
