#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/result.h"

namespace baton::router {

// A Service of Kubernetes whose endpoints are workers.
struct ServicePlace {
  std::string name_space, service;  // DNS labels: safe in a path
  std::string port;  // a number, or a name in the slices; empty: the only one that they have
};
// "NAMESPACE/SERVICE", or that and ":PORT". kInvalidArgument names the text.
result<ServicePlace> parse_service_place(std::string_view text);

// In [1, 65535], and nothing but digits.
std::optional<uint16_t> parse_port(std::string_view text);

}  // namespace baton::router
