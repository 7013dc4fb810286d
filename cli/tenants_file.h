#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "router/placement/slo_config.h"
#include "router/tenants/tenant.h"

namespace baton::cli {

inline constexpr size_t kMaxTenants = 1000, kMaxTenantKeys = 4096;

// The tenants of a YAML file (docs/tenants.md). At least one; no name and no key is there twice.
// Errors name the tenant and the field, and hold no key.
result<std::vector<router::TenantConfig>> parse_tenants(const std::string& yaml,
                                                        const router::SloClasses& classes);
// The same of a file, which errors name: also one that everybody may read. Empty if `path` is.
result<std::vector<router::TenantConfig>> read_tenants(const std::string& path,
                                                       const router::SloClasses& classes);

}  // namespace baton::cli
