#include "router/tenants/tenant_slo.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <cmath>
#include <vector>

namespace baton::router {
namespace {

ApiError not_allowed(const TenantConfig& tenant, const SloClasses& classes, uint32_t wanted,
                     bool by_header) {
  std::vector<std::string> allowed;
  for (const uint32_t each : tenant.classes) allowed.push_back(classes[each].name);
  return {.status = HttpStatus::kForbidden,
          .message = fmt::format("The tenant '{}' may use the classes {}, not '{}'", tenant.name,
                                 fmt::join(allowed, ", "), classes[wanted].name),
          .param = by_header ? "x-baton-slo-class" : "service_tier",
          .code = "class_not_allowed"};
}

}  // namespace

api_result<RequestSlo> choose_tenant_slo(const TenantConfig& tenant, const SloClasses& classes,
                                         SloHeaders headers,
                                         const std::optional<std::string>& service_tier,
                                         TimePoint received) {
  const bool by_header = headers.slo_class.has_value();
  const bool named = by_header || (service_tier && *service_tier != "auto");
  if (!named && !tenant.may_use(classes.by_default)) {
    headers.slo_class = classes[tenant.classes.front()].name;
  }
  BATON_TRY(RequestSlo slo, choose_slo(classes, headers, service_tier, received));
  if (!tenant.may_use(slo.class_index)) {
    return not_allowed(tenant, classes, slo.class_index, by_header);
  }
  const std::chrono::duration<double, Duration::period> within = slo.due - received;
  slo.due = received + std::chrono::round<Duration>(within * std::exp2(-tenant.priority));
  return slo;
}

}  // namespace baton::router
