#include "router/dispatch/placement.h"

#include <algorithm>
#include <vector>

#include "common/net/protocol.h"

namespace baton::router {
namespace {

// Reservations awaiting their grant at one worker: a queue is not poured over a worker whose room
// is not known yet.
constexpr uint32_t kMaxReserving = 16;
// Who computes prompts keeps its own queue; this many batches' worth of sequences feed it.
constexpr uint32_t kQueueDepth = 2;

struct Candidate {
  Placement placement;
  double load = 0;
};

bool may_serve(const Worker& worker, proto::Role role, const PlacementQuery& query) {
  bool full = worker.full_until > query.now;
  if (query.park) {
    full = (full && role != proto::ROLE_DECODE) || worker.line_full_until > query.now ||
           worker.hello.protocol_max() < net::kProtocolPark;
  }
  return worker.role == role && !worker.load.draining() && !full &&
         worker.hello.model() == query.model;
}

bool has_room(const Worker& worker, const PlacementQuery& query) {
  if (query.park) return worker.reserving < kMaxReserving;  // its line has a bound of its own
  const uint32_t batch = worker.hello.max_sequences();
  // More choices than it has at all it refuses itself; here they would wait for ever.
  if (worker.role == proto::ROLE_PREFILL && worker.placed_sequences == 0) return true;
  const uint32_t limit = worker.role == proto::ROLE_DECODE ? batch : kQueueDepth * batch;
  return worker.placed_sequences + query.choices <= limit && worker.reserving < kMaxReserving;
}

double penalty(const Worker& worker, const PlacementQuery& query) {
  constexpr double kLast = 1e9;
  return worker.id == query.avoid ? kLast : 0.0;
}

// One prompt alone may be larger than what may be parked.
bool may_park(const Worker& prefill, const PlacementQuery& query) {
  const uint64_t blocks = query.tokens / prefill.hello.block_tokens() + 1;
  const uint64_t waiting = prefill.load.waiting_blocks();
  return waiting == 0 || waiting + blocks <= prefill.load.most_waiting_blocks();
}

double wait_of(const Worker& decode, const PlacementQuery& query) {
  return query.park ? std::max(to_seconds(decode.full_until - query.now), 0.0) : 0.0;
}

void add_pairs(const WorkerPool& pool, const Worker& decode, const PlacementQuery& query,
               std::vector<Candidate>& candidates) {
  for (const auto& [id, prefill] : pool.workers()) {
    const bool holds_kv = id == query.prefill;
    if (query.prefill != WorkerId{} && !holds_kv) continue;
    if (!holds_kv && !may_serve(prefill, proto::ROLE_PREFILL, query)) continue;
    if (!is_paired(decode, prefill) || (query.park && !may_park(prefill, query))) continue;
    candidates.push_back({{prefill.id, decode.id},
                          prefill_load(prefill) + decode_load(decode) + wait_of(decode, query) +
                              penalty(prefill, query) + penalty(decode, query)});
  }
}

}  // namespace

double prefill_load(const Worker& worker) {
  const uint64_t tokens = std::max(worker.load.queued_tokens(), worker.placed_prompt_tokens);
  return static_cast<double>(tokens) / kPrefillUnit;
}

double decode_load(const Worker& worker) {
  const uint32_t sequences =
      std::max(worker.load.running() + worker.load.waiting(), worker.placed_sequences);
  const double batch = static_cast<double>(sequences) / worker.hello.max_sequences();
  if (worker.load.total_blocks() == 0) return batch;
  const double free = static_cast<double>(worker.load.free_blocks()) / worker.load.total_blocks();
  return std::max(batch, 1.0 - std::min(free, 1.0));
}

std::optional<Placement> place(const WorkerPool& pool, const PlacementQuery& query) {
  std::vector<Candidate> candidates;
  for (const auto& [id, worker] : pool.workers()) {
    if (!has_room(worker, query)) continue;
    if (!query.park && query.prefill == WorkerId{} && may_serve(worker, proto::ROLE_MIXED, query)) {
      candidates.push_back(
          {{id, id}, prefill_load(worker) + decode_load(worker) + penalty(worker, query)});
    } else if (query.ends_at_first) {
      if (query.park || !may_serve(worker, proto::ROLE_PREFILL, query)) continue;
      candidates.push_back({{id, id}, prefill_load(worker) + penalty(worker, query)});
    } else if (may_serve(worker, proto::ROLE_DECODE, query)) {
      add_pairs(pool, worker, query, candidates);
    }
  }
  if (candidates.empty()) return std::nullopt;
  const auto first = candidates.begin() + static_cast<long>(query.turn % candidates.size());
  std::rotate(candidates.begin(), first, candidates.end());
  return std::ranges::min_element(candidates, {}, &Candidate::load)->placement;
}

}  // namespace baton::router
