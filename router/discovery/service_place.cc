#include "router/discovery/service_place.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <system_error>

namespace baton::router {
namespace {

bool is_label(std::string_view text) {
  const auto is_inner = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  };
  return !text.empty() && text.size() <= 63 && text.front() != '-' && text.back() != '-' &&
         std::ranges::all_of(text, is_inner);
}

bool is_port(std::string_view text) {
  const bool is_number = text.find_first_not_of("0123456789") == std::string_view::npos;
  return is_number ? parse_port(text).has_value() : is_label(text);
}

}  // namespace

std::optional<uint16_t> parse_port(std::string_view text) {
  uint16_t port = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (failed != std::errc() || end != text.data() + text.size() || port == 0) return {};
  return port;
}

result<ServicePlace> parse_service_place(std::string_view text) {
  constexpr size_t kNone = std::string_view::npos;
  const size_t slash = std::min(text.find('/'), text.size());
  const size_t colon = text.find(':', slash);
  const std::string_view rest = text.substr(std::min(slash + 1, text.size()));
  ServicePlace place;
  place.name_space = text.substr(0, slash);
  place.service = colon == kNone ? rest : rest.substr(0, colon - slash - 1);
  if (colon != kNone) place.port = text.substr(colon + 1);
  if (is_label(place.name_space) && is_label(place.service) &&
      (colon == kNone || is_port(place.port))) {
    return place;
  }
  return error(Errc::kInvalidArgument,
               fmt::format("'{}' is not NAMESPACE/SERVICE or NAMESPACE/SERVICE:PORT", text));
}

}  // namespace baton::router
