#include <boost/asio/io_context.hpp>
#include <cstdio>

#include "cli/access_options.h"
#include "cli/commands.h"
#include "cli/kubernetes_options.h"
#include "cli/model_name.h"
#include "cli/placement_options.h"
#include "cli/process.h"
#include "cli/run_loop.h"
#include "cli/tls_options.h"
#include "cli/trace_options.h"
#include "common/base/config.h"
#include "common/base/log.h"
#include "common/formats/model_files.h"
#include "router/service.h"
#include "router/service/name_watch.h"

namespace baton::cli {
namespace {

struct RouterSettings {
  std::string listen = "127.0.0.1:8000";
  std::string metrics_listen;
  std::vector<std::string> workers;
  KubernetesSettings kubernetes;
  std::string model;
  std::string model_name;
  AccessPaths access;
  std::string secret_file;
  TlsPaths tls;
  PlacementSettings placement;
  uint32_t max_body_mib = 4;
  uint32_t max_connections = 1024;
  uint32_t max_waiting = 1024;
  uint32_t deadline_seconds = 600;
  uint32_t shutdown_delay_seconds = 0;
  uint32_t drain_seconds = 30;
  std::string record_requests;
  std::string access_log;
  TraceSettings traces;
  std::string log_level = "info";
  int32_t ready_fd = -1;
};

void add_options(Options& options, RouterSettings& s) {
  options.add("listen", &s.listen, "host:port of the HTTP API; port 0 picks one");
  options.add(
      "metrics-listen", &s.metrics_listen,
      "host:port of /metrics, /health and /ready; empty: /metrics is on the port of the API");
  options.add("workers", &s.workers,
              "host:port of each worker; dns:host:port: one at each address that the name has; "
              "k8s:NAMESPACE/SERVICE:PORT: one at each endpoint of the Service");
  add_kubernetes_options(options, s.kubernetes);
  options.add("model", &s.model, "GGUF file or Hugging Face directory, for its tokenizer");
  options.add("model-name", &s.model_name, "Name that requests use; empty: from the path");
  add_access_options(options, s.access);
  options.add("secret-file", &s.secret_file,
              "File with the secret that routers and workers share, one a line");
  add_tls_options(options, s.tls);
  add_placement_options(options, s.placement);
  options.add("max-body-mib", &s.max_body_mib, "Largest request body, MiB");
  options.add("max-connections", &s.max_connections, "HTTP connections at once");
  options.add("max-waiting", &s.max_waiting, "Requests that may wait for a worker");
  options.add("deadline-seconds", &s.deadline_seconds, "Longest life of a request");
  options.add("shutdown-delay-seconds", &s.shutdown_delay_seconds,
              "How long SIGTERM serves on with /ready at 503, for a balancer to turn away");
  options.add("drain-seconds", &s.drain_seconds, "How long SIGTERM lets requests finish");
  options.add(
      "record-requests", &s.record_requests,
      "File for how each request went, without what it said (CSV), which is replaced; empty: "
      "none");
  options.add("access-log", &s.access_log,
              "File that gets a line of JSON for each request; -: standard output; empty: none");
  add_trace_options(options, s.traces);
  options.add("log-level", &s.log_level, "debug, info, warn or error");
  options.add("ready-fd", &s.ready_fd, "Descriptor to report the port on, once");
}

result<router::RouterConfig> make_config(const RouterSettings& s) {
  const auto bad = [](std::string what) { return error(Errc::kInvalidArgument, std::move(what)); };
  if (s.workers.empty()) return bad("--workers is needed");
  if (s.model.empty()) return bad("--model is needed");
  BATON_CHECK_OK(net::split_host_port(s.listen));
  if (!s.metrics_listen.empty()) BATON_CHECK_OK(net::split_host_port(s.metrics_listen));
  BATON_CHECK_OK(check_log_level(s.log_level));
  for (const auto& address : s.workers) {
    if (const auto where = router::parse_worker_place(address); !where) return where.error();
  }
  if (s.max_body_mib == 0 || s.max_body_mib > 1024)
    return bad("--max-body-mib is not in [1, 1024]");
  if (s.deadline_seconds == 0 || s.deadline_seconds > 86400) {
    return bad("--deadline-seconds is not in [1, 86400]");
  }
  if (s.shutdown_delay_seconds > 600) return bad("--shutdown-delay-seconds is not in [0, 600]");
  router::RouterConfig config;
  config.http.address = s.listen;
  config.http.max_body_bytes = static_cast<size_t>(s.max_body_mib) << 20;
  config.http.max_connections = s.max_connections;
  config.metrics_listen = s.metrics_listen;
  config.workers = s.workers;
  BATON_TRY(config.kubernetes, make_kubernetes(s.kubernetes, s.workers));
  config.models = {{s.model_name.empty() ? model_name_of(s.model) : s.model_name, s.model}};
  BATON_TRY(config.rpc.secrets, net::read_secrets(s.secret_file));
  BATON_TRY(config.rpc.tls, read_tls(s.tls, net::kTlsRouterName));
  BATON_TRY(PlacementConfig placement, make_placement(s.placement));
  config.slo_classes = std::move(placement.classes);
  BATON_TRY(config.access, read_access(s.access, config.slo_classes));
  config.allowed_hosts = s.access.allowed_hosts;
  config.placement = std::move(placement.placement);
  config.roles = placement.roles;
  config.dispatch.max_queued = s.max_waiting;
  config.request_deadline = seconds(s.deadline_seconds);
  config.shutdown_delay = seconds(s.shutdown_delay_seconds);
  config.drain_timeout = seconds(s.drain_seconds);
  config.record_requests = s.record_requests;
  config.access_log = s.access_log;
  BATON_TRY(config.traces, read_traces(s.traces));
  return config;
}

// SIGHUP. All files are read and checked before anything of them is in force.
void reload(const RouterSettings& s, const router::SloClasses& classes,
            router::RouterService& service) {
  service.reopen_logs();
  const auto access = read_access(s.access, classes);
  if (!access) {
    LOG_ERROR("keys and tenants stay as they were: {}", access.error().message);
    return;
  }
  service.set_access(*access);
  LOG_INFO("keys and tenants were read again; {} tenants", access->tenants.size());
}

int serve(const RouterSettings& s, const router::RouterConfig& config) {
  boost::asio::io_context io(1);
  auto service = router::RouterService::start(io, config);
  if (!service) {
    std::fprintf(stderr, "baton router: %s\n", service.error().message.c_str());
    return 1;
  }
  LOG_INFO("HTTP on port {}", (*service)->http_port());
  run_until_drained(
      io,
      [&] {
        std::string line = "{\"http\": " + std::to_string((*service)->http_port());
        if (const uint16_t metrics = (*service)->metrics_port()) {
          line += ", \"metrics\": " + std::to_string(metrics);
        }
        report_ready(s.ready_fd, line + "}");
      },
      [&](std::function<void()> done) { (*service)->drain(std::move(done)); },
      [&] { reload(s, config.slo_classes, **service); });
  return 0;
}

}  // namespace

status check_router_file(const std::string& file) { return check_router({"--config", file}); }

status check_router(const std::vector<std::string>& args) {
  RouterSettings settings;
  Options options("router", "");
  add_options(options, settings);
  BATON_CHECK_OK(options.parse(args));
  BATON_CHECK_OK(make_config(settings));
  BATON_CHECK_OK(formats::read_model_config(settings.model));
  return {};
}

int run_router(const std::vector<std::string>& args) {
  RouterSettings settings;
  Options options("router", "The HTTP front: an OpenAI-compatible API over a pool of workers.");
  add_options(options, settings);
  const auto outcome = options.parse(args);
  if (outcome && *outcome == Options::Outcome::kDone) return 0;
  hold_hangups();  // before files are read: what changes afterwards is read again
  const auto config =
      outcome ? make_config(settings) : result<router::RouterConfig>(outcome.error());
  if (!config) {
    std::fprintf(stderr, "baton router: %s\n", config.error().message.c_str());
    return 2;
  }
  init_log("router", settings.log_level);
  return serve(settings, *config);
}

}  // namespace baton::cli
