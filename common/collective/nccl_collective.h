#pragma once

#include <memory>
#include <string>

#include "common/collective/collective.h"

namespace baton::collective {

struct NcclOptions {
  std::string library = "libnccl.so.2";               // a file's name, or a path
  device::Device* device = nullptr;                   // that this rank computes on
  void* (*native_stream)(device::Stream&) = nullptr;  // what CUDA knows a stream of it as
  milliseconds connect{120'000};                      // until NCCL has connected the ranks
};

// Over NCCL, between GPUs of this host, a process and a GPU each: gathers run on the stream that
// they are given, and are recorded with it. Host values are summed over Gloo. What has been told to
// be under way and does not come on for `timeout` counts as a rank's death, as do NCCL's own
// errors: the communicator is aborted, on a thread of this, so that the stream comes to its end;
// where it does not even so, the process ends. Blocks until all are connected; every rank gets an
// error where one has one. kUnavailable; kUnsupported where Baton was built without Gloo.
//
// All that was recorded is destroyed before this is, and so are the streams.
result<std::unique_ptr<Collective>> connect_nccl(uint32_t rank, uint32_t size,
                                                 const Exchange& exchange, milliseconds timeout,
                                                 const NcclOptions& options);

}  // namespace baton::collective
