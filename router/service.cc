#include "router/service.h"

#include <fmt/format.h>

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <optional>
#include <utility>

#include "common/base/line_log.h"
#include "common/base/log.h"
#include "common/net/http_endpoint.h"
#include "router/service/api.h"
#include "router/service/cluster.h"
#include "router/traces/exporter.h"

namespace baton::router {
namespace {

result<ModelMap> load_models(const std::vector<ModelSource>& sources) {
  ModelMap models;
  if (sources.empty()) return error(Errc::kInvalidArgument, "the router has no model configured");
  for (const ModelSource& source : sources) {
    BATON_TRY(ServedModel model, ServedModel::load(source.name, source.path));
    if (!models.emplace(source.name, std::move(model)).second) {
      return error(Errc::kInvalidArgument,
                   fmt::format("the model '{}' is configured twice", source.name));
    }
  }
  return models;
}

// What it writes about requests.
struct Logs {
  std::optional<RequestRecord> record;
  std::unique_ptr<LineLog> access;        // null: none
  std::unique_ptr<TraceExporter> traces;  // null: none
};

result<Logs> open_logs(const RouterConfig& config) {
  Logs logs;
  if (!config.record_requests.empty()) {
    BATON_TRY(auto file, RecordFile::create(config.record_requests, RequestRecord::kHeader));
    logs.record.emplace(std::move(file), Clock::now());
  }
  if (!config.access_log.empty()) {
    BATON_TRY(logs.access, LineLog::open(config.access_log));
  }
  if (config.traces) {
    TraceConfig traces = *config.traces;
    traces.version = BATON_VERSION;
    logs.traces = TraceExporter::start(std::move(traces));
  }
  return logs;
}

// At the door, where nobody is known: who stands there may not say by its own flag how much a
// collector is to store.
bool is_turned_away(const AccessEntry& entry) {
  return entry.status == HttpStatus::kUnauthorized || entry.status == HttpStatus::kNotFound ||
         entry.status == HttpStatus::kMethodNotAllowed ||
         (entry.status == HttpStatus::kForbidden && entry.facts.tenant.empty());
}

class Service final : public RouterService {
 public:
  Service(boost::asio::io_context& io, RouterConfig config, ModelMap models, Logs logs)
      : config_(std::move(config)),
        models_(std::move(models)),
        logs_(std::move(logs)),
        metrics_(config_.slo_classes),
        live_(config_.slo_classes, Clock::now()),
        cluster_(io, {config_.workers, config_.kubernetes}, config_.dispatch, config_.placement,
                 config_.roles, config_.rpc),
        api_(io, config_, models_, cluster_, metrics_, live_,
             logs_.record ? &*logs_.record : nullptr) {
    live_.show(cluster_, metrics_);
    cluster_.set_hello_check([this](const proto::WorkerHello& hello) { return check(hello); });
    for (const auto& [name, model] : models_) metrics_.of(name);
    if (logs_.access) metrics_.watch(*logs_.access);
    if (logs_.traces) metrics_.watch(*logs_.traces);
  }

  status listen(boost::asio::io_context& io) {
    HttpHandlers handlers = api_.handlers();
    if (logs_.access || logs_.traces) {
      handlers.log = [this](const AccessEntry& entry) { record(entry); };
    }
    if (!config_.metrics_listen.empty()) {
      BATON_TRY(metrics_http_, net::serve_http(io, config_.metrics_listen, metrics_handlers()));
    }
    BATON_TRY(http_, HttpServer::start(io, config_.http, std::move(handlers)));
    LOG_INFO("serving http on port {}, {} models, {} worker addresses", http_->port(),
             models_.size(), config_.workers.size());
    return {};
  }

  uint16_t http_port() const override { return http_->port(); }
  uint16_t metrics_port() const override { return metrics_http_ ? metrics_http_->port() : 0; }
  void set_access(const AccessConfig& access) override { api_.set_access(access); }
  void reopen_logs() override {
    if (logs_.access) logs_.access->reopen();
  }
  void drain(std::function<void()> done) override {
    api_.set_draining();
    http_->drain(config_.shutdown_delay, config_.drain_timeout, std::move(done));
  }

 private:
  status check(const proto::WorkerHello& hello) const {
    const auto model = models_.find(hello.model());
    if (model == models_.end()) {
      return error(Errc::kNotFound,
                   fmt::format("its model '{}' is not configured here", hello.model()));
    }
    const size_t ids = model->second.tokenizer().vocab_size();
    if (hello.vocab_size() >= ids) return {};
    return error(Errc::kInvalidArgument,
                 fmt::format("its vocabulary has {} ids, the tokenizer of '{}' {}",
                             hello.vocab_size(), hello.model(), ids));
  }

  net::HttpHandlers metrics_handlers() {
    return {{"/metrics", [this] { return net::HttpReply{.body = api_.exposition()}; }},
            {"/health",
             [] {
               return net::HttpReply{200, "ok\n", "text/plain"};
             }},
            {"/ready", [this] {
               return api_.is_ready() ? net::HttpReply{200, "ready\n", "text/plain"}
                                      : net::HttpReply{503, "no model has the workers it needs\n",
                                                       "text/plain"};
             }}};
  }

  // A request is over: the access log and the collector of traces are told.
  void record(const AccessEntry& over) {
    const auto now = std::chrono::system_clock::now();
    AccessEntry entry = over;
    std::optional<TraceContext> context = entry.head.trace;
    if (logs_.traces) {
      context = logs_.traces->context_of(context);
      if (is_turned_away(entry)) context->sampled &= logs_.traces->context_of({}).sampled;
    }
    if (context) entry.trace_id = to_hex(context->trace);
    if (logs_.access) logs_.access->add(access_json(entry, now));
    if (!logs_.traces || !context->sampled) return;
    logs_.traces->add({.context = std::move(*context),
                       .method = entry.head.method,
                       .path = entry.head.path,
                       .request_id = entry.head.request_id,
                       .reason = std::string(reason_of(entry)),
                       .status = static_cast<int>(entry.status),
                       .received = entry.head.received,
                       .ended = entry.head.received + entry.took,
                       .ended_at = now,
                       .facts = entry.facts});
  }

  RouterConfig config_;
  ModelMap models_;
  Logs logs_;
  RouterMetrics metrics_;
  LiveView live_;
  Cluster cluster_;
  Api api_;
  std::unique_ptr<net::HttpEndpoint> metrics_http_;  // null: none
  std::unique_ptr<HttpServer> http_;                 // last: its connections use all of the above
};

}  // namespace

result<std::unique_ptr<RouterService>> RouterService::start(boost::asio::io_context& io,
                                                            RouterConfig config) {
  BATON_TRY(ModelMap models, load_models(config.models));
  config.placement.classes = config.slo_classes.all;
  BATON_TRY(Logs logs, open_logs(config));
  auto service =
      std::make_unique<Service>(io, std::move(config), std::move(models), std::move(logs));
  BATON_CHECK_OK(service->listen(io));
  return std::unique_ptr<RouterService>(std::move(service));
}

}  // namespace baton::router
