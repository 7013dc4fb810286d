#include <boost/asio/ip/address.hpp>
#include <string>

#include "common/net/rpc.h"

namespace baton::net {

result<HostPort> split_host_port(std::string_view address) {
  const auto bad = [&](std::string_view why) {
    return error(Errc::kInvalidArgument,
                 "address '" + std::string(address.substr(0, 256)) + "' " + std::string(why));
  };
  const size_t colon = address.rfind(':');
  if (colon == std::string_view::npos) return bad("has no :port");
  std::string_view host = address.substr(0, colon);
  const std::string_view port = address.substr(colon + 1);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return bad("needs [brackets] around an IPv6 host");
  }
  if (host.empty()) return bad("has no host");
  if (port.empty() || port.size() > 5 ||
      port.find_first_not_of("0123456789") != std::string_view::npos ||
      std::stoul(std::string(port)) > 65535) {
    return bad("needs a port from 0 to 65535");
  }
  return HostPort{std::string(host), std::string(port)};
}

std::string join_host_port(std::string_view host, uint16_t port) {
  const bool is_v6 = host.find(':') != std::string_view::npos;
  const std::string name(host);
  return (is_v6 ? "[" + name + "]" : name) + ":" + std::to_string(port);
}

bool is_loopback(std::string_view host) {
  if (host == "localhost") return true;
  boost::system::error_code ec;
  const auto ip = boost::asio::ip::make_address(std::string(host), ec);
  return !ec && ip.is_loopback();
}

bool is_unspecified(std::string_view host) {
  boost::system::error_code ec;
  const auto ip = boost::asio::ip::make_address(std::string(host), ec);
  return !ec && ip.is_unspecified();
}

}  // namespace baton::net
