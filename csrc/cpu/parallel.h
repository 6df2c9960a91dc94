#pragma once

// A team of threads for a whole loop, and the barrier between its phases. Nothing here is inline:
// kernels that include it are compiled for instruction sets that this CPU may lack.

#include <cstdint>

namespace marfast {

struct Range {
  int64_t begin, end;  // half open
};

class Barrier;  // where the team meets

class Team {
 public:
  Team(int thread, int threads, Barrier& barrier);

  const int thread, threads;
  Range share(int64_t size) const;  // of 0 ... size - 1, what this thread owns
  void barrier() const;
  Team alone() const;  // this thread, which meets nobody

 private:
  Barrier& barrier_;
};

// Calls body(data, team) on at most `threads` threads of the process's own OpenMP runtime, the one
// that torch uses: no second pool competes with its threads. Without such a runtime, on the calling
// thread alone. Callable from several threads; in a forked child the runtime's threads are gone,
// and only threads = 1 may be asked for.
void run_team(int threads, void (*body)(void* data, const Team& team), void* data);

template <class Body>  // a lambda, so that nothing is shared between files
void run_team(int threads, Body body) {
  run_team(threads, [](void* data, const Team& team) { (*static_cast<Body*>(data))(team); }, &body);
}

}  // namespace marfast
