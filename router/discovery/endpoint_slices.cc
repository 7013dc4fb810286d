#include "router/discovery/endpoint_slices.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <optional>
#include <utility>

namespace baton::router {
namespace {

namespace json = boost::json;

constexpr size_t kMaxMessageBytes = 256;  // of an error that is passed on

Error bad(std::string what) { return error(Errc::kInvalidArgument, std::move(what)); }

std::string_view string_in(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  const json::string* text = value ? value->if_string() : nullptr;
  return text ? std::string_view(*text) : std::string_view();
}

const json::object* object_in(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value ? value->if_object() : nullptr;
}

// An array that is left out, or null, is empty.
result<const json::array*> array_in(const json::object& object, std::string_view key) {
  static const json::array kNone;
  const json::value* value = object.if_contains(key);
  if (value == nullptr || value->is_null()) return &kNone;
  if (const json::array* array = value->if_array()) return array;
  return bad(fmt::format("{} is not an array", key));
}

result<json::value> parse_object(std::string_view text) {
  boost::system::error_code failed;
  json::value value = json::parse(text, failed);
  if (failed) return bad("the API server's answer is not JSON: " + failed.message());
  if (!value.is_object()) return bad("the API server's answer is not an object");
  return value;
}

std::optional<uint16_t> number_of(const json::object& port) {
  const json::value* number = port.if_contains("port");
  const int64_t* value = number ? number->if_int64() : nullptr;
  if (value == nullptr || *value < 1 || *value > 65535) return {};
  return static_cast<uint16_t>(*value);
}

result<uint16_t> port_of(const json::object& slice, const ServicePlace& place) {
  if (const auto number = parse_port(place.port)) return *number;
  BATON_TRY(const json::array* ports, array_in(slice, "ports"));
  std::optional<uint16_t> found;
  for (const json::value& entry : *ports) {
    const json::object* port = entry.if_object();
    if (port == nullptr) return bad("ports: an entry is not an object");
    if (!place.port.empty() && string_in(*port, "name") != place.port) continue;
    if (found) return bad("ports: there are several; name one as in NAMESPACE/SERVICE:PORT");
    found = number_of(*port);
    if (!found) return bad("ports: a port is not in [1, 65535]");
  }
  if (found) return *found;
  return bad(place.port.empty() ? "ports: there is none"
                                : fmt::format("ports: none is named '{}'", place.port));
}

bool is_terminating(const json::object& endpoint) {
  const json::object* conditions = object_in(endpoint, "conditions");
  const json::value* value = conditions ? conditions->if_contains("terminating") : nullptr;
  return value && value->is_bool() && value->get_bool();
}

// All addresses of one endpoint are the same pod: the API says to use the first. Empty: there is
// none of that family.
std::string_view address_of(const json::object& endpoint, bool is_v6) {
  const auto addresses = array_in(endpoint, "addresses");
  if (!addresses || (*addresses)->empty()) return {};
  const json::string* text = (*addresses)->front().if_string();
  in6_addr room;
  if (text == nullptr || inet_pton(is_v6 ? AF_INET6 : AF_INET, text->c_str(), &room) != 1) {
    return {};
  }
  return *text;
}

void add_endpoint(const json::value& entry, uint16_t port, EndpointSlice& slice) {
  const json::object* endpoint = entry.if_object();
  if (endpoint != nullptr && is_terminating(*endpoint)) return;
  const std::string_view host = endpoint ? address_of(*endpoint, slice.is_v6) : std::string_view();
  if (host.empty()) {
    slice.left_out.add(1, "endpoints.addresses: the first is not one of the slice's addressType");
    return;
  }
  slice.addresses.push_back(slice.is_v6 ? fmt::format("[{}]:{}", host, port)
                                        : fmt::format("{}:{}", host, port));
}

result<std::string> name_of(const json::object& slice) {
  const json::object* metadata = object_in(slice, "metadata");
  const std::string_view name = metadata ? string_in(*metadata, "name") : std::string_view();
  if (name.empty() || name.size() > 253) return bad("metadata.name of a slice is missing");
  return std::string(name);
}

// What of one slice cannot be used does not keep the others from it.
result<EndpointSlice> parse_slice(const json::object& object, const ServicePlace& place) {
  EndpointSlice slice;
  BATON_TRY(slice.name, name_of(object));
  BATON_TRY(const json::array* endpoints, array_in(object, "endpoints"));
  if (endpoints->empty()) return slice;  // such a slice may have no ports
  if (endpoints->size() > EndpointSlice::kMostEndpoints) {
    return bad("endpoints: a slice has over 1000");
  }
  const std::string_view type = string_in(object, "addressType");
  slice.is_v6 = type == "IPv6";
  const auto port = port_of(object, place);
  if (!slice.is_v6 && type != "IPv4") {
    slice.left_out.add(endpoints->size(), "addressType is neither IPv4 nor IPv6");
  } else if (!port) {
    slice.left_out.add(endpoints->size(), port.error().message);
  } else {
    for (const json::value& entry : *endpoints) add_endpoint(entry, *port, slice);
  }
  return slice;
}

result<std::string> version_of(const json::object& object) {
  const json::object* metadata = object_in(object, "metadata");
  const std::string_view version =
      metadata ? string_in(*metadata, "resourceVersion") : std::string_view();
  // Opaque, but it goes into a path.
  const auto is_safe = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_' || c == '.';
  };
  if (version.empty() || version.size() > 128 || !std::ranges::all_of(version, is_safe)) {
    return bad("metadata.resourceVersion is missing or not one");
  }
  return std::string(version);
}

SliceEvent error_event(const json::object& object) {
  const json::value* code = object.if_contains("code");
  const int64_t* number = code ? code->if_int64() : nullptr;
  const bool gone = number && *number == 410;
  return {.kind = gone ? SliceEvent::Kind::kGone : SliceEvent::Kind::kError,
          .version = {},
          .slice = {},
          .message = std::string(string_in(object, "message").substr(0, kMaxMessageBytes))};
}

}  // namespace

result<SliceList> parse_slice_list(std::string_view text, const ServicePlace& place) {
  BATON_TRY(const json::value value, parse_object(text));
  const json::object& object = value.get_object();
  if (string_in(object, "kind") != "EndpointSliceList") {
    return bad("kind is not EndpointSliceList");
  }
  SliceList list;
  BATON_TRY(list.version, version_of(object));
  BATON_TRY(const json::array* items, array_in(object, "items"));
  for (const json::value& item : *items) {
    const json::object* slice = item.if_object();
    if (slice == nullptr) return bad("items: an entry is not an object");
    BATON_TRY(EndpointSlice parsed, parse_slice(*slice, place));
    list.slices.push_back(std::move(parsed));
  }
  return list;
}

result<SliceEvent> parse_slice_event(std::string_view line, const ServicePlace& place) {
  BATON_TRY(const json::value value, parse_object(line));
  const json::object& event = value.get_object();
  const std::string_view type = string_in(event, "type");
  const json::object* object = object_in(event, "object");
  if (object == nullptr) return bad("object is missing in an event");
  if (type == "ERROR") return error_event(*object);
  SliceEvent parsed;
  BATON_TRY(parsed.version, version_of(*object));
  if (type == "BOOKMARK") {
    parsed.kind = SliceEvent::Kind::kBookmark;
  } else if (type == "DELETED") {
    parsed.kind = SliceEvent::Kind::kDeleted;
    BATON_TRY(parsed.slice.name, name_of(*object));
  } else if (type == "ADDED" || type == "MODIFIED") {
    parsed.kind = SliceEvent::Kind::kChanged;
    BATON_TRY(parsed.slice, parse_slice(*object, place));
  } else {
    return bad("type of an event is not known");
  }
  return parsed;
}

}  // namespace baton::router
