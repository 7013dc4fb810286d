#pragma once

#include <filesystem>
#include <string>
#include <vector>

// The network interfaces of this process's network namespace.
namespace baton::net {

struct InterfaceAddress {
  std::string interface;  // "eth0"
  std::string address;    // "10.0.0.1", "fd00::2"
  bool is_loopback = false;
};

struct Interfaces {
  std::vector<InterfaceAddress> addresses;  // of those that are up, in the kernel's order
  std::string default_route;                // the interface it leads over; empty: there is none
};

// Whatever cannot be read is left out.
Interfaces read_interfaces();

// `folder` is /proc/net; the IPv4 route with the lowest metric, else the IPv6 one.
std::string default_route_interface(const std::filesystem::path& folder);

// A name or address as addresses; none if it cannot be resolved. Blocks.
std::vector<std::string> resolve_host(const std::string& host);

}  // namespace baton::net
