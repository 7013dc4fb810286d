#pragma once

#include <memory>
#include <string>

#include "common/base/result.h"
#include "kvtransfer/transport.h"

namespace baton::kvtransfer {

struct UcxOptions {
  std::string tls = "all";          // UCX transports that may be used, as UCX_TLS; "tcp": only that
  std::string net_devices = "all";  // as UCX_NET_DEVICES; pin it: the port is unauthenticated
  std::string tcp_port_range;       // "first-last", as UCX_TCP_PORT_RANGE; empty: any free port
  std::string name = "baton";       // shown in UCX's own messages

  // Sent and not yet taken by one peer.
  size_t max_queued_messages = 4096;
  size_t max_queued_bytes = 64u << 20;
};

// UCX: shared memory to peers of the same host, otherwise RDMA or TCP. UCX sets no signal handlers
// and reads no configuration but the above and its own environment variables. kUnavailable with
// UCX's reason. Under ThreadSanitizer, UCX needs UCX_MEM_EVENTS=n in the environment before exec.
result<std::unique_ptr<Transport>> make_ucx_transport(const UcxOptions& options);

}  // namespace baton::kvtransfer
