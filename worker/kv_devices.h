#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "common/base/result.h"
#include "common/net/interfaces.h"
#include "worker/worker.h"

namespace baton::worker {

// Which network devices UCX listens on, as UCX_NET_DEVICES. Without trusted_network: "lo", and
// another is refused. "auto" is the interface that has the address the worker listens on; where
// that is any address, the one that has the address it advertises, else the one of the default
// route, else all but loopback. With an interface come the RDMA ports of the same card.
result<std::string> kv_devices(const WorkerConfig& config);

// The choice by itself, among interfaces that are there. `listen` and `advertise` are addresses,
// resolved; none if they name no own one. `sysfs` is /sys.
std::string choose_devices(const std::vector<std::string>& listen,
                           const std::vector<std::string>& advertise,
                           const net::Interfaces& interfaces, const std::filesystem::path& sysfs);

}  // namespace baton::worker
