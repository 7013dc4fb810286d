#include "router/placement/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace baton::router {
result<Policy> parse_policy(std::string_view name) {
  const auto it = std::ranges::find(kPolicyNames, name);
  if (it != std::end(kPolicyNames)) return static_cast<Policy>(it - std::begin(kPolicyNames));
  return error(Errc::kInvalidArgument, fmt::format("there is no policy '{}': one of {}", name,
                                                   fmt::join(kPolicyNames, ", ")));
}

Placer::Placer(PlacementOptions options)
    : options_(std::move(options)), random_(static_cast<uint32_t>(options_.seed) | 1) {}

std::optional<Decision> Placer::place(const WorkerPool& pool, const PlacementQuery& query) {
  collect_all(pool, query);
  Best best;
  best_pair(query, best);
  best_alone(query, best);
  if (best.prefill == nullptr) return std::nullopt;
  Candidate prefill = *best.prefill;
  if (!prefill.foreseen) look_at(prefill, query);
  return decide(prefill, *best.decode, admitted_by(*best.decode, prefill, query), query);
}

Decision Placer::at_decode(const WorkerPool& pool, const PlacementQuery& query,
                           const Placement& placement) const {
  const Candidate prefill{.worker = pool.find(placement.prefill), .prompt = {}};
  const Candidate decode{.worker = pool.find(placement.decode), .prompt = {}};
  return decide(prefill, decode, decode_now(*decode.worker, query.shape, promises(), query.now),
                query);
}

void Placer::collect_all(const WorkerPool& pool, const PlacementQuery& query) {
  const ModelWorkers& workers = pool.workers_of(query.model, query.set);
  const bool alone = !query.park && query.prefill == WorkerId{};
  collect_prefill(pool, query, prefill_);
  decode_.clear();
  mixed_.clear();
  if (!query.ends_at_first) collect(workers.decode, proto::ROLE_DECODE, query, decode_);
  if (alone) collect(workers.mixed, proto::ROLE_MIXED, query, mixed_);
  const uint64_t size = std::max<uint64_t>(1, prefill_.size());
  rank(prefill_, query.turn);
  rank(decode_, query.turn / size);
  rank(mixed_, query.turn);
  if (options_.policy == Policy::kGoodput) {
    for (Candidates* some : {&prefill_, &decode_, &mixed_}) foresee(*some, query);
  }
  soonest_ = std::numeric_limits<double>::max();
  double sum = 0, looked_at = 0;
  for (const Candidates* some : {&prefill_, &mixed_}) {
    for (const Candidate& c : *some) {
      if (!c.foreseen) continue;
      soonest_ = std::min(soonest_, c.prompt.ttft());
      sum += c.prompt.ttft();
      ++looked_at;
    }
  }
  mean_ttft_ = looked_at > 0 ? sum / looked_at : 0.0;
  if (looked_at > 0) foresee_joining(query);
}

Joining Placer::joins(double after) const {
  return options_.predict ? Joining{std::min(after, soonest_), mean_ttft_} : Joining{};
}

// Once for each decode worker, not for each pair.
void Placer::foresee_joining(const PlacementQuery& query) {
  const size_t end = std::min(decode_.size(), kClosely);
  for (size_t i = 0; i < end; ++i) {
    decode_[i].joined = estimate_decode(*decode_[i].worker, query.shape, joins(soonest_),
                                        /*stall=*/0, promises(), query.now);
  }
}

// Of the few that will be looked at closely.
void Placer::foresee(Candidates& candidates, const PlacementQuery& query) const {
  const size_t end = std::min(candidates.size(), kClosely);
  for (size_t i = 0; i < end; ++i) look_at(candidates[i], query);
}

void Placer::look_at(Candidate& c, const PlacementQuery& query) const {
  c.prompt = estimate_prompt(*c.worker, query.shape, c.cached, query.now);
  c.late = c.worker->prompts.made_late(query.shape.due, c.prompt.compute, query.now);
  c.foreseen = true;
}

DecodeEstimate Placer::foresee_decode(const Candidate& decode, const Candidate& prefill,
                                      const PlacementQuery& query) const {
  const Worker& reader = *decode.worker;
  const Joining joining = joins(prefill.prompt.ttft());
  const auto estimate = [&](double stall) {
    return estimate_decode(reader, query.shape, joining, stall, promises(), query.now);
  };
  if (prefill.worker == decode.worker) {
    return estimate(stall_seconds(reader.view, query.shape.tokens, prefill.cached));
  }
  DecodeEstimate out = decode.joined ? *decode.joined : estimate(0);
  // What is computed by then, or waits for room, is read when all of it is there.
  const bool streams = !query.park && query.prefill == WorkerId{};
  const double beside =
      reads_beside(reader, query.shape.tokens, joining, static_cast<double>(prefill_.size()) - 1);
  const double gap =
      exposed_read(reader.view, query.shape.tokens, streams ? prefill.prompt.compute : 0.0, beside);
  out.tpot += gap / std::max(1.0, query.shape.output - 1);
  return out;
}

// What is told of a choice, and judged; chosen it is by what is foreseen, in any case.
DecodeEstimate Placer::admitted_by(const Candidate& decode, const Candidate& prefill,
                                   const PlacementQuery& query) const {
  switch (options_.admit_by) {
    case AdmitBy::kNow:
      return decode_now(*decode.worker, query.shape, promises(), query.now);
    case AdmitBy::kAtDecode:
      return {};
    default:
      return foresee_decode(decode, prefill, query);
  }
}

Decision Placer::decide(const Candidate& prefill, const Candidate& decode,
                        const DecodeEstimate& foreseen, const PlacementQuery& query) const {
  Decision d{.placement = {prefill.worker->id, decode.worker->id},
             .matched = prefill.matched,
             .cached = prefill.cached,
             .prompt = prompt_seconds(prefill.worker->view, query.shape.tokens, prefill.cached)};
  const double since = to_seconds(query.now - query.received);
  d.ttft = since + prefill.prompt.ttft();
  d.tpot = query.ends_at_first ? 0.0 : foreseen.tpot;
  d.known = prefill.worker->view.known() && decode.worker->view.known();
  d.harmed = prefill.late + (query.ends_at_first ? 0 : foreseen.harmed);
  const auto meets = [](double s, const std::optional<Duration>& target, const Margin& margin,
                        double idle) {
    return !target || margin.at_worst(s, to_seconds(*target), idle) <= to_seconds(*target);
  };
  const double alone = step_seconds(decode.worker->view, query.shape.choices,
                                    static_cast<double>(query.shape.tokens));
  d.in_time = meets(d.ttft, query.target.ttft, ttft_margin_, since + d.prompt) &&
              (query.ends_at_first || meets(d.tpot, query.target.tpot, tpot_margin_, alone));
  return d;
}

// By goodput: promises first, then the time that it takes and takes from others. By the other
// policies: their own cost.
Placer::Score Placer::score(const Candidate& prefill, const Candidate& decode,
                            const PlacementQuery& query) const {
  const bool alone = prefill.worker == decode.worker;
  if (options_.policy != Policy::kGoodput) {
    return {0, alone ? prefill.cost : prefill.cost + decode.cost};
  }
  const DecodeEstimate foreseen = foresee_decode(decode, prefill, query);
  const Decision d = decide(prefill, decode, foreseen, query);
  double cost = d.ttft;
  if (!query.ends_at_first) cost += d.tpot * query.shape.output + foreseen.added;
  if (alone && !query.ends_at_first) cost += prefill.prompt.compute * decode.worker->view.sequences;
  if (prefill.worker->id == query.avoid || decode.worker->id == query.avoid) cost += kLast;
  const bool counts = d.known && d.in_time && !query.best_effort;
  return {(counts ? 1 : 0) - static_cast<int>(d.harmed), cost};
}

void Placer::offer(const Candidate& prefill, const Candidate& decode, const PlacementQuery& query,
                   Best& best) const {
  const Score s = score(prefill, decode, query);
  if (best.prefill == nullptr || s.better_than(best.score)) best = {&prefill, &decode, s};
}

// Both are ranked: by a policy whose costs add, the first pair in each prefill worker's row is its
// best, and a row that begins worse than the best so far ends the search.
void Placer::best_pair(const PlacementQuery& query, Best& best) {
  const bool closely = options_.policy == Policy::kGoodput;
  const auto top = [&](const Candidates& c) {
    return closely ? std::min(c.size(), kClosely) : c.size();
  };
  for (size_t p = 0; p < top(prefill_); ++p) {
    for (size_t d = 0; d < top(decode_); ++d) {
      const bool late =
          best.prefill != nullptr && prefill_[p].cost + decode_[d].cost >= best.score.cost;
      if (!closely && late) break;
      if (!is_paired(*decode_[d].worker, *prefill_[p].worker)) continue;
      offer(prefill_[p], decode_[d], query, best);
      if (!closely) break;
    }
  }
  if (!closely || best.prefill != nullptr) return;
  for (Candidates* some : {&prefill_, &decode_}) sort_first(*some, some->size());
  for (const Candidate& prefill : prefill_) {  // none of the best few are a pair
    for (const Candidate& decode : decode_) {
      if (is_paired(*decode.worker, *prefill.worker)) return offer(prefill, decode, query, best);
    }
  }
}

// One worker for both: a mixed one; a prefill worker, if there is nothing to decode; a decode
// worker, if it is little to compute.
void Placer::best_alone(const PlacementQuery& query, Best& best) const {
  const bool closely = options_.policy == Policy::kGoodput;
  const auto top = [&](const Candidates& c) {
    return std::min(c.size(), closely ? kClosely : size_t{1});
  };
  for (size_t i = 0; i < top(mixed_); ++i) offer(mixed_[i], mixed_[i], query, best);
  if (query.park || query.prefill != WorkerId{}) return;
  if (query.ends_at_first) {
    for (size_t i = 0; i < top(prefill_); ++i) offer(prefill_[i], prefill_[i], query, best);
    return;
  }
  if (!closely) return;
  for (size_t i = 0; i < top(decode_); ++i) {
    const Candidate& c = decode_[i];
    const uint64_t left = query.shape.tokens - std::min<uint64_t>(c.cached, query.shape.tokens);
    if (left <= options_.most_local_tokens && c.worker->view.known()) offer(c, c, query, best);
  }
}

}  // namespace baton::router
