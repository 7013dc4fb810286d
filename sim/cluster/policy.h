#pragma once

#include <string>

#include "common/base/result.h"
#include "router/dispatch/dispatcher.h"

namespace baton::sim {

// The router's settings, as its server has them, with a placement policy by name.
// kInvalidArgument: there is none of that name.
result<router::DispatchLimits> limits_for(const std::string& policy);

inline constexpr const char* kDefaultPolicy = "least_loaded";

}  // namespace baton::sim
