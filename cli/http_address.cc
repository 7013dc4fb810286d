#include "cli/http_address.h"

#include "common/net/rpc.h"

namespace baton::cli {

std::string reachable_host(const std::string& host) {
  if (!net::is_unspecified(host)) return host;
  return host.find(':') != std::string::npos ? "::1" : "127.0.0.1";
}

std::string without_brackets(const std::string& host) {
  const bool has = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  return has ? host.substr(1, host.size() - 2) : host;
}

}  // namespace baton::cli
