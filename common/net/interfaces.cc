#include "common/net/interfaces.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <cstdint>
#include <fstream>
#include <limits>
#include <memory>
#include <sstream>

namespace baton::net {
namespace {

// One without a metric, or that is not up or leads nowhere, is passed over.
class LowestMetric {
 public:
  void offer(const std::string& interface, uint32_t flags, uint32_t metric) {
    constexpr uint32_t kReject = 0x200;  // RTF_REJECT
    if ((flags & RTF_UP) == 0 || (flags & kReject) != 0 || interface == "lo") return;
    if (!found_.empty() && metric >= metric_) return;
    found_ = interface;
    metric_ = metric;
  }
  const std::string& found() const { return found_; }

 private:
  std::string found_;
  uint32_t metric_ = std::numeric_limits<uint32_t>::max();
};

std::string default_route_v4(const std::filesystem::path& table) {
  std::ifstream file(table);
  std::string line;
  std::getline(file, line);  // the columns' names
  LowestMetric lowest;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string interface, destination, gateway, mask;
    uint32_t flags = 0, references = 0, use = 0, metric = 0;
    words >> interface >> destination >> gateway >> std::hex >> flags >> std::dec >> references >>
        use >> metric >> mask;
    if (words && destination == "00000000" && mask == "00000000") {
      lowest.offer(interface, flags, metric);
    }
  }
  return lowest.found();
}

std::string default_route_v6(const std::filesystem::path& table) {
  std::ifstream file(table);
  std::string line;
  LowestMetric lowest;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string destination, length, source, source_length, next, interface;
    uint32_t metric = 0, references = 0, use = 0, flags = 0;
    words >> destination >> length >> source >> source_length >> next >> std::hex >> metric >>
        references >> use >> flags >> interface;
    if (words && destination == std::string(32, '0') && length == "00") {
      lowest.offer(interface, flags, metric);
    }
  }
  return lowest.found();
}

std::string text_of(const sockaddr& address) {
  char text[INET6_ADDRSTRLEN] = {};
  const void* bytes = nullptr;
  if (address.sa_family == AF_INET) {
    bytes = &reinterpret_cast<const sockaddr_in&>(address).sin_addr;
  } else if (address.sa_family == AF_INET6) {
    bytes = &reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
  }
  if (bytes == nullptr) return {};
  return inet_ntop(address.sa_family, bytes, text, sizeof(text)) == nullptr ? "" : text;
}

}  // namespace

std::string default_route_interface(const std::filesystem::path& folder) {
  const std::string v4 = default_route_v4(folder / "route");
  return v4.empty() ? default_route_v6(folder / "ipv6_route") : v4;
}

Interfaces read_interfaces() {
  Interfaces read;
  read.default_route = default_route_interface("/proc/self/net");
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return read;
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner(list, freeifaddrs);
  for (const ifaddrs* at = list; at != nullptr; at = at->ifa_next) {
    if (at->ifa_addr == nullptr || (at->ifa_flags & IFF_UP) == 0) continue;
    const std::string address = text_of(*at->ifa_addr);
    if (address.empty()) continue;
    const std::string name = at->ifa_name;  // "eth0:1" is a second address of eth0
    read.addresses.push_back(
        {name.substr(0, name.find(':')), address, (at->ifa_flags & IFF_LOOPBACK) != 0});
  }
  return read;
}

std::vector<std::string> resolve_host(const std::string& host) {
  boost::asio::io_context io;
  boost::system::error_code ec;
  boost::asio::ip::tcp::resolver resolver(io);
  std::vector<std::string> addresses;
  const auto found = resolver.resolve(host, "", ec);
  if (ec) return addresses;
  for (const auto& entry : found) addresses.push_back(entry.endpoint().address().to_string());
  return addresses;
}

}  // namespace baton::net
