#include "sim/cluster/policy.h"

#include <fmt/format.h>

namespace baton::sim {

result<router::DispatchLimits> limits_for(const std::string& policy) {
  if (policy == kDefaultPolicy) return router::DispatchLimits{};
  return error(Errc::kInvalidArgument,
               fmt::format("there is no policy '{}'; there is: {}", policy, kDefaultPolicy));
}

}  // namespace baton::sim
