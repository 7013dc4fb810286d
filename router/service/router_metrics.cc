#include "router/service/router_metrics.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "common/proto/role_name.h"

namespace baton::router {
namespace {

// From 0.1 ms, where an idle router's stages lie, to 10 s.
const std::vector<double>& stage_bounds_seconds() {
  static const std::vector<double> kBounds = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005,
                                              0.01,   0.025,   0.05,   0.1,   0.25,   0.5,
                                              1.0,    2.5,     5.0,    10.0};
  return kBounds;
}

prometheus::Histogram& stage(Metrics& metrics, const std::string& model, const char* name) {
  return metrics.histogram("baton_request_stage_seconds",
                           "Stages of a request's way to its first and second token.",
                           stage_bounds_seconds(), {{"model_name", model}, {"stage", name}});
}

prometheus::Counter& success(Metrics& metrics, const std::string& model, const char* reason) {
  return metrics.counter("vllm:request_success_total", "Requests by how they ended.",
                         {{"model_name", model}, {"finished_reason", reason}});
}

prometheus::Counter& refused_counter(Metrics& metrics, std::string_view reason) {
  return metrics.counter("baton_router_refused_total", "Requests refused, by reason.",
                         {{"reason", std::string(reason)}});
}

prometheus::Counter& cut_off_counter(Metrics& metrics, std::string_view reason) {
  return metrics.counter("baton_router_cut_off_total",
                         "Answers that the client did not get to the end of.",
                         {{"reason", std::string(reason)}});
}

// Most requests have none: the counters are then not even looked up.
void count_recoveries(Metrics& metrics, const RequestTrail& trail, bool make = false) {
  const auto count = [&](const char* name, const char* help, uint32_t n) {
    if (n > 0 || make) metrics.counter(name, help).Increment(n);
  };
  count("baton_router_retries_total", "Placements repeated after a failure.", trail.retries);
  count("baton_router_retargets_total", "Retries in which another decode worker read the KV.",
        trail.retargets);
  count("baton_router_resumes_total", "Choices that went on in mid-answer.", trail.resumes);
  count("baton_router_preemptions_total", "Choices that a decode worker gave up.",
        trail.preemptions);
}

prometheus::Counter& flips_counter(Metrics& metrics, proto::Role from, proto::Role to) {
  return metrics.counter(
      "baton_role_flips_total", "Workers that this router gave another role.",
      {{"from", std::string(proto::role_name(from))}, {"to", std::string(proto::role_name(to))}});
}

void begin_flips_at_zero(Metrics& metrics) {
  const auto roles = {proto::ROLE_PREFILL, proto::ROLE_DECODE, proto::ROLE_MIXED};
  for (const proto::Role from : roles) {
    for (const proto::Role to : roles) {
      if (from != to) flips_counter(metrics, from, to);
    }
  }
}

}  // namespace

ModelMetrics::ModelMetrics(Metrics& m, const std::string& model)
    : running(m.gauge("vllm:num_requests_running", "Requests placed on workers.",
                      {{"model_name", model}})),
      waiting(m.gauge("vllm:num_requests_waiting", "Requests waiting for a worker.",
                      {{"model_name", model}})),
      ttft(m.histogram("vllm:time_to_first_token_seconds", "Receipt to first token.",
                       ttft_bounds_seconds(), {{"model_name", model}})),
      e2e(m.histogram("vllm:e2e_request_latency_seconds", "Receipt to last token.",
                      e2e_bounds_seconds(), {{"model_name", model}})),
      prompt_tokens(m.counter("vllm:prompt_tokens_total", "Prompt tokens accepted.",
                              {{"model_name", model}})),
      tokens(
          m.counter("vllm:generation_tokens_total", "Tokens delivered.", {{"model_name", model}}),
          m.histogram("vllm:inter_token_latency_seconds", "Between tokens of a choice.",
                      itl_bounds_seconds(), {{"model_name", model}}),
          itl_bounds_seconds()),
      stopped(success(m, model, "stop")),
      reached_length(success(m, model, "length")),
      aborted(success(m, model, "abort")),
      failed(success(m, model, "error")),
      parse(stage(m, model, "parse")),
      admission(stage(m, model, "admission")),
      reserve(stage(m, model, "reserve")),
      prefill_queue(stage(m, model, "prefill_queue")),
      prefill(stage(m, model, "prefill")),
      relay(stage(m, model, "relay")),
      parked(stage(m, model, "parked")),
      exposed_transfer(stage(m, model, "exposed_transfer")),
      decode_queue(stage(m, model, "decode_queue")),
      first_step(stage(m, model, "first_step")),
      handover_relay(stage(m, model, "handover_relay")),
      handover_rest(stage(m, model, "handover_rest")),
      handover(m.histogram("baton_handover_seconds",
                           "First to second token of a request whose KV was handed over.",
                           stage_bounds_seconds(), {{"model_name", model}})) {}

RouterMetrics::RouterMetrics(const SloClasses& classes) {
  for (const SloClass& each : classes.all) {
    auto& counters = slo_requests_.emplace_back();
    for (size_t i = 0; i < kNumSloResults; ++i) {
      counters[i] = &metrics_.counter(
          "baton_slo_requests_total", "Requests by class and what became of their targets.",
          {{"class", each.name}, {"result", std::string(name(static_cast<SloResult>(i)))}});
    }
  }
  begin_at_zero();
}

// A series that first appears with what it counts has no increase that Prometheus could see.
void RouterMetrics::begin_at_zero() {
  for (const char* reason : {"overloaded", "slo_unattainable", "slo_impossible", "invalid",
                             "unauthorized", "not_found", "method", "error"}) {
    refused_counter(metrics_, reason);
  }
  for (const char* reason : {"disconnected", "too_slow"}) cut_off_counter(metrics_, reason);
  count_recoveries(metrics_, {}, /*make=*/true);
}

void RouterMetrics::ended(uint32_t slo_class, SloResult result) {
  slo_requests_[slo_class][static_cast<size_t>(result)]->Increment();
  if (history_ != nullptr) history_->ended(slo_class, result, Clock::now());
}

RouterMetrics::Tokens RouterMetrics::tokens() const {
  Tokens all;
  for (const auto& [name, model] : models_) {
    all.prompt += static_cast<uint64_t>(model.prompt_tokens.Value());
    all.generated += model.tokens.tokens();
  }
  return all;
}

void RouterMetrics::compare(const RequestTrail& trail, const Measured& measured) {
  if (trail.predicted_ttft && measured.ttft) ttft_error_.add(*trail.predicted_ttft, *measured.ttft);
  if (trail.predicted_tpot && measured.tpot) tpot_error_.add(*trail.predicted_tpot, *measured.tpot);
}

ModelMetrics& RouterMetrics::of(const std::string& model) {
  return models_.try_emplace(model, metrics_, model).first->second;
}

void RouterMetrics::refused(std::string_view reason) {
  refused_counter(metrics_, reason).Increment();
  if (history_ != nullptr) history_->refused(reason, Clock::now());
}

void RouterMetrics::cut_off(std::string_view reason) {
  cut_off_counter(metrics_, reason).Increment();
}

// Their first stage, parse, is observed when they are submitted.
void RouterMetrics::observe(ModelMetrics& model, const RequestTrail& trail,
                            const RequestStages& stages) {
  const auto observe = [](prometheus::Histogram& histogram, const std::optional<Duration>& d) {
    if (d) histogram.Observe(to_seconds(*d));
  };
  observe(model.admission, stages.admission);
  observe(model.reserve, stages.reserve);
  observe(model.prefill_queue, stages.prefill_queue);
  observe(model.prefill, stages.prefill);
  observe(model.relay, stages.relay);
  observe(model.parked, stages.parked);
  observe(model.exposed_transfer, stages.exposed_transfer);
  observe(model.decode_queue, stages.decode_queue);
  observe(model.first_step, stages.first_step);
  observe(model.handover_relay, stages.handover_relay);
  observe(model.handover_rest, stages.handover_rest);
  observe(model.handover, stages.handover);
  if (trail.kv_bytes > 0) {
    metrics_
        .counter("baton_router_handed_off_bytes_total", "KV read by decode workers.",
                 {{"transport", trail.kv_transport}})
        .Increment(static_cast<double>(trail.kv_bytes));
  }
  count_recoveries(metrics_, trail);
}

void RouterMetrics::refresh(const Cluster& cluster) {
  const Dispatcher& dispatcher = cluster.dispatcher();
  std::map<std::string, ModelLoad> loads = dispatcher.loads();
  for (auto& [name, model] : models_) {
    model.tokens.publish();
    model.running.Set(static_cast<double>(loads[name].running));
    model.waiting.Set(static_cast<double>(loads[name].waiting));
  }
  std::map<std::pair<std::string, std::string>, double> workers;
  for (const char* role : {"prefill", "decode", "mixed"}) {
    workers[{role, "ready"}] = workers[{role, "draining"}] = 0;
  }
  workers[{"unknown", "connecting"}] = workers[{"unknown", "refused"}] = 0;
  for (const auto& link : cluster.links()) {
    const Worker* worker = link->worker() ? dispatcher.pool().find(*link->worker()) : nullptr;
    if (worker) {
      ++workers[{std::string(proto::role_name(worker->role)),
                 worker->load.draining() ? "draining" : "ready"}];
    } else {
      const bool refused = link->state() == WorkerLink::State::kRefused;
      ++workers[{"unknown", refused ? "refused" : "connecting"}];
    }
  }
  for (const auto& [labels, count] : workers) {
    metrics_
        .gauge("baton_router_workers", "Workers by role and state.",
               {{"role", labels.first}, {"state", labels.second}})
        .Set(count);
  }
  refresh_discovery(cluster.services());
  refresh_sets(dispatcher.pool());
  refresh_cache_usage(dispatcher.pool());
  refresh_predictions();
  if (dispatcher.roles() != nullptr) refresh_roles(*dispatcher.roles());
  const auto count = [&](const char* name, const char* help, uint64_t now, uint64_t& told) {
    metrics_.counter(name, help).Increment(static_cast<double>(now - std::exchange(told, now)));
  };
  count("baton_router_worker_refusals_total",
        "Reservations and prompts that workers had no room for.", dispatcher.refusals(),
        refusals_told_);
  count("baton_router_stale_events_total", "Messages of workers that were dropped as out of date.",
        dispatcher.stale_events(), stale_events_told_);
  if (traces_ != nullptr) {
    count("baton_router_traces_exported_total", "Requests that a collector of traces took.",
          traces_->exported(), traced_told_);
    count("baton_router_traces_dropped_total",
          "Requests of which no collector of traces was told: it was full, slow or away.",
          traces_->dropped(), untraced_told_);
  }
  if (access_log_ == nullptr) return;
  count("baton_router_access_log_dropped_total",
        "Lines of the access log that its file or reader did not take.", access_log_->dropped(),
        dropped_lines_told_);
}

// Of models that have a worker whose role may change.
void RouterMetrics::refresh_sets(const WorkerPool& pool) {
  // Of a model: how many are not complete, and how many are.
  std::map<std::string, std::array<int, 2>> sets;
  for (const auto& [id, set] : pool.sets()) {
    std::array<int, 2>& of_model = sets[set.model];
    if (set.num_workers > 0) ++of_model[set.complete ? 1 : 0];
  }
  for (const auto& [model, counts] : sets) {
    for (const size_t complete : {0, 1}) {
      metrics_
          .gauge("baton_router_worker_sets",
                 "Sets of workers of equal tokens that have workers, by whether they can serve.",
                 {{"model", model}, {"state", complete == 1 ? "complete" : "incomplete"}})
          .Set(counts[complete]);
    }
  }
}

void RouterMetrics::refresh_discovery(const std::vector<std::unique_ptr<SliceWatch>>& services) {
  size_t up = 0, left_out = 0;
  for (const auto& service : services) {
    up += service->up() ? 1 : 0;
    left_out += service->left_out();
  }
  const auto set = [&](const char* state, size_t count) {
    metrics_
        .gauge("baton_router_discovery_services",
               "Services of workers, by whether the Kubernetes API tells of them.",
               {{"state", state}})
        .Set(static_cast<double>(count));
  };
  set("up", up);
  set("down", services.size() - up);
  metrics_
      .gauge("baton_router_discovery_left_out",
             "Endpoints of those Services that are not dialled, as the log says why.")
      .Set(static_cast<double>(left_out));
}

void RouterMetrics::refresh_roles(const RoleKeeper& roles) {
  for (const auto& [name, model] : roles.models()) {
    if (!model.managed) continue;
    const auto want = [&](proto::Role role, uint32_t n) {
      metrics_
          .gauge("baton_desired_workers", "Workers that the traffic asks for, by role.",
                 {{"model_name", name}, {"role", std::string(proto::role_name(role))}})
          .Set(n);
    };
    want(proto::ROLE_PREFILL, model.desired.prefill);
    want(proto::ROLE_DECODE, model.desired.decode);
    want(proto::ROLE_MIXED, model.desired.mixed);
    begin_flips_at_zero(metrics_);
    metrics_
        .gauge("baton_role_leader", "1 on the router that moves roles, 0 on others.",
               {{"model_name", name}})
        .Set(model.leads ? 1 : 0);
  }
  for (const auto& [roles_of, n] : roles.flips()) {
    const uint64_t told = std::exchange(flips_told_[roles_of], n);
    flips_counter(metrics_, roles_of.first, roles_of.second)
        .Increment(static_cast<double>(n - told));
  }
}

void RouterMetrics::refresh_predictions() {
  const auto tell = [&](const char* what, const latency::ErrorWindow& error) {
    if (error.count() == 0) return;
    for (const auto& [label, q] : {std::pair("0.05", 0.05), {"0.5", 0.5}, {"0.95", 0.95}}) {
      metrics_
          .gauge("baton_latency_actual_ratio",
                 "Time taken over time predicted, by quantile of the last 512.",
                 {{"what", what}, {"quantile", label}})
          .Set(error.ratio_quantile(q));
    }
  };
  tell("ttft", ttft_error_);
  tell("tpot", tpot_error_);
}

void RouterMetrics::refresh_cache_usage(const WorkerPool& pool) {
  for (auto& [labels, blocks] : blocks_) blocks = {};
  for (const auto& [id, worker] : pool.workers()) {
    Blocks& blocks = blocks_[{worker.hello.model(), std::string(proto::role_name(worker.role))}];
    const uint64_t total = worker.load.total_blocks();
    blocks.total += total;
    blocks.used += total - std::min<uint64_t>(worker.load.free_blocks(), total);
  }
  for (const auto& [labels, blocks] : blocks_) {
    const double used = static_cast<double>(blocks.used);
    metrics_
        .gauge("vllm:kv_cache_usage_perc", "Share of the workers' KV blocks in use, 0 to 1.",
               {{"model_name", labels.first}, {"role", labels.second}})
        .Set(blocks.total > 0 ? used / static_cast<double>(blocks.total) : 0.0);
  }
}

std::string RouterMetrics::expose(const Cluster& cluster) {
  process_.update();
  refresh(cluster);
  return metrics_.serialize();
}

}  // namespace baton::router
