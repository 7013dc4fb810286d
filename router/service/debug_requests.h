#pragma once

#include <span>
#include <string>

#include "router/dispatch/request_view.h"
#include "router/placement/slo_config.h"

namespace baton::router {

// The answer of /debug/requests (docs/access_log.md). `in_flight`: how many there are in all.
std::string debug_requests(std::span<const RequestView> shown, size_t in_flight,
                           const SloClasses& classes, TimePoint now);

}  // namespace baton::router
