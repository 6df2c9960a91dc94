#pragma once

// Cases of kernels in the emulator and the program that runs them: `check SCHEDULE` runs every
// case, `first SCHEDULE` as far as the first that fails; `faults` drops or weakens each
// synchronisation that they reach, in turn. Prints a line each: "ok", a report, or the difference.
// `shapes`: how each kernel is launched.

#include <dlfcn.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "launchers.h"
#include "marfast/convert.h"

using namespace marfast;
namespace emu = marfast::emulation;

inline uint32_t state;
inline float number() {  // in [-1, 1)
  state = state * 1664525 + 1013904223;
  return static_cast<float>(static_cast<int>(state >> 8) - (1 << 23)) / (1 << 23);
}

// How many elements memory starts off a multiple of 16 bytes.
struct Off {
  size_t elements = 0;
};

// Memory known to the emulator, between zones that aren't.
template <class T>
struct Buffer {
  static constexpr size_t zone = 512 / sizeof(T);
  std::vector<T> memory;
  size_t count, start;
  Buffer(size_t count, bool written, Off off = {})
      : memory(count + 2 * zone), count(count), start(zone + off.elements) {
    std::memset(static_cast<void*>(memory.data()), 0xff, memory.size() * sizeof(T));  // NaN; -1
    emu::add_memory(data(), count * sizeof(T), written, "buffer");
  }
  // [rows, columns], NaN between the rows
  Buffer(size_t rows, size_t columns, size_t stride, Off off = {})
      : Buffer(rows * stride, true, off) {
    for (size_t r = 0; r < rows; ++r)
      for (size_t c = 0; c < columns; ++c) from_float(number(), data() + r * stride + c);
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { emu::remove_memory(data()); }
  T* data() { return memory.data() + start; }
  float operator[](size_t i) const { return to_float(memory[start + i]); }
};

template <class T>
constexpr DType dtype = sizeof(T) == 4                ? DType::f32
                        : std::is_same_v<T, bfloat16> ? DType::bf16
                                                      : DType::f16;
template <class T>
constexpr double unit = sizeof(T) == 4                ? 0x1p-24
                        : std::is_same_v<T, bfloat16> ? 0x1p-8
                                                      : 0x1p-11;

inline std::string differs(const char* what, size_t i, double got, double wanted) {
  char text[200];
  std::snprintf(text, sizeof text, "%s differs at %zu: %.9g, not %.9g", what, i, got, wanted);
  return text;
}

struct Case {
  std::string name;
  std::function<std::string()> run;
};

// docs/numerics.md's sum of 64 lanes.
template <class Value>
float lane_sum(int64_t w, Value value) {
  float lanes[64] = {};
  for (int64_t j = 0; j < w; ++j) lanes[j % 64] += value(j);
  for (int half = 32; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

inline std::string outcome(const Case& which) {
  try {
    return which.run();
  } catch (const emu::Report& report) {
    return report.what();
  }
}

inline emu::Schedule schedule(const std::string& name) {
  return name == "reverse"  ? emu::Schedule::reverse
         : name == "random" ? emu::Schedule::random
         : name == "late"   ? emu::Schedule::late
                            : emu::Schedule::forward;
}

// Drops or weakens each synchronisation that the cases reach, until one notices.
inline void faults(const std::vector<Case>& cases) {
  for (const Case& which : cases) outcome(which);
  for (const auto& site : emu::reached()) {
    std::string found = "ok", by;
    for (const char* order : {"forward", "reverse", "random"}) {
      emu::options().schedule = schedule(order);
      for (size_t i = 0; i < cases.size() && found == "ok"; ++i) {
        emu::plant_fault(site.operation, site.file, site.line);
        found = outcome(cases[i]);
        by = cases[i].name;
      }
    }
    std::printf("%s\t%s\t%d\t%s\t%s\n", site.operation.c_str(), site.file.c_str(), site.line,
                by.c_str(), found.c_str());
  }
}

// How the kernels are launched: symbol, threads of a block, its shared memory at most.
inline void shapes(const std::vector<Case>& cases) {
  for (const Case& which : cases) outcome(which);
  for (const auto& [kernel, shape] : emu::launched) {
    Dl_info info;
    dladdr(kernel, &info);
    std::printf("%s\t%u\t%u\n", info.dli_sname, shape.block, shape.shared);
  }
}

// add(an element of each dtype, its name)
template <class Add>
void each_dtype(const Add& add) {
  add(float{}, "float32");
  add(bfloat16{}, "bfloat16");
  add(float16{}, "float16");
}

inline int run_cases(const std::vector<Case>& cases, int count, char** words) {
  const std::string mode = count > 1 ? words[1] : "check";
  if (mode == "faults") return faults(cases), 0;
  if (mode == "shapes") return shapes(cases), 0;
  if (count > 2) emu::options().schedule = schedule(words[2]);
  for (const Case& which : cases) {
    const std::string found = outcome(which);
    std::printf("%s\t%s\n", which.name.c_str(), found.c_str());
    if (mode == "first" && found != "ok") return 1;
  }
  return 0;
}
