#pragma once

// Named ranges for profilers, by NVTX: in the domain `marfast`, as those of marfast/profiling.py,
// in which they lie. Where no tool is attached one costs a comparison; where NVTX's headers were
// missing at build, nothing.

#include <cstdint>

#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define MARFAST_HAVE_NVTX 1
#else
#define MARFAST_HAVE_NVTX 0
#endif

namespace marfast {

class [[maybe_unused]] Range {  // ends with its scope
 public:
  Range(const Range&) = delete;
#if MARFAST_HAVE_NVTX
  Range(const char* name, int64_t payload) {
    if (domain() == nullptr) return;
    nvtxEventAttributes_t attributes{};
    attributes.version = NVTX_VERSION;
    attributes.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
    attributes.messageType = NVTX_MESSAGE_TYPE_ASCII;
    attributes.message.ascii = name;
    attributes.payloadType = NVTX_PAYLOAD_TYPE_INT64;
    attributes.payload.llValue = payload;
    nvtxDomainRangePushEx(domain(), &attributes);
  }
  ~Range() {
    if (domain() != nullptr) nvtxDomainRangePop(domain());
  }

 private:
  static nvtxDomainHandle_t domain() {  // null where no tool is attached
    static const nvtxDomainHandle_t created = nvtxDomainCreateA("marfast");
    return created;
  }
#else
  Range(const char*, int64_t) {}
#endif
};

template <int kRank>
struct Prefer : Prefer<kRank - 1> {};
template <>
struct Prefer<0> {};

// The payload of an op's range: its tokens, or else its rows or images.
template <class Args>
auto size_of(const Args& a, Prefer<3>) -> decltype(int64_t{a.tokens}) {
  return a.tokens;
}
template <class Args>
auto size_of(const Args& a, Prefer<2>) -> decltype(int64_t{a.rows}) {
  return a.rows;
}
template <class Args>
auto size_of(const Args& a, Prefer<1>) -> decltype(int64_t{a.images}) {
  return a.images;
}
template <class Args>
int64_t size_of(const Args&, Prefer<0>) {
  return 0;
}

template <class Args>
Range range_of(const char* op, const Args& a) {
  return Range(op, size_of(a, Prefer<3>{}));
}

}  // namespace marfast
