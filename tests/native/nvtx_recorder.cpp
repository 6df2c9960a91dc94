// A tool for NVTX_INJECTION64_PATH: writes every range that begins or ends, with its thread, to the
// file MARFAST_TEST_RANGES, a line each: push, thread, domain, name, payload; or pop, thread,
// domain.

#include <nvtx3/nvToolsExt.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

const std::string& text(const void* handle) { return *static_cast<const std::string*>(handle); }

template <class... Words>
void write(const char* format, Words... words) {
  static FILE* const file = std::fopen(std::getenv("MARFAST_TEST_RANGES"), "a");
  std::fprintf(file, format, words...);
  std::fflush(file);
}

long thread() { return syscall(SYS_gettid); }

nvtxDomainHandle_t create(const char* name) {
  return reinterpret_cast<nvtxDomainHandle_t>(new std::string(name));
}

nvtxStringHandle_t registered(nvtxDomainHandle_t, const char* string) {
  return reinterpret_cast<nvtxStringHandle_t>(new std::string(string));
}

int push(nvtxDomainHandle_t domain, const nvtxEventAttributes_t* a) {
  const char* name = a->messageType == NVTX_MESSAGE_TYPE_REGISTERED
                         ? text(a->message.registered).c_str()
                         : a->message.ascii;
  write("push\t%ld\t%s\t%s\t%lld\n", thread(), text(domain).c_str(), name,
        a->payloadType == NVTX_PAYLOAD_TYPE_INT64 ? static_cast<long long>(a->payload.llValue)
                                                  : -1ll);
  return 0;
}

int pop(nvtxDomainHandle_t domain) {
  write("pop\t%ld\t%s\n", thread(), text(domain).c_str());
  return 0;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int InitializeInjectionNvtx2(
    NvtxGetExportTableFunc_t get_table) {
  const auto* callbacks =
      static_cast<const NvtxExportTableCallbacks*>(get_table(NVTX_ETID_CALLBACKS));
  NvtxFunctionTable table = nullptr;
  unsigned int size = 0;
  if (!callbacks || !callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size) ||
      size <= NVTX_CBID_CORE2_DomainCreateA) {
    return 0;
  }
  const auto set = [table](int id, auto* function) {
    *table[id] = reinterpret_cast<NvtxFunctionPointer>(function);
  };
  set(NVTX_CBID_CORE2_DomainCreateA, create);
  set(NVTX_CBID_CORE2_DomainRegisterStringA, registered);
  set(NVTX_CBID_CORE2_DomainRangePushEx, push);
  set(NVTX_CBID_CORE2_DomainRangePop, pop);
  return 1;
}
