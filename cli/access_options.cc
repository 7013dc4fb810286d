#include "cli/access_options.h"

#include "cli/api_keys.h"
#include "cli/tenants_file.h"

namespace baton::cli {

void add_access_options(Options& options, AccessPaths& paths) {
  options.add("api-key-file", &paths.api_key_file,
              "File with one accepted API key a line; empty: open");
  options.add("tenants-file", &paths.tenants_file,
              "YAML file of tenants: their keys, classes and quotas, instead of --api-key-file");
  options.add("admin-key-file", &paths.admin_key_file,
              "File with one key a line for /debug/requests, which else is not served, and for "
              "the details of the live page");
  options.add("allowed-hosts", &paths.allowed_hosts,
              "Names that Host and Origin may have, beside localhost and addresses; *: any; none: "
              "any, but on loopback without keys only those");
}

result<router::AccessConfig> read_access(const AccessPaths& paths,
                                         const router::SloClasses& classes) {
  router::AccessConfig access;
  if (!paths.api_key_file.empty() && !paths.tenants_file.empty()) {
    return error(Errc::kInvalidArgument,
                 "--api-key-file and --tenants-file: keys are the tenants' where there are any");
  }
  BATON_TRY(access.api_keys, read_api_keys(paths.api_key_file));
  BATON_TRY(access.admin_keys, read_api_keys(paths.admin_key_file));
  BATON_TRY(access.tenants, read_tenants(paths.tenants_file, classes));
  return access;
}

}  // namespace baton::cli
