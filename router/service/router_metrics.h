#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/line_log.h"
#include "common/base/metrics.h"
#include "common/base/process_metrics.h"
#include "common/base/token_metrics.h"
#include "common/latency/error_window.h"
#include "router/dispatch/actions.h"
#include "router/dispatch/request_stages.h"
#include "router/page/live_history.h"
#include "router/placement/attainment.h"
#include "router/placement/slo_config.h"
#include "router/service/cluster.h"
#include "router/service/tenant_metrics.h"
#include "router/traces/exporter.h"

namespace baton::router {

// The series of one model, under the names that vLLM's dashboards chart, and the stages of a
// request's way to its first token.
struct ModelMetrics {
  ModelMetrics(Metrics& metrics, const std::string& model);

  prometheus::Gauge& running;
  prometheus::Gauge& waiting;
  prometheus::Histogram& ttft;
  prometheus::Histogram& e2e;
  prometheus::Counter& prompt_tokens;
  TokenMetrics tokens;  // delivered; published by expose()
  prometheus::Counter& stopped;
  prometheus::Counter& reached_length;
  prometheus::Counter& aborted;  // the client went away
  prometheus::Counter& failed;

  prometheus::Histogram& parse;
  prometheus::Histogram& admission;
  prometheus::Histogram& reserve;
  prometheus::Histogram& prefill_queue;
  prometheus::Histogram& prefill;
  prometheus::Histogram& relay;
  prometheus::Histogram& parked;
  prometheus::Histogram& exposed_transfer;
  prometheus::Histogram& decode_queue;
  prometheus::Histogram& first_step;
  prometheus::Histogram& handover_relay;
  prometheus::Histogram& handover_rest;
  prometheus::Histogram& handover;
};

// All that this router exports. Touched by one thread.
class RouterMetrics {
 public:
  explicit RouterMetrics(const SloClasses& classes);

  ModelMetrics& of(const std::string& model);
  void ended(uint32_t slo_class, SloResult result);  // a request that was placed in a class
  // What was predicted when it was placed, and what came of it.
  void compare(const RequestTrail& trail, const Measured& measured);
  void refused(std::string_view reason);  // a request: "invalid", "unauthorized", "overloaded", ...
  TenantMetrics& tenants() { return tenants_; }
  void cut_off(std::string_view reason);  // a client: "disconnected", "too_slow"
  // When a request ends: its stages, retries and bytes.
  void observe(ModelMetrics& model, const RequestTrail& trail, const RequestStages& stages);

  // Lines that this log dropped are counted from now on. It outlives this.
  void watch(const LineLog& access_log) { access_log_ = &access_log; }
  // So are requests of which this told a collector, or could not. It outlives this.
  void watch(const TraceExporter& traces) { traces_ = &traces; }
  // What is counted of requests' ends and refusals goes there, too. It outlives this.
  void tell(LiveHistory& history) { history_ = &history; }

  // Tokens of all models so far.
  struct Tokens {
    uint64_t prompt = 0, generated = 0;
  };
  Tokens tokens() const;

  // The text exposition, with the gauges brought up to date.
  std::string expose(const Cluster& cluster);

 private:
  void begin_at_zero();
  void refresh(const Cluster& cluster);
  void refresh_cache_usage(const WorkerPool& pool);

  // Blocks of the workers of one model and role, as they last said.
  struct Blocks {
    uint64_t used = 0, total = 0;
  };
  using ModelAndRole = std::pair<std::string, std::string>;

  void refresh_predictions();
  void refresh_roles(const RoleKeeper& roles);
  void refresh_sets(const WorkerPool& pool);
  void refresh_discovery(const std::vector<std::unique_ptr<SliceWatch>>& services);

  Metrics metrics_;
  ProcessMetrics process_{metrics_};
  TenantMetrics tenants_{metrics_};
  std::map<std::string, ModelMetrics> models_;
  std::vector<std::array<prometheus::Counter*, kNumSloResults>> slo_requests_;  // by class, result
  latency::ErrorWindow ttft_error_, tpot_error_;
  std::map<ModelAndRole, Blocks> blocks_;  // also of roles that have no worker any more
  RoleKeeper::Flips flips_told_;
  const LineLog* access_log_ = nullptr;
  const TraceExporter* traces_ = nullptr;
  uint64_t traced_told_ = 0, untraced_told_ = 0;
  LiveHistory* history_ = nullptr;
  uint64_t refusals_told_ = 0, stale_events_told_ = 0, dropped_lines_told_ = 0;
};

}  // namespace baton::router
