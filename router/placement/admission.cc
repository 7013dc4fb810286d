// Whether a request is served: honest words early, instead of a late answer.
#include <fmt/format.h>

#include <algorithm>

#include "router/placement/placement.h"

namespace baton::router {
namespace {

std::string in_words(double s) {
  return s < 1 ? fmt::format("{:.0f} ms", s * 1e3) : fmt::format("{:.2f} s", s);
}

struct Miss {
  double ttft = 0, tpot = 0;  // by how much; 0 or less: not
  bool any() const { return ttft > 0 || tpot > 0; }
};

Miss miss_of(const SloTarget& target, double ttft, double tpot) {
  return {target.ttft ? ttft - to_seconds(*target.ttft) : 0.0,
          target.tpot ? tpot - to_seconds(*target.tpot) : 0.0};
}

std::string sentence(const SloTarget& target, double ttft, double tpot, std::string_view where) {
  const Miss miss = miss_of(target, ttft, tpot);
  std::string out;
  const auto say = [&](std::string_view what, double would_be, double by, Duration of) {
    out += fmt::format("{}{} would be {}{}, {} over the target of {}", out.empty() ? "" : "; ",
                       what, in_words(would_be), where, in_words(by), in_words(to_seconds(of)));
  };
  if (miss.ttft > 0) say("TTFT", ttft, miss.ttft, *target.ttft);
  if (miss.tpot > 0) say("TPOT", tpot, miss.tpot, *target.tpot);
  return out;
}

struct Idle {
  double ttft = 1e9, tpot = 1e9;
  bool known = false;
};

// The best of any worker with nothing else to do.
Idle idle_of(const ModelWorkers& workers, const PlacementQuery& query) {
  Idle out;
  const auto prompt = [&](const Worker* w) {
    if (!w->view.known()) return;
    const uint32_t cached = query.matched_on(w->id);
    out.ttft = std::min(out.ttft, prompt_seconds(w->view, query.shape.tokens, cached));
  };
  const auto decode = [&](const Worker* w) {
    if (!w->view.known()) return;
    const auto tokens = static_cast<double>(query.shape.tokens);
    out.tpot = std::min(out.tpot, step_seconds(w->view, query.shape.choices, tokens));
    out.known = true;
  };
  std::ranges::for_each(workers.prefill, prompt);
  std::ranges::for_each(workers.decode, decode);
  for (const Worker* w : workers.mixed) {
    prompt(w);
    decode(w);
  }
  if (query.ends_at_first) out.tpot = 0;
  out.known = out.known && out.ttft < 1e9;
  return out;
}

}  // namespace

// What is foreseen comes from what was measured. Where everything is refused nothing is measured,
// and what was wrong would stay so. Only pairs teach what reads of KV take.
bool Placer::may_try(const PlacementQuery& query, const Decision& decision) {
  constexpr Duration kTryEvery = seconds(10);
  const Accepted& last = accepted_of(query);
  const TimePoint since = decision.placement.mixed() ? last.alone : last.pair;
  if (decision.harmed > 0 || query.now - since < kTryEvery) return false;
  note_accepted(query, decision);
  return true;
}

void Placer::note_accepted(const PlacementQuery& query, const Decision& decision) {
  Accepted& last = accepted_of(query);
  last.alone = query.now;
  if (!decision.placement.mixed()) last.pair = query.now;
}

// Of a model that was not asked for yet: as if one had been accepted now.
Placer::Accepted& Placer::accepted_of(const PlacementQuery& query) {
  const auto it = accepted_.find(query.model);
  if (it != accepted_.end()) return it->second;
  return accepted_.emplace(query.model, Accepted{query.now, query.now}).first->second;
}

std::optional<Refusal> Placer::judge(const WorkerPool& pool, const PlacementQuery& query,
                                     const Decision& decision) {
  auto refusal = refusal_of(pool, query, decision);
  if (!refusal) {
    note_accepted(query, decision);
  } else if (may_try(query, decision)) {
    refusal.reset();
  }
  return refusal;
}

std::optional<Refusal> Placer::refusal_of(const WorkerPool& pool, const PlacementQuery& query,
                                          const Decision& decision) {
  const bool promised = query.target.ttft || query.target.tpot;
  if (!options_.admission || query.best_effort || !decision.known || !promised) {
    return std::nullopt;
  }
  if (decision.in_time && decision.harmed == 0) return std::nullopt;
  const Idle idle = idle_of(pool.workers_of(query.model, query.set), query);
  if (idle.known && miss_of(query.target, idle.ttft, idle.tpot).any()) {
    return Refusal{.reason = Refusal::Reason::kImpossible,
                   .message = sentence(query.target, idle.ttft, idle.tpot, " on an idle cluster")};
  }
  Refusal out;
  // As late as it may well come.
  const auto with = [](double s, const std::optional<Duration>& target, const Margin& margin,
                       double idle) {
    return target ? margin.at_worst(s, to_seconds(*target), idle) : s;
  };
  const double ttft = with(decision.ttft, query.target.ttft, ttft_margin_, idle.ttft);
  const double tpot = with(decision.tpot, query.target.tpot, tpot_margin_, idle.tpot);
  const Miss miss = miss_of(query.target, ttft, tpot);
  if (decision.in_time) {
    out.message =
        fmt::format("It would make {} other request{} miss {} target{}", decision.harmed,
                    decision.harmed == 1 ? "" : "s", decision.harmed == 1 ? "its" : "their",
                    decision.harmed == 1 ? "" : "s");
  } else {
    out.message = sentence(query.target, ttft, tpot, "");
  }
  // A queue drains in its own time; a batch as its streams end.
  double after = std::max(miss.ttft, 0.0);
  if (miss.tpot > 0 || decision.in_time) {
    after = std::max(after, decision.tpot * query.shape.output / 4);
  }
  const double jitter = 1 + std::uniform_real_distribution<double>(0, 0.5)(random_);
  out.retry_after = from_seconds(std::clamp(after * jitter, 0.05, 60.0));
  return out;
}

}  // namespace baton::router
