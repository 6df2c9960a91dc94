// Compiled without any instruction-set flag: this runs before it is known what the CPU can do.

#include "dispatch.h"

#include <atomic>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace marfast {

namespace {

// The best first; the build defines MARFAST_HAVE_* for what it compiled.
constexpr Isa kCompiled[] = {
#if defined(MARFAST_HAVE_AVX512_AMX)
    {"avx512_amx", kAvx2 | kAvx512 | kAmxBf16, &avx512_amx::kernels},
#endif
#if defined(MARFAST_HAVE_AVX512_BF16)
    {"avx512_bf16", kAvx2 | kAvx512 | kAvx512Bf16, &avx512_bf16::kernels},
#endif
#if defined(MARFAST_HAVE_AVX512)
    {"avx512", kAvx2 | kAvx512, &avx512::kernels},
#endif
#if defined(MARFAST_HAVE_AVX2)
    {"avx2", kAvx2, &avx2::kernels},
#endif
    {"portable", 0, &portable::kernels},
};

std::atomic<const Isa*> active{nullptr};

#if defined(__x86_64__)
bool has(unsigned reg, int bit) { return (reg >> bit) & 1u; }

// Which register states the operating system saves (XCR0).
unsigned saved_states() {
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

// Linux keeps a process's tile registers only once it has asked for them.
bool tiles_are_granted() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}
#endif

}  // namespace

unsigned cpu_features() {
  unsigned features = 0;
#if defined(__x86_64__)
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !has(ecx, 27)) return 0;  // OSXSAVE
  const unsigned states = saved_states();
  const bool os_ymm = (states & 0x06) == 0x06, os_zmm = (states & 0xe6) == 0xe6;
  const bool os_tiles = (states & 0x60000) == 0x60000;
  const bool avx = has(ecx, 28), fma = has(ecx, 12), f16c = has(ecx, 29);
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return 0;
  const unsigned deepest_leaf = eax;
  if (os_ymm && avx && fma && f16c && has(ebx, 5)) features |= kAvx2;
  const bool avx512 = has(ebx, 16) && has(ebx, 17) && has(ebx, 30) && has(ebx, 31);
  if (os_zmm && avx512) features |= kAvx512;
  const bool amx = has(edx, 24) && has(edx, 22);  // tiles, bfloat16 products
  if (os_tiles && amx && tiles_are_granted()) features |= kAmxBf16;
  if (deepest_leaf >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && has(eax, 5)) {
    if (features & kAvx512) features |= kAvx512Bf16;
  }
#endif
  return features;
}

std::vector<const Isa*> usable_isas(unsigned features) {
  std::vector<const Isa*> usable;
  for (const Isa& isa : kCompiled) {
    if ((isa.needs & ~features) == 0) usable.push_back(&isa);
  }
  return usable;
}

const Isa& select_isa(unsigned features, const std::string& forced) {
  const std::vector<const Isa*> usable = usable_isas(features);
  if (forced.empty()) return *usable.front();
  std::string names;
  for (const Isa* isa : usable) {
    if (forced == isa->name) return *isa;
    names += (names.empty() ? "" : ", ") + std::string(isa->name);
  }
  bool known = false;
  for (const char* name : {"portable", "avx2", "avx512", "avx512_bf16", "avx512_amx"}) {
    known |= forced == name;
  }
  throw std::invalid_argument("instruction set '" + forced + "' is " +
                              (known ? "not available here" : "unknown") + "; usable: " + names);
}

const Isa& active_isa() {
  const Isa* isa = active.load(std::memory_order_acquire);
  if (isa == nullptr) {
    isa = &select_isa(cpu_features(), "");
    active.store(isa, std::memory_order_release);
  }
  return *isa;
}

void set_isa(const std::string& name) {
  active.store(&select_isa(cpu_features(), name), std::memory_order_release);
}

}  // namespace marfast
