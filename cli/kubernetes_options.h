#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/base/config.h"
#include "router/service/kubernetes_api.h"

namespace baton::cli {

struct KubernetesSettings {
  std::string api;
  std::string token_file = "/var/run/secrets/kubernetes.io/serviceaccount/token";
  std::string ca_file = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
};

void add_kubernetes_options(Options& options, KubernetesSettings& settings);
// None if no place of `workers` is a Service. An error names the flag.
result<std::optional<router::KubernetesApi>> make_kubernetes(
    const KubernetesSettings& settings, const std::vector<std::string>& workers);

}  // namespace baton::cli
