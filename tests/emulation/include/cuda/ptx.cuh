#pragma once

// csrc/cuda/ptx.cuh for the host: the same wrappers, carried out by the emulator. It shadows that
// file by the order of include folders.

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "emulator.h"
#include "marfast/convert.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __restrict__
#define threadIdx (::marfast::emulation::thread_index())
#define blockIdx (::marfast::emulation::block_index())
#define blockDim (::marfast::emulation::block_size())
#define gridDim (::marfast::emulation::grid_size())

namespace marfast::ptx {

using emulation::Site;
#define MARFAST_SITE Site site = Site::here()

struct alignas(16) Vec4 {
  uint32_t v[4];
};

inline unsigned char* shared_memory() { return emulation::shared_memory(); }

inline void bar_sync(MARFAST_SITE) { emulation::bar_sync(0, 0, site); }
inline void bar_sync(int id, int threads, MARFAST_SITE) { emulation::bar_sync(id, threads, site); }
inline void bar_warp_sync(uint32_t mask = ~0u, MARFAST_SITE) {
  emulation::warp_collective("bar_warp_sync", mask, nullptr, [](void**) {}, true, site);
}

namespace detail {

struct Exchange {
  uint32_t value, from, result;
};

inline void exchange(void** lanes) {
  for (int i = 0; i < 32; ++i) {
    auto* lane = static_cast<Exchange*>(lanes[i]);
    lane->result = static_cast<Exchange*>(lanes[lane->from])->value;
  }
}

template <typename T>
T shuffle(const char* name, T value, uint32_t from, Site site) {
  static_assert(sizeof(T) == 4, "shuffles move 32 bits");
  Exchange mine{0, from > 31 ? emulation::lane() : from, 0};
  std::memcpy(&mine.value, &value, 4);
  emulation::warp_collective(name, ~0u, &mine, exchange, false, site);
  std::memcpy(&value, &mine.result, 4);
  return value;
}

inline void ballot(void** lanes) {
  uint32_t bits = 0;
  for (int i = 0; i < 32; ++i) bits |= static_cast<Exchange*>(lanes[i])->value << i;
  for (int i = 0; i < 32; ++i) static_cast<Exchange*>(lanes[i])->result = bits;
}

}  // namespace detail

template <typename T>
T shfl_xor(T value, int mask, MARFAST_SITE) {
  return detail::shuffle("shfl_xor", value, emulation::lane() ^ mask, site);
}
template <typename T>
T shfl_down(T value, int delta, MARFAST_SITE) {
  return detail::shuffle("shfl_down", value, emulation::lane() + delta, site);
}
template <typename T>
T shfl_idx(T value, int lane, MARFAST_SITE) {
  return detail::shuffle("shfl_idx", value, lane & 31, site);
}
inline uint32_t vote_ballot(bool p, MARFAST_SITE) {
  detail::Exchange mine{p, 0, 0};
  emulation::warp_collective("vote", ~0u, &mine, detail::ballot, false, site);
  return mine.result;
}
inline bool vote_any(bool p, MARFAST_SITE) { return vote_ballot(p, site) != 0; }
inline bool vote_all(bool p, MARFAST_SITE) { return vote_ballot(p, site) == ~0u; }

inline void cp_async_16(void* shared, const void* global, int valid_bytes = 16, MARFAST_SITE) {
  emulation::cp_async(shared, global, 16, valid_bytes, site);
}
inline void cp_async_4(void* shared, const void* global, int valid_bytes = 4, MARFAST_SITE) {
  emulation::cp_async(shared, global, 4, valid_bytes, site);
}
inline void cp_async_commit_group(MARFAST_SITE) { emulation::cp_async_commit(site); }
template <int N>
void cp_async_wait_group(MARFAST_SITE) {
  static_assert(N >= 0, "groups that may still be on their way");
  emulation::cp_async_wait(N, site);
}

inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, MARFAST_SITE) {
  emulation::load_matrix(r, row, 4, false, site);
}
inline void ldmatrix_x2(uint32_t (&r)[2], const void* row, MARFAST_SITE) {
  emulation::load_matrix(r, row, 2, false, site);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, MARFAST_SITE) {
  emulation::load_matrix(r, row, 4, true, site);
}
inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row, MARFAST_SITE) {
  emulation::load_matrix(r, row, 2, true, site);
}
inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], bfloat16,
                         MARFAST_SITE) {
  emulation::mma(d, a, b, false, site);
}
inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], float16,
                         MARFAST_SITE) {
  emulation::mma(d, a, b, true, site);
}

inline float fma_rn(float a, float b, float c) { return emulation::fma(a, b, c); }

// As far off as PTX allows, up or down by x's last bit; of 0 exactly 1.
inline float ex2_approx_ftz(float x) {
  const double off = x == 0 ? 0 : to_bits(x) & 1 ? 0x1p-22 : -0x1p-22;
  const float y = static_cast<float>(std::exp2(static_cast<double>(x)) * (1 + off));
  return y < 0x1p-126f ? 0.0f : y;
}
template <typename T>
uint32_t cvt_rn_x2(float low, float high, T) {
  T first, second;
  from_float(low, &first);
  from_float(high, &second);
  return first.bits | uint32_t{second.bits} << 16;
}

namespace detail {

using emulation::Space;

template <Space space, typename T, bool caches = true>
__attribute__((no_sanitize("thread"))) T load(const void* p, Site site) {
  emulation::access(p, sizeof(T), space, false, caches, site);
  return *static_cast<const T*>(p);
}
template <Space space, typename T>
__attribute__((no_sanitize("thread"))) void store(void* p, T value, Site site) {
  emulation::access(p, sizeof(T), space, true, false, site);
  *static_cast<T*>(p) = value;
}

}  // namespace detail

inline Vec4 ld_global_v4(const void* p, MARFAST_SITE) {
  return detail::load<detail::Space::global, Vec4>(p, site);
}
inline Vec4 ld_global_cg_v4(const void* p, MARFAST_SITE) {
  return detail::load<detail::Space::global, Vec4, false>(p, site);
}
inline Vec4 ld_shared_v4(const void* p, MARFAST_SITE) {
  return detail::load<detail::Space::shared, Vec4>(p, site);
}
inline float ld_global_cg(const float* p, MARFAST_SITE) {
  return detail::load<detail::Space::global, float, false>(p, site);
}
inline void st_global_v4(void* p, Vec4 value, MARFAST_SITE) {
  detail::store<detail::Space::global>(p, value, site);
}
inline void st_shared_v4(void* p, Vec4 value, MARFAST_SITE) {
  detail::store<detail::Space::shared>(p, value, site);
}

inline void fence_gpu(MARFAST_SITE) { emulation::fence(site); }
inline uint32_t atom_add_release_gpu(uint32_t* p, uint32_t value, MARFAST_SITE) {
  return emulation::atomic(emulation::Atomic::add, p, value, false, true, "atom_add_release_gpu",
                           site);
}
inline uint32_t atom_add_gpu(uint32_t* p, uint32_t value, MARFAST_SITE) {
  return emulation::atomic(emulation::Atomic::add, p, value, false, false, "atom_add_gpu", site);
}
inline uint32_t ld_acquire_gpu(const uint32_t* p, MARFAST_SITE) {
  return emulation::atomic(emulation::Atomic::load, const_cast<uint32_t*>(p), 0, true, false,
                           "ld_acquire_gpu", site);
}
inline uint32_t ld_relaxed_gpu(const uint32_t* p, MARFAST_SITE) {
  return emulation::atomic(emulation::Atomic::load, const_cast<uint32_t*>(p), 0, false, false,
                           "ld_relaxed_gpu", site);
}
inline void st_release_gpu(uint32_t* p, uint32_t value, MARFAST_SITE) {
  emulation::atomic(emulation::Atomic::store, p, value, false, true, "st_release_gpu", site);
}
inline void nanosleep(uint32_t, MARFAST_SITE) { emulation::pause(site); }
inline uint64_t globaltimer() {
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}
inline void trap(MARFAST_SITE) { emulation::trap(site); }

#undef MARFAST_SITE

}  // namespace marfast::ptx
