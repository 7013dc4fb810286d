#include "router/roles/role_keeper.h"

#include <algorithm>
#include <cmath>

#include "router/placement/estimate.h"

namespace baton::router {
namespace {

constexpr Duration kLookEvery = milliseconds(250);
constexpr Duration kOrderLost = seconds(3);  // a flip not seen by then is not awaited any more
constexpr double kQueueHorizon = 10;         // seconds in which prompts that wait are to be done
constexpr size_t kAsked = 64;                // workers whose speed is looked at, about
constexpr double kTtft = 1, kTpot = 0.1;     // of traffic that has no target, seconds
constexpr double kLeastSlack = 0.25;         // of the TTFT target, which prompts leave to wait in
constexpr double kFewLate = 0.05;            // of the prompts
constexpr double kMostRoom = 100;            // workers, for prompts not to wait
constexpr double kSeldom = 1.645;            // a normal's 95th percentile, in deviations
constexpr double kMostCache = 0.9;           // of a worker's blocks, in use
constexpr double kLeastAdmitted = 0.5;       // of what came: more is not made up for at once

// By router, how many workers report it.
std::map<uint64_t, uint32_t> reports(const std::vector<const Worker*>& workers, uint32_t& asked) {
  std::map<uint64_t, uint32_t> by;
  asked = 0;
  for (const Worker* w : workers) {
    asked += w->load.routers_size() > 0;
    for (const uint64_t router : w->load.routers()) ++by[router];
  }
  return by;
}

// Sequences of a mean context that the worker may decode at once within a step time.
uint32_t most_sequences(const WorkerView& view, double context, double step) {
  const double held = kMostCache * view.total_blocks * view.block_tokens / std::max(context, 1.0);
  uint32_t high = static_cast<uint32_t>(std::clamp<double>(held, 1, view.max_sequences));
  uint32_t low = 1;
  while (low < high) {
    const uint32_t middle = low + (high - low + 1) / 2;
    if (step_seconds(view, middle, middle * context) <= step) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

std::vector<const Worker*> workers_of(const WorkerPool& pool, std::string_view model) {
  std::vector<const Worker*> out;
  for (const auto& [id, worker] : pool.workers()) {
    if (worker.hello.model() == model && !worker.load.draining()) out.push_back(&worker);
  }
  return out;
}

// Share of the prompts that wait longer than their target leaves them.
double late_prompts(const DemandWindow::Rates& seen, double busy, double workers) {
  const double mean = seen.requests > 0 ? seen.prompt_seconds / seen.requests : seen.prompt_spread;
  const double target = seen.ttft > 0 ? seen.ttft : kTtft;
  const double slack = std::max(target - mean, kLeastSlack * target);
  const double wait = std::pow(busy / workers, std::sqrt(2 * (workers + 1)) - 1);
  return wait * std::exp(-2 * slack * (workers - busy) / seen.prompt_spread);
}

double prefill_demand(const DemandWindow::Rates& seen, uint32_t routers) {
  const double busy = seen.prompt_seconds * routers;
  if (seen.prompt_spread <= 0) return busy;
  double low = busy, high = busy + 1;
  while (late_prompts(seen, busy, high) > kFewLate && high < busy + kMostRoom) high += 1;
  for (int i = 0; i < 20; ++i) {
    const double middle = (low + high) / 2;
    (late_prompts(seen, busy, middle) > kFewLate ? low : high) = middle;
  }
  return high;
}

// What a step may take, so that answers a quarter as long as they are on average meet their target,
// too: their first gap is longer than the others by about a step, until which they join.
double step_target(const DemandWindow::Rates& seen) {
  const double target = seen.tpot > 0 ? seen.tpot : kTpot;
  const double begun = seen.requests * seen.admitted;
  if (begun <= 0 || seen.tokens <= 0) return target;
  const double shortest = std::max(2.0, seen.tokens / begun / 4);
  return target / (1 + 1 / (shortest - 1));
}

}  // namespace

bool leads(RouterId self, const std::vector<const Worker*>& workers) {
  uint32_t asked = 0;
  for (const auto& [router, n] : reports(workers, asked)) {
    if (2 * n > asked) return router == self.value;  // the smallest
  }
  return false;
}

uint32_t live_routers(const std::vector<const Worker*>& workers) {
  uint32_t asked = 0, live = 0;
  for (const auto& [router, n] : reports(workers, asked)) live += 2 * n > asked;
  return std::max(live, 1u);
}

RoleDemand demand_of(const DemandWindow::Rates& seen, uint32_t routers,
                     const std::vector<const Worker*>& workers) {
  RoleDemand out{.prefill = prefill_demand(seen, routers)};
  uint64_t sequences = 0;
  double context = 0;
  for (const Worker* w : workers) {
    sequences += w->load.sequences();
    context += static_cast<double>(w->load.context_tokens());
  }
  if (workers.empty()) return out;
  const double mean = sequences > 0 ? context / static_cast<double>(sequences) : seen.prompt_tokens;
  const double target = seen.tpot > 0 ? seen.tpot : kTpot, shorter = step_target(seen);
  double batch = 0, rate = 0, size = 0;  // together; of a few, in a large pool
  for (size_t i = 0; i < workers.size(); i += 1 + workers.size() / kAsked, ++size) {
    const WorkerView& view = workers[i]->view;
    // More workers do not make a step shorter than a lone sequence's.
    const double least = (step_seconds(view, 1, mean) + target) / 2;
    const uint32_t n = most_sequences(view, mean, std::max(shorter, std::min(least, target)));
    batch += n;
    rate += n / std::max(step_seconds(view, n, n * mean), 1e-9);
  }
  const double at_once = batch / size;  // sequences of one worker
  const double flow = seen.tokens * routers / (rate / size) * at_once;
  const double mean_sequences =
      std::max(flow, static_cast<double>(sequences)) / std::max(seen.admitted, kLeastAdmitted);
  out.decode = (mean_sequences + kSeldom * std::sqrt(mean_sequences)) / at_once;
  return out;
}

RoleKeeper::Model& RoleKeeper::of(std::string_view model) {
  const auto found = models_.find(model);
  if (found != models_.end()) return found->second;
  return models_.emplace(std::string(model), Model(options_)).first->second;
}

void RoleKeeper::arrived(const WorkerPool& pool, std::string_view model, uint64_t tokens,
                         uint64_t prompt, const SloTarget& target, TimePoint now) {
  const ModelWorkers& workers = pool.workers_of(model);
  const Worker* like = !workers.prefill.empty()  ? workers.prefill.front()
                       : !workers.mixed.empty()  ? workers.mixed.front()
                       : !workers.decode.empty() ? workers.decode.front()
                                                 : nullptr;
  if (like == nullptr) return;
  of(model).window.arrived(prompt_seconds(like->view, prompt, prompt - std::min(tokens, prompt)),
                           static_cast<double>(prompt), target, now);
}

void RoleKeeper::refused(std::string_view model, TimePoint now) { of(model).window.refused(now); }

void RoleKeeper::delivered(std::string_view model, uint32_t tokens, TimePoint now) {
  of(model).window.delivered(tokens, now);
}

void RoleKeeper::tick(const WorkerPool& pool, TimePoint now, std::vector<RoleFlip>& flips) {
  if (now < next_look_) return;
  next_look_ = now + kLookEvery;
  for (const auto& [id, worker] : pool.workers()) {
    if (worker.auto_role()) of(worker.hello.model()).managed = true;
  }
  for (auto& [name, model] : models_) {
    // While two sets stand beside each other roles stay: each needs its own of both.
    if (model.managed && pool.num_sets(name) <= 1) look(model, workers_of(pool, name), now, flips);
  }
}

// True while a flip is under way.
bool RoleKeeper::await_ordered(Model& model, const std::vector<const Worker*>& workers,
                               TimePoint now) {
  if (!model.ordered) return false;
  const auto there = std::ranges::find(workers, model.ordered->worker, &Worker::id);
  if (there != workers.end() && (*there)->role == model.ordered->to) {
    ++flips_[{model.ordered->from, model.ordered->to}];
    model.ordered.reset();
  } else if (there == workers.end() || now - model.ordered_at > kOrderLost) {
    model.ordered.reset();
  }
  return model.ordered.has_value();
}

void RoleKeeper::look(Model& model, const std::vector<const Worker*>& workers, TimePoint now,
                      std::vector<RoleFlip>& flips) {
  model.leads = leads(self_, workers);
  model.demand = demand_of(model.window.rates(now), live_routers(workers), workers);
  std::vector<RoleWorker> views;
  double queued = 0;
  for (const Worker* w : workers) {
    views.push_back({.id = w->id,
                     .role = w->role,
                     .may_move = w->auto_role(),
                     .queued = w->prompts.total(now),
                     .sequences = w->load.sequences()});
    queued += views.back().queued;
  }
  model.demand.prefill += queued / kQueueHorizon;
  model.desired = model.controller.desired(views, model.demand);
  if (await_ordered(model, workers, now) || !model.leads) return;
  model.ordered = model.controller.decide(views, model.demand, now);
  if (!model.ordered) return;
  model.ordered_at = now;
  flips.push_back(*model.ordered);
}

}  // namespace baton::router
