#include "cli/kubernetes_options.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "router/service/name_watch.h"

namespace baton::cli {
namespace {

// Kubernetes sets these two in every container.
result<net::HostPort> server_of_this_cluster() {
  const char* host = std::getenv("KUBERNETES_SERVICE_HOST");
  const char* port = std::getenv("KUBERNETES_SERVICE_PORT");
  if (host != nullptr && port != nullptr) return net::HostPort{host, port};
  return error(Errc::kInvalidArgument,
               "it is needed outside of a cluster, since --workers names a Service");
}

}  // namespace

void add_kubernetes_options(Options& options, KubernetesSettings& settings) {
  options.add("kubernetes-api", &settings.api,
              "host:port of the API server, for k8s: in --workers; empty: that of this cluster");
  options.add("kubernetes-token-file", &settings.token_file,
              "File with the token that the API server is shown, read again as it rotates");
  options.add("kubernetes-ca-file", &settings.ca_file,
              "PEM certificates that the API server's must chain to");
}

result<std::optional<router::KubernetesApi>> make_kubernetes(
    const KubernetesSettings& settings, const std::vector<std::string>& workers) {
  const auto is_service = [](const std::string& text) {
    const auto place = router::parse_worker_place(text);
    return place && place->service;
  };
  if (std::ranges::none_of(workers, is_service)) return std::nullopt;
  router::KubernetesApi api;
  api.token_file = settings.token_file;
  api.ca_file = settings.ca_file;
  auto server =
      settings.api.empty() ? server_of_this_cluster() : net::split_host_port(settings.api);
  if (!server) return error(server.error().code, "--kubernetes-api: " + server.error().message);
  api.server = std::move(*server);
  return api;
}

}  // namespace baton::cli
