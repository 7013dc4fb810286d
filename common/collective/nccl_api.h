#pragma once

#include <array>
#include <cstddef>
#include <string>

#include "common/base/result.h"

// NCCL as it is found at run time: what of its C interface is used here, which has kept its form
// since 2.13. No header of NCCL's is needed to build, and no library until ranks on GPUs start.
namespace baton::collective {

using NcclComm = struct NcclCommunicator*;  // NCCL's own
using NcclStream = void*;                   // a cudaStream_t
struct NcclUniqueId {                       // passed by value, as NCCL has it
  std::array<char, 128> bytes{};
};
using NcclResult = int;
inline constexpr NcclResult kNcclSuccess = 0, kNcclInProgress = 7;
inline constexpr int kNcclUint8 = 1;

struct NcclApi {
  NcclResult (*get_version)(int* version) = nullptr;
  NcclResult (*get_unique_id)(NcclUniqueId* id) = nullptr;
  NcclResult (*comm_init_rank)(NcclComm* comm, int size, NcclUniqueId id, int rank) = nullptr;
  NcclResult (*comm_abort)(NcclComm comm) = nullptr;
  NcclResult (*comm_get_async_error)(NcclComm comm, NcclResult* found) = nullptr;
  NcclResult (*all_gather)(const void* part, void* all, size_t count, int type, NcclComm comm,
                           NcclStream stream) = nullptr;
  NcclResult (*broadcast)(const void* from, void* to, size_t count, int type, int root,
                          NcclComm comm, NcclStream stream) = nullptr;
  NcclResult (*group_start)() = nullptr;
  NcclResult (*group_end)() = nullptr;
  const char* (*get_error_string)(NcclResult result) = nullptr;
  const char* (*get_last_error)(NcclComm comm) = nullptr;

  // Loads `library`: a file's name, or a path. It stays loaded. kUnavailable, in a sentence for
  // people. Where the environment does not say otherwise (NCCL_SOCKET_IFNAME), ranks find each
  // other by the loopback device alone.
  static result<NcclApi> load(const std::string& library);

  std::string version() const;  // "2.28.9"
  // "CALL: what NCCL says of it"; `comm` may be null.
  Error error_of(const char* call, NcclResult result, NcclComm comm) const;
};

}  // namespace baton::collective
