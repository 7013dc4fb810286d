#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"

struct ucp_context;
struct ucp_ep;
struct ucp_mem;
struct ucp_worker;

namespace baton::kvtransfer {

struct UcxWorkerOptions {
  std::string tls, net_devices, tcp_port_range, name;  // as in UcxOptions
  bool network = false;                                // `tls` crosses hosts
  bool one_sided = false;  // reads a peer's memory, and is read; else messages only
};

// One UCX context with one worker. Control thread only.
class UcxWorker {
 public:
  static result<std::unique_ptr<UcxWorker>> create(const UcxWorkerOptions& options);
  ~UcxWorker();  // ends what is under way; memory_key()'s memory is gone
  UcxWorker(const UcxWorker&) = delete;
  UcxWorker& operator=(const UcxWorker&) = delete;

  ucp_worker* handle() const { return worker_; }
  ucp_context* context() const { return context_; }
  const std::string& address() const { return address_; }  // what a peer needs to reach it
  int event_fd() const { return event_fd_; }

  // At most `max_calls` of UCX's progress; true: there may be more to do.
  bool progress(int max_calls);
  result<bool> arm();  // as Transport::arm

  // Memory that UCX allocates, so that a peer of this host maps it and copies directly. Once.
  result<std::span<std::byte>> allocate(size_t bytes);
  ucp_mem* memory() const { return memory_; }
  const std::string& memory_key() const { return memory_key_; }

 private:
  UcxWorker() = default;
  status start();

  ucp_context* context_ = nullptr;
  ucp_worker* worker_ = nullptr;
  std::string address_;
  int event_fd_ = -1;
  ucp_mem* memory_ = nullptr;
  std::string memory_key_;
};

// "ucx 1.13". Addresses and keys are for equal ones only: UCX ends a process that it gives another
// version's.
std::string ucx_software();

// The transports of an endpoint's lanes, in UCX's order and words ("sysv", "tcp", ...).
std::vector<std::string> transports_of(ucp_ep* ep);

// UcxOptions::tls, split into what shares memory and what crosses hosts; either may be empty. The
// first of what shares memory is preferred: a System V segment loses its name as soon as it is
// there, before anything is in it, while UCX fills a posix file first: a worker that is killed
// meanwhile would leave it in /dev/shm for ever.
struct SplitTls {
  std::string shared_memory, network;
};
result<SplitTls> split_tls(std::string_view tls);

}  // namespace baton::kvtransfer
