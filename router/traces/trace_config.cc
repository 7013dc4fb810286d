#include "router/traces/trace_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "common/net/rpc.h"

namespace baton::router {
namespace {

// What a field's name may consist of (RFC 9110, section 5.6.2).
bool is_token(std::string_view text) {
  constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::ranges::all_of(text, [&](unsigned char c) {
    return c < 0x80 && (std::isalnum(c) != 0 || kMarks.find(static_cast<char>(c)) != kMarks.npos);
  });
}

bool is_printable(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c >= ' ' && c <= '~'; });
}

std::string_view trim(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

}  // namespace

result<OtlpEndpoint> parse_otlp_endpoint(std::string_view url) {
  constexpr std::string_view kPlain = "http://", kTls = "https://";
  const auto bad = [&](std::string_view why) {
    return error(Errc::kInvalidArgument, fmt::format("the endpoint '{}' {}", url, why));
  };
  const bool tls = url.starts_with(kTls);
  if (!tls && !url.starts_with(kPlain)) return bad("begins with neither http:// nor https://");
  const std::string_view rest = url.substr(tls ? kTls.size() : kPlain.size());
  const size_t slash = std::min(rest.find('/'), rest.size());
  std::string authority(rest.substr(0, slash));
  // A port comes after the last colon, but for those of an IPv6 address in its brackets.
  const bool has_port = authority.rfind(':') + 1 > authority.rfind(']') + 1;
  if (tls && !has_port) authority += ":443";
  const auto where = net::split_host_port(authority);
  if (!where || where->port == "0") return bad("needs a host and a port");
  std::string path(rest.substr(slash));
  if (!is_printable(path) || path.find_first_of(" ?#") != path.npos)
    return bad("has no plain path");
  while (path.ends_with('/')) path.pop_back();
  return OtlpEndpoint{where->host, where->port, path + "/v1/traces", tls};
}

result<HttpFields> parse_header_lines(const std::vector<std::string>& lines) {
  HttpFields out;
  for (const std::string& line : lines) {
    const size_t colon = std::min(line.find(':'), line.size());
    const std::string_view name = trim(std::string_view(line).substr(0, colon));
    const std::string_view value =
        colon < line.size() ? trim(std::string_view(line).substr(colon + 1)) : std::string_view();
    if (!is_token(name) || value.empty() || !is_printable(value)) {
      return error(Errc::kInvalidArgument,
                   fmt::format("line {} of the headers is not 'name: value'", out.size() + 1));
    }
    out.emplace_back(name, value);
  }
  return out;
}

}  // namespace baton::router
