// Who may serve a request, and how they stand before anything is foreseen.
#include <algorithm>

#include "common/net/protocol.h"
#include "router/placement/placement.h"

namespace baton::router {
namespace {

// Reservations awaiting their grant at one worker: a queue is not poured over a worker whose room
// is not known yet.
constexpr uint32_t kMaxReserving = 16;
// Who computes prompts keeps its own queue; this many batches' worth of sequences feed it.
constexpr uint32_t kQueueDepth = 2;
// Of more workers than this, so many are drawn (the power of k choices).
constexpr size_t kDrawn = 96;
constexpr double kNotDrawn = 1e6;  // a cost: not one of the two

bool may_serve(const Worker& worker, const PlacementQuery& query, proto::Role role) {
  if (query.ignore_room) return true;
  bool full = worker.full_until > query.now;
  if (query.park) {
    full = (full && role != proto::ROLE_DECODE) || worker.line_full_until > query.now ||
           worker.hello.protocol_max() < net::kProtocolPark;
  }
  return !full;
}

bool has_room(const Worker& worker, const PlacementQuery& query) {
  if (query.ignore_room) return true;
  if (query.park) return worker.reserving < kMaxReserving;  // its line has a bound of its own
  const uint32_t batch = worker.view.max_sequences;
  // More choices than it has at all it refuses itself; here they would wait for ever.
  if (worker.role == proto::ROLE_PREFILL && worker.placed_sequences == 0) return true;
  const uint32_t limit = worker.role == proto::ROLE_DECODE ? batch : kQueueDepth * batch;
  return worker.placed_sequences + query.shape.choices <= limit && worker.reserving < kMaxReserving;
}

// One prompt alone may be larger than what may be parked.
bool may_park(const Worker& prefill, const PlacementQuery& query) {
  const uint64_t blocks = query.shape.tokens / prefill.view.block_tokens + 1;
  const uint64_t waiting = prefill.load.waiting_blocks();
  return waiting == 0 || waiting + blocks <= prefill.load.most_waiting_blocks();
}

}  // namespace

void Placer::collect(const std::vector<const Worker*>& workers, proto::Role role,
                     const PlacementQuery& query, Candidates& out) {
  out.clear();
  const auto take = [&](const Worker& worker) {
    if (!may_serve(worker, query, role) || !has_room(worker, query)) return;
    if (role == proto::ROLE_PREFILL && query.park && !may_park(worker, query)) return;
    Candidate& c = out.emplace_back(&worker, query.matched_on(worker.id));
    c.cached = static_cast<uint32_t>(c.matched * worker.view.prefix_trust);
    c.cost = scan_cost(c, role, query);
  };
  if (workers.size() <= kDrawn) {
    for (const Worker* worker : workers) take(*worker);
    return;
  }
  // Neighbours in id are no likelier to be alike than others: a run from a random start, and who
  // holds the prompt.
  const size_t start = random_() % workers.size();
  for (size_t i = 0; i < workers.size() && out.size() < kDrawn; ++i) {
    take(*workers[(start + i) % workers.size()]);
  }
  for (const PrefixMap::Match& match : query.matches) {
    const auto it = std::ranges::lower_bound(workers, match.worker, {}, &Worker::id);
    if (it == workers.end() || (*it)->id != match.worker) continue;
    const auto same = [&](const Candidate& c) { return c.worker == *it; };
    if (std::ranges::none_of(out, same)) take(**it);
  }
}

// Where the KV is already, whatever else it is doing.
void Placer::collect_prefill(const WorkerPool& pool, const PlacementQuery& query, Candidates& out) {
  if (query.prefill == WorkerId{}) {
    return collect(pool.workers_of(query.model, query.set).prefill, proto::ROLE_PREFILL, query,
                   out);
  }
  out.clear();
  if (const Worker* holder = pool.find(query.prefill)) out.emplace_back(holder);
}

double Placer::scan_cost(const Candidate& c, proto::Role role, const PlacementQuery& query) const {
  double cost = c.worker->id == query.avoid ? kLast : 0.0;
  if (role != proto::ROLE_DECODE) cost += prompt_cost(c, query);
  if (role != proto::ROLE_PREFILL) cost += decode_cost(c, query);
  return cost;
}

// A prompt queue of kPromptUnit tokens weighs as much as a decode worker that is full.
double Placer::prompt_cost(const Candidate& c, const PlacementQuery& query) const {
  constexpr double kPromptUnit = 2048;
  const Worker& worker = *c.worker;
  const auto tokens =
      static_cast<double>(std::max(worker.load.queued_tokens(), worker.placed_prompt_tokens));
  const double uncached = static_cast<double>(query.shape.tokens) - c.cached;
  switch (options_.policy) {
    case Policy::kRoundRobin:
      return 0;
    case Policy::kPrefix: {
      // Balance first: a queue of more than twice the prompt is not stood in for its sake.
      const bool out_of_balance =
          tokens > 2 * static_cast<double>(query.shape.tokens) + kPromptUnit;
      return tokens / kPromptUnit - (out_of_balance ? 0.0 : 16.0 * c.cached / kPromptUnit);
    }
    case Policy::kKvCost:
      return options_.overlap_weight * (uncached + tokens) / worker.view.block_tokens;
    case Policy::kGoodput:
      return worker.prompts.total(query.now) +
             prompt_seconds(worker.view, query.shape.tokens, c.cached);
    default:
      return tokens / kPromptUnit;
  }
}

double Placer::decode_cost(const Candidate& c, const PlacementQuery& query) const {
  const Worker& worker = *c.worker;
  const WorkerView& view = worker.view;
  const double full = query.park ? std::max(to_seconds(worker.full_until - query.now), 0.0) : 0.0;
  const double batch = static_cast<double>(view.sequences) / view.max_sequences;
  const double used =
      view.total_blocks == 0
          ? 0.0
          : 1.0 - std::min(1.0, static_cast<double>(view.free_blocks) / view.total_blocks);
  switch (options_.policy) {
    case Policy::kRoundRobin:
      return full;
    case Policy::kKvCost:
      return full + used * view.total_blocks +
             (view.context + static_cast<double>(query.shape.tokens)) / view.block_tokens;
    case Policy::kGoodput:
      return full +
             query.shape.output *
                 step_seconds(view, view.sequences + query.shape.choices,
                              view.context + static_cast<double>(query.shape.tokens)) +
             std::max(batch, used);
    default:
      return full + std::max(batch, used);
  }
}

// The best first by the policy; equals in the order of turns. Of those that will be looked at
// closely no more are put in order than that.
void Placer::rank(Candidates& candidates, uint64_t turn) {
  if (candidates.empty()) return;
  const auto first = candidates.begin() + static_cast<long>(turn % candidates.size());
  std::rotate(candidates.begin(), first, candidates.end());
  if (options_.policy == Policy::kPowerOfTwo && candidates.size() > 2) {
    std::swap(candidates[0], candidates[random_() % candidates.size()]);
    std::swap(candidates[1], candidates[1 + random_() % (candidates.size() - 1)]);
    for (size_t i = 2; i < candidates.size(); ++i) candidates[i].cost += kNotDrawn;
  }
  for (size_t i = 0; i < candidates.size(); ++i) candidates[i].turn = static_cast<uint32_t>(i);
  const bool closely = options_.policy == Policy::kGoodput;
  if (closely) {
    const double least = std::ranges::min_element(candidates, {}, &Candidate::cost)->cost;
    for (Candidate& c : candidates) {
      if (c.cost * kEqual <= least) c.cost = least;
    }
  }
  sort_first(candidates, closely ? kClosely : candidates.size());
}

void Placer::sort_first(Candidates& candidates, size_t count) {
  const auto before = [](const Candidate& a, const Candidate& b) {
    return a.cost != b.cost ? a.cost < b.cost : a.turn < b.turn;
  };
  if (count < candidates.size()) {
    std::ranges::partial_sort(candidates, candidates.begin() + static_cast<long>(count), before);
  } else {
    std::ranges::sort(candidates, before);
  }
}

}  // namespace baton::router
