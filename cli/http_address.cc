#include "cli/http_address.h"

#include <boost/asio/ip/address.hpp>

namespace baton::cli {

std::string host_port(const std::string& host, uint16_t port) {
  const bool is_v6 = host.find(':') != std::string::npos;
  return (is_v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

std::string reachable_host(const std::string& host) {
  boost::system::error_code ec;
  const auto ip = boost::asio::ip::make_address(host, ec);
  if (ec || !ip.is_unspecified()) return host;
  return ip.is_v6() ? "::1" : "127.0.0.1";
}

std::string without_brackets(const std::string& host) {
  const bool has = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  return has ? host.substr(1, host.size() - 2) : host;
}

}  // namespace baton::cli
