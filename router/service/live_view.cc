#include "router/service/live_view.h"

#include <utility>

#include "common/proto/role_name.h"

namespace baton::router {
namespace {

// A link without a worker: nobody answers yet, no longer, or one that does not fit.
std::string_view state_of(const WorkerLink& link) {
  if (link.state() == WorkerLink::State::kRefused) return "refused";
  return link.name().empty() ? "connecting" : "lost";
}

void fill(LiveWorker& out, const Worker& worker) {
  const proto::Load& load = worker.load;
  out.name = worker.hello.name();
  out.model = worker.hello.model();
  out.role = proto::role_name(worker.role);
  out.state = load.draining() ? "draining" : "ready";
  out.auto_role = worker.auto_role();
  out.running = load.running();
  out.waiting = load.waiting();
  out.sequences = load.sequences();
  out.queued_tokens = load.queued_tokens();
  out.context_tokens = load.context_tokens();
  out.total_blocks = load.total_blocks() > 0 ? load.total_blocks() : worker.hello.total_blocks();
  out.free_blocks = load.total_blocks() > 0 ? load.free_blocks() : out.total_blocks;
  out.parked_blocks = load.waiting_blocks();
}

}  // namespace

void LiveView::show(const Cluster& cluster, RouterMetrics& metrics) {
  cluster_ = &cluster;
  metrics_ = &metrics;
  metrics.tell(history_);
}

std::vector<LiveWorker> LiveView::workers() const {
  const WorkerPool& pool = cluster_->dispatcher().pool();
  std::vector<LiveWorker> all;
  all.reserve(cluster_->links().size());
  for (const auto& link : cluster_->links()) {
    LiveWorker& out = all.emplace_back();
    out.address = link->address();
    const Worker* worker = link->worker() ? pool.find(*link->worker()) : nullptr;
    if (worker != nullptr) {
      fill(out, *worker);
    } else {
      out.name = link->name();
      out.role = "unknown";
      out.state = state_of(*link);
    }
  }
  return all;
}

std::vector<LivePair> LiveView::pairs(TimePoint now) const {
  const Dispatcher& dispatcher = cluster_->dispatcher();
  std::vector<LivePair> all;
  for (const auto& [key, pair] : dispatcher.traffic().pairs()) {
    const Worker* prefill = dispatcher.pool().find(key.first);
    const Worker* decode = dispatcher.pool().find(key.second);
    if (prefill == nullptr || decode == nullptr) continue;
    all.push_back({.prefill = prefill->hello.name(),
                   .decode = decode->hello.name(),
                   .bytes_per_second = pair.rate_at(now),
                   .bytes = pair.bytes,
                   .hand_overs = pair.hand_overs,
                   .exposed_seconds = pair.exposed_seconds});
  }
  return all;
}

LiveState LiveView::take(std::string_view version, TimePoint now) {
  const Dispatcher& dispatcher = cluster_->dispatcher();
  LiveState state{.version = version, .up = now - begun_};
  for (const auto& [name, load] : dispatcher.loads()) {
    if (++state.num_models > LiveState::kMostModels) continue;
    state.models.push_back({name, load.running, load.waiting});
  }
  std::vector<LiveWorker> all = workers();
  state.num_workers = all.size();
  state.pools = pools_of(all);
  state.workers = shown_workers(std::move(all), LiveState::kMostWorkers);
  std::vector<LivePair> all_pairs = pairs(now);
  state.num_pairs = all_pairs.size();
  state.pairs = shown_pairs(std::move(all_pairs), LiveState::kMostPairs);
  state.in_flight = dispatcher.num_requests();
  state.queued = dispatcher.num_queued();
  const RouterMetrics::Tokens tokens = metrics_->tokens();
  state.prompt_tokens = tokens.prompt;
  state.output_tokens = tokens.generated;
  state.steps = history_.steps(now);
  state.age = history_.age(now);
  state.reasons = history_.reasons();
  return state;
}

const std::string& LiveView::json(std::string_view version, TimePoint now, bool details) {
  Answer& answer = answers_[details ? 1 : 0];
  if (answer.text.empty() || now - answer.made >= kFresh) {
    answer.text = state_json(take(version, now), classes_, recent_.newest_first(), now, details);
    answer.made = now;
  }
  return answer.text;
}

}  // namespace baton::router
