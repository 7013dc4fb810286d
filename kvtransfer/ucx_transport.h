#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "common/base/result.h"
#include "kvtransfer/transport.h"

namespace baton::kvtransfer {

struct UcxOptions {
  // UCX transports that may be used, as UCX_TLS, without '^'. "all"; "tcp": never shared memory;
  // "shm": KV never crosses the network, messages do, by TCP.
  std::string tls = "all";
  std::string net_devices = "all";  // as UCX_NET_DEVICES
  std::string tcp_port_range;       // "first-last", as UCX_TCP_PORT_RANGE; empty: any free port
  std::string name = "baton";       // shown in UCX's own messages
  // Peers read this side's memory. If not, it is private, which huge pages make faster to compute
  // on; shared memory mostly has none.
  bool is_read = true;

  // Under way to one peer and not yet taken by it; beyond, it counts as lost.
  size_t max_queued_sends = 16384;
  size_t max_queued_bytes = 64u << 20;  // of messages; reads are answered out of the cache itself

  // Reads answered in turns: bytes of one turn, and of all that one peer was asked for and that has
  // not come.
  uint64_t read_turn_bytes = 480u << 10;
  uint64_t read_window_bytes = 4u << 20;
};

// UCX. Peers of the same host are read over shared memory; all others by messages that the owner
// answers out of its cache (wire_read.h), over TCP or what else UCX finds. UCX's own one-sided
// operations are off on the network: its port can be used to send us messages, not to read or write
// our memory, and a reader that dies does not take its source along (UCX 1.13 ends the process that
// answers a get of a dead peer). UCX sets no signal handlers. kUnavailable, kInvalidArgument.
// Under ThreadSanitizer, UCX needs UCX_MEM_EVENTS=n in the environment before exec.
result<std::unique_ptr<Transport>> make_ucx_transport(const UcxOptions& options);

}  // namespace baton::kvtransfer
