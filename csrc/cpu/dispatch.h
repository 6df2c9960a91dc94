#pragma once

// The instruction sets that the kernels were compiled for, and which of them runs.

#include <fenv.h>

#include <string>
#include <vector>

#include "kernel_table.h"

namespace marfast {

// What CPU and operating system offer, by the groups that the ISA files need.
enum Feature : unsigned {
  kAvx2 = 1,        // AVX2, FMA, F16C
  kAvx512 = 2,      // AVX-512 F, BW, DQ, VL
  kAvx512Bf16 = 4,  // AVX-512 BF16
  kAmxBf16 = 8,     // AMX tiles and BF16
};

struct Isa {
  const char* name;
  unsigned needs;  // Features
  const Kernels* kernels;
};

unsigned cpu_features();

// Compiled in and usable with `features`, best first; never empty.
std::vector<const Isa*> usable_isas(unsigned features);

// The best usable one, or the one named `forced` if that is not empty; std::invalid_argument, with
// the usable names, if it is not among them.
const Isa& select_isa(unsigned features, const std::string& forced);

// The one in use, chosen at first use as the best for this CPU; set for the whole process.
const Isa& active_isa();
void set_isa(const std::string& name);

// Runs a kernel in the default floating-point environment: nearest-even rounding, subnormals kept,
// whatever the caller's thread has set.
template <class Args>
void run(void (*kernel)(const Args&), const Args& args) {
  fenv_t callers;
  fegetenv(&callers);
  fesetenv(FE_DFL_ENV);
  kernel(args);
  fesetenv(&callers);
}

}  // namespace marfast
