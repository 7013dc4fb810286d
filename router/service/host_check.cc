#include "router/service/host_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/ip/address.hpp>
#include <utility>

#include "common/formats/utf8.h"

namespace baton::router {
namespace {

void lower(std::string& text) {
  std::ranges::transform(text, text.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c; });
}

// Without port and brackets: "h:80", "[::1]:80". Empty: it is neither.
std::string host_of(std::string_view authority) {
  if (authority.starts_with('[')) {
    const size_t end = authority.find(']');
    if (end == std::string_view::npos) return "";
    const std::string_view port = authority.substr(end + 1);
    if (!port.empty() && port.front() != ':') return "";
    return std::string(authority.substr(1, end - 1));
  }
  std::string host(authority.substr(0, authority.rfind(':')));
  lower(host);
  return host;
}

bool is_address(const std::string& host) {
  boost::system::error_code failed;
  boost::asio::ip::make_address(host, failed);
  return !failed;
}

ApiError foreign(std::string_view header, std::string_view value) {
  return {.status = HttpStatus::kForbidden,
          .message = fmt::format("The {} header says '{}', which is no name of this server; "
                                 "--allowed-hosts adds names",
                                 header, formats::printable(value)),
          .code = "host_not_allowed"};
}

}  // namespace

HostCheck::HostCheck(std::vector<std::string> allowed, bool on_loopback)
    : allowed_(std::move(allowed)), on_loopback_(on_loopback) {
  for (std::string& name : allowed_) lower(name);
  any_ = std::ranges::find(allowed_, "*") != allowed_.end();
}

bool HostCheck::allows(std::string_view authority) const {
  const std::string host = host_of(authority);
  return host == "localhost" || is_address(host) ||
         std::ranges::find(allowed_, host) != allowed_.end();
}

api_status HostCheck::check(const HttpHead& head, bool open) const {
  if (any_ || (allowed_.empty() && !(on_loopback_ && open))) return {};
  // HTTP/1.0 may come without; a browser does not.
  if (!head.host.empty() && !allows(head.host)) return foreign("Host", head.host);
  if (head.origin.empty()) return {};
  const std::string_view origin = head.origin;
  const size_t scheme = origin.find("://");
  const bool ours = scheme != std::string_view::npos && allows(origin.substr(scheme + 3));
  return ours ? api_status() : foreign("Origin", origin);
}

}  // namespace baton::router
