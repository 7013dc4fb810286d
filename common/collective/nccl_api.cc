#include "common/collective/nccl_api.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <stdlib.h>

#include <string_view>

namespace baton::collective {
namespace {

std::string dl_error() {
  const char* why = ::dlerror();
  return why == nullptr ? "no reason is given" : why;
}

}  // namespace

result<NcclApi> NcclApi::load(const std::string& library) {
  ::setenv("NCCL_SOCKET_IFNAME", "lo", /*overwrite=*/0);
  void* const loaded = ::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (loaded == nullptr) {
    return error(
        Errc::kUnavailable,
        fmt::format("tensor parallelism on GPUs needs NVIDIA's NCCL, which cannot be "
                    "loaded ({}): install libnccl2, or the Python package nvidia-nccl-cu12 "
                    "or -cu13, and have nccl_library name its libnccl.so.2",
                    dl_error()));
  }
  NcclApi api;
  std::string_view missing;
  const auto find = [&]<class Function>(const char* name, Function** to) {
    *to = reinterpret_cast<Function*>(::dlsym(loaded, name));
    if (*to == nullptr && missing.empty()) missing = name;
  };
  find("ncclGetVersion", &api.get_version);
  find("ncclGetUniqueId", &api.get_unique_id);
  find("ncclCommInitRank", &api.comm_init_rank);
  find("ncclCommAbort", &api.comm_abort);
  find("ncclCommGetAsyncError", &api.comm_get_async_error);
  find("ncclAllGather", &api.all_gather);
  find("ncclBroadcast", &api.broadcast);
  find("ncclGroupStart", &api.group_start);
  find("ncclGroupEnd", &api.group_end);
  find("ncclGetErrorString", &api.get_error_string);
  find("ncclGetLastError", &api.get_last_error);
  if (!missing.empty()) {
    return error(Errc::kUnavailable,
                 fmt::format("'{}' is no NCCL of 2.13 or newer: it has no {}", library, missing));
  }
  return api;
}

std::string NcclApi::version() const {
  int v = 0;
  if (get_version(&v) != kNcclSuccess) return "?";
  return fmt::format("{}.{}.{}", v / 10000, v / 100 % 100, v % 100);
}

Error NcclApi::error_of(const char* call, NcclResult result, NcclComm comm) const {
  const char* const last = get_last_error(comm);
  std::string_view more = last == nullptr ? "" : last;
  while (more.ends_with('\n')) more.remove_suffix(1);
  std::string text = fmt::format("{}: {}", call, get_error_string(result));
  if (!more.empty()) text += fmt::format(" ({})", more);
  return error(Errc::kUnavailable, text);
}

}  // namespace baton::collective
