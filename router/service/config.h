#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/net/rpc.h"
#include "router/dispatch/dispatcher.h"
#include "router/http/server.h"
#include "router/openai/sampling.h"
#include "router/placement/slo_config.h"
#include "router/service/kubernetes_api.h"
#include "router/tenants/tenant.h"
#include "router/traces/trace_config.h"

namespace baton::router {

// A model that requests may name; its tokenizer and chat template are read from there.
struct ModelSource {
  std::string name;
  std::filesystem::path path;  // a GGUF file or a directory in Hugging Face form
};

// Who may use it.
struct AccessConfig {
  std::vector<std::string> api_keys;    // with tenants none; neither: everybody is let in
  std::vector<std::string> admin_keys;  // for /debug/...; none: it is not there
  std::vector<TenantConfig> tenants;    // no key is there twice
};

// Plain values; whoever starts the router fills them.
struct RouterConfig {
  HttpOptions http;
  // host:port of each worker's RPC endpoint, or of many (name_watch.h).
  std::vector<std::string> workers;
  // host:port of a port of its own for /metrics, /health and /ready, which has /metrics then in
  // place of http's; empty: none.
  std::string metrics_listen;
  std::optional<KubernetesApi> kubernetes;  // needed if one of workers is a Service
  std::vector<ModelSource> models;
  AccessConfig access;
  std::vector<std::string> allowed_hosts;            // of Host headers (host_check.h)
  RequestLimits limits;                              // max_body_bytes is http's
  size_t max_waiting_body_bytes = size_t{64} << 20;  // of long bodies not read yet; more gets 503
  DispatchLimits dispatch;
  PlacementOptions placement;  // of its classes nothing is read: they are slo_classes'
  SloClasses slo_classes;
  std::optional<RoleOptions> roles = RoleOptions{};  // of workers that are auto; none: left alone
  Duration request_deadline = std::chrono::minutes(10);
  Duration shutdown_delay = Duration::zero();  // of a drain: not ready, but serves on
  Duration drain_timeout = seconds(30);        // after it
  net::RpcOptions rpc;
  std::string record_requests;  // a file for how each request went; empty: none
  std::string access_log;       // a file for a line of JSON a request, "-": stdout; empty: none
  std::optional<TraceConfig> traces;  // for a collector of traces; none: nobody is told
};

}  // namespace baton::router
