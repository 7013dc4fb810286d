#pragma once

#include <optional>
#include <string>

#include "router/placement/request_slo.h"
#include "router/tenants/tenant.h"

namespace baton::router {

// What a tenant's request is promised: as choose_slo() has it, within the classes that the tenant
// may use. Who names none gets the router's default one, or else the tenant's first. Its place in
// queues: each step of priority halves the time after which it is due, or doubles it below 0, so
// that a low one waits longer but not for ever.
//
// Errors: 400 naming the field or header; 403 for a class that is not the tenant's.
api_result<RequestSlo> choose_tenant_slo(const TenantConfig& tenant, const SloClasses& classes,
                                         SloHeaders headers,
                                         const std::optional<std::string>& service_tier,
                                         TimePoint received);

}  // namespace baton::router
