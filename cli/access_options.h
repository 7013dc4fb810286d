#pragma once

#include <string>
#include <vector>

#include "common/base/config.h"
#include "common/base/result.h"
#include "router/placement/slo_config.h"
#include "router/service/config.h"

namespace baton::cli {

// Who may use the router: options that a router has, and a whole cluster.
struct AccessPaths {
  std::string api_key_file;
  std::string tenants_file;
  std::string admin_key_file;
  std::vector<std::string> allowed_hosts;
};

void add_access_options(Options& options, AccessPaths& paths);
// What the files say. Errors name file or option, and hold no key.
result<router::AccessConfig> read_access(const AccessPaths& paths,
                                         const router::SloClasses& classes);

}  // namespace baton::cli
