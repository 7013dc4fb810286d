#pragma once

#include <string>

#include "common/base/result.h"
#include "common/net/rpc.h"
#include "doctor/links.h"

namespace baton::cli {

// How the doctors of two hosts meet: over the workers' RPC, with its certificates and secret. Both
// block.

// Listens, and lets everybody who comes read `side`, until SIGINT or SIGTERM. `listening` is called
// with the port.
status serve_reads(const std::string& address, const net::RpcOptions& rpc, doctor::ReadSide& side,
                   const std::function<void(uint16_t port)>& listening);

// The endpoint of who listens at `address`, for one's own. Within 10 s.
result<kvtransfer::Endpoint> meet_peer(const std::string& address, const net::RpcOptions& rpc,
                                       const kvtransfer::Endpoint& mine);

}  // namespace baton::cli
