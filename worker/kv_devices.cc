#include "worker/kv_devices.h"

#include <algorithm>
#include <fstream>
#include <utility>

#include "common/base/log.h"
#include "common/net/rpc.h"

namespace baton::worker {
namespace {

constexpr const char* kLoopback = "lo";

// The interface that has one of these addresses; empty: none has.
std::string owner_of(const std::vector<std::string>& addresses, const net::Interfaces& among) {
  for (const std::string& address : addresses) {
    if (net::is_loopback(address)) return kLoopback;  // 127.0.0.2 is nobody's, and is there
    for (const auto& own : among.addresses) {
      if (own.address == address) return own.interface;
    }
  }
  return {};
}

std::vector<std::string> all_but_loopback(const net::Interfaces& interfaces) {
  std::vector<std::string> names;
  for (const auto& own : interfaces.addresses) {
    if (own.is_loopback || std::ranges::find(names, own.interface) != names.end()) continue;
    names.push_back(own.interface);
  }
  if (names.empty()) names.push_back(kLoopback);
  return names;
}

std::vector<std::string> choose_interfaces(const std::vector<std::string>& listen,
                                           const std::vector<std::string>& advertise,
                                           const net::Interfaces& interfaces) {
  for (const auto* addresses : {&listen, &advertise}) {
    if (auto owner = owner_of(*addresses, interfaces); !owner.empty()) return {std::move(owner)};
  }
  if (!interfaces.default_route.empty()) return {interfaces.default_route};
  return all_but_loopback(interfaces);
}

// "mlx5_0:1": the card's name among RDMA devices, and its port, which the interface counts from 0.
std::vector<std::string> rdma_ports_of(const std::string& interface,
                                       const std::filesystem::path& sysfs) {
  const auto net = sysfs / "class/net" / interface;
  uint32_t port = 0;
  std::ifstream(net / "dev_port") >> port;
  std::vector<std::string> ports;
  std::error_code ec;
  for (const auto& card : std::filesystem::directory_iterator(net / "device/infiniband", ec)) {
    ports.push_back(card.path().filename().string() + ":" + std::to_string(port + 1));
  }
  std::ranges::sort(ports);
  return ports;
}

std::vector<std::string> own_addresses(const std::string& address) {
  const auto where = net::split_host_port(address);
  if (!where || net::is_unspecified(where->host)) return {};
  return net::resolve_host(where->host);
}

}  // namespace

std::string choose_devices(const std::vector<std::string>& listen,
                           const std::vector<std::string>& advertise,
                           const net::Interfaces& interfaces, const std::filesystem::path& sysfs) {
  std::string list;
  const auto add = [&](const std::string& device) { list += (list.empty() ? "" : ",") + device; };
  for (const std::string& interface : choose_interfaces(listen, advertise, interfaces)) {
    add(interface);
    for (const std::string& port : rdma_ports_of(interface, sysfs)) add(port);
  }
  return list;
}

result<std::string> kv_devices(const WorkerConfig& config) {
  const bool automatic = config.ucx_devices == "auto";
  if (!config.trusted_network) {
    if (automatic || config.ucx_devices == kLoopback) return std::string(kLoopback);
    return error(Errc::kInvalidArgument,
                 "will not open the network devices '" + config.ucx_devices +
                     "' for KV: set trusted_network if only routers and workers can reach them");
  }
  std::string devices =
      automatic ? choose_devices(own_addresses(config.listen), own_addresses(config.advertise),
                                 net::read_interfaces(), "/sys")
                : config.ucx_devices;
  LOG_INFO("KV over the network: on {}", devices);
  return devices;
}

}  // namespace baton::worker
