#include "sim/plan/planner.h"

#include <algorithm>
#include <cmath>

#include "common/latency/step_model.h"

namespace baton::sim {
namespace {

constexpr uint32_t kMostAlone = 4;  // workers of one kind, where a phase is simulated alone
constexpr uint64_t kOtherSeeds = 3;
constexpr uint32_t kLonger = 3;  // what is verified is measured for longer
// Estimates that are always tried: of split placements they are rough.
constexpr size_t kSureMixed = 4, kSureSplit = 16;
constexpr double kCoarse = 1.05;  // of searches that only estimate

// Limits of one unit, and what they leave room for.
struct Room {
  uint32_t gpus = 0;
  double budget = 0;
  uint32_t units = 1;  // that share what there is of a device

  uint32_t most(const WorkerOption& w) const {
    const double by_cost = std::min(budget / w.cost + 1e-9, 1e9);
    return std::min(
        {std::min(gpus, w.available / units) / w.tensor_parallel, static_cast<uint32_t>(by_cost)});
  }
  // Of `w`, beside that pool.
  uint32_t most_beside(const WorkerOption& w, const WorkerPool& pool) const {
    if (pool.gpus() >= gpus || pool.cost() >= budget) return 0;
    WorkerOption left = w;
    if (w.device == pool.worker->device) {
      left.available -= std::min(left.available, pool.gpus() * units);
    }
    return Room{gpus - pool.gpus(), budget - pool.cost(), units}.most(left);
  }
};

// How a split placement is repeated, and where its KV goes.
struct Units {
  Room room;  // of each
  bool within_node = false;
};

std::vector<Units> unit_kinds(const Hardware& table, const PlanOptions& o) {
  using Affinity = PlanOptions::Affinity;
  const Room all{o.gpus, o.budget};
  // All in one node, if they are of one kind, whatever is asked for.
  if (o.gpus <= table.gpus_per_node) return {{all, true}, {all, false}};
  const bool faster = std::ranges::any_of(table.workers, [](const WorkerOption& w) {
    return w.node_bytes_per_second > w.nic_bytes_per_second;
  });
  std::vector<Units> kinds;
  if (o.affinity != Affinity::kLow) kinds.push_back({all, false});
  if (o.affinity == Affinity::kLow || (o.affinity == Affinity::kAuto && faster)) {
    const uint32_t nodes = o.gpus / table.gpus_per_node;
    kinds.push_back({{table.gpus_per_node, o.budget / nodes, nodes}, true});
  }
  return kinds;
}

// A node has one kind of device; and what could be in one node is nowhere else.
bool may_pair(const Hardware& table, const PlanOptions& o, const Units& units,
              const WorkerOption& prefill, const WorkerOption& decode) {
  if (prefill.device != decode.device) return !units.within_node;
  return units.within_node || o.gpus > table.gpus_per_node;
}

// Calls with each split placement that uses all there is room for.
template <class Each>
void each_split(const Hardware& table, const PlanOptions& o, const Each& each) {
  for (const Units& units : unit_kinds(table, o)) {
    for (const WorkerOption& p : table.workers) {
      for (const WorkerOption& d : table.workers) {
        if (!may_pair(table, o, units, p, d)) continue;
        for (uint32_t n = 1; n <= units.room.most(p); ++n) {
          const WorkerPool prefill{&p, n};
          const WorkerPool decode{&d, units.room.most_beside(d, prefill)};
          if (decode.count == 0) break;
          each(Layout{.prefill = prefill,
                      .decode = decode,
                      .mixed = {},
                      .chunk_tokens = o.split_chunk,
                      .units = units.room.units,
                      .within_node = units.within_node});
        }
      }
    }
  }
}

template <class Each>
void each_mixed(const Hardware& table, const PlanOptions& o, const Each& each) {
  const Room room{o.gpus, o.budget};
  for (const WorkerOption& w : table.workers) {
    const uint32_t count = room.most(w);
    if (count == 0) continue;
    for (const uint32_t chunk : o.mixed_chunks) {
      each(Layout{.prefill = {},
                  .decode = {},
                  .mixed = {&w, count},
                  .chunk_tokens = std::max(chunk, table.block_tokens)});
    }
  }
}

class Planner {
 public:
  Planner(const Hardware& table, const TraceFile& trace, const PlanOptions& options)
      : table_(table), trace_(trace), options_(options), trials_(options.trials) {
    prompts_ = trace;
    for (TraceFile::Entry& e : prompts_.entries) e.output_tokens = 1;
  }

  PlanResult run() {
    for (const WorkerOption& w : table_.workers) {
      if (room_.most(w) > 0) usable_.push_back(&w);
    }
    plan_.impossible = impossible_share(trace_, usable_, usable_, options_.split_chunk, slo());
    if (plan_.impossible <= 1 - share()) {
      tell("each phase alone");
      alone();
      tell("mixed workers");
      plan_.mixed = mixed();
      tell("prefill and decode apart");
      plan_.split = split();
      tell("the plan, with other requests");
      verify();
    }
    plan_.simulations = trials_.simulations();
    plan_.requests = trials_.requests();
    return std::move(plan_);
  }

 private:
  const Slo& slo() const { return options_.trials.slo; }
  double share() const { return options_.trials.share; }
  void tell(std::string_view what) const {
    if (options_.stage) options_.stage(what);
  }

  // Whether too few requests could meet their targets there, alone.
  bool hopeless(const WorkerOption& w, Phase phase, uint32_t chunk) const {
    const std::vector<const WorkerOption*> one{&w};
    return impossible_share(trace_, phase == Phase::kDecode ? usable_ : one,
                            phase == Phase::kPrefill ? usable_ : one, chunk, slo()) > 1 - share();
  }

  void add_alone(const WorkerOption& w, Phase phase, uint32_t chunk, bool within_node = false) {
    if (hopeless(w, phase, chunk)) return;
    const double bound =
        most_per_second(w, phase, trace_, chunk, table_.max_sequences, share(), slo());
    plan_.alone.push_back({&w, phase, chunk, within_node, bound, 0});
  }

  void alone() {
    for (const WorkerOption* w : usable_) {
      add_alone(*w, Phase::kPrefill, options_.split_chunk);
      for (const Units& units : unit_kinds(table_, options_)) {
        if (alone_of(w, Phase::kDecode, options_.split_chunk, units.within_node)) continue;
        add_alone(*w, Phase::kDecode, options_.split_chunk, units.within_node);
      }
    }
    std::vector<ClusterSpec> specs;
    std::vector<uint32_t> counts;
    std::vector<Trials::Search> searches;
    specs.reserve(plan_.alone.size());
    for (const PhaseAlone& a : plan_.alone) {
      counts.push_back(std::clamp(room_.most(*a.worker) / 2, 1u, kMostAlone));
      specs.push_back(phase_alone(table_, {a.worker, counts.back()}, a.phase == Phase::kDecode,
                                  a.chunk_tokens, a.within_node));
      searches.push_back({{.spec = &specs.back(),
                           .trace = a.phase == Phase::kPrefill ? &prompts_ : &trace_,
                           .rate = counts.back() * first_guess(a),
                           .admission = false},
                          counts.back() * a.bound,
                          kCoarse});
    }
    const std::vector<double> found = trials_.goodputs(searches);
    for (size_t i = 0; i < found.size(); ++i) plan_.alone[i].goodput = found[i] / counts[i];
  }

  // Requests a second, of one worker.
  double first_guess(const PhaseAlone& a) const {
    if (std::isfinite(a.bound)) return 0.6 * a.bound;
    return 1 / idle_ttft(*a.worker, static_cast<uint64_t>(trace_.mean_input()), a.chunk_tokens);
  }

  const PhaseAlone* alone_of(const WorkerOption* worker, Phase phase, uint32_t chunk,
                             bool within_node = false) const {
    const bool equal_links = worker->node_bytes_per_second == worker->nic_bytes_per_second;
    for (const PhaseAlone& a : plan_.alone) {
      if (a.worker != worker || a.phase != phase || a.chunk_tokens != chunk) continue;
      if (equal_links || a.within_node == within_node) return &a;
    }
    return nullptr;
  }

  // The best chunks of each kind of worker, found with a few of them.
  void mixed_alone() {
    for (const WorkerOption* w : usable_) {
      std::vector<Entrant> entrants;
      each_mixed(table_, options_, [&](const Layout& layout) {
        if (layout.mixed.worker != w || hopeless(*w, Phase::kBoth, layout.chunk_tokens)) return;
        Layout few = layout;
        few.mixed.count = std::min(layout.mixed.count, kMostAlone);
        const double bound = few.mixed.count * mixed_bound(*w, layout.chunk_tokens);
        // A guess: less where a step with a whole chunk takes much of the target.
        const double guess = few.mixed.count * first_guess({w, Phase::kBoth, layout.chunk_tokens,
                                                            false, bound / few.mixed.count, 0});
        const auto step = latency::StepWork::prefill(layout.chunk_tokens, 0);
        const double slack =
            to_seconds(slo().tpot) / to_seconds(latency::step_time(w->profile.step, step));
        entrants.push_back({few, guess * std::min(1.0, slack / 2), bound});
      });
      Contest contest(trials_, table_, trace_);
      const size_t all = entrants.size();
      contest.hold(std::move(entrants), all);
      if (!contest.best()) continue;
      const Layout& best = contest.best()->layout;
      plan_.alone.push_back({w, Phase::kBoth, best.chunk_tokens, false,
                             mixed_bound(*w, best.chunk_tokens),
                             contest.best()->goodput / best.mixed.count});
    }
  }

  double mixed_bound(const WorkerOption& w, uint32_t chunk) const {
    return most_per_second(w, Phase::kBoth, trace_, chunk, table_.max_sequences, share(), slo());
  }

  std::optional<Winner> mixed() {
    mixed_alone();
    std::vector<Entrant> entrants;
    each_mixed(table_, options_, [&](const Layout& layout) {
      const PhaseAlone* a = alone_of(layout.mixed.worker, Phase::kBoth, layout.chunk_tokens);
      if (!a) return;
      entrants.push_back({layout, layout.mixed.count * a->goodput, layout.mixed.count * a->bound});
    });
    Contest contest(trials_, table_, trace_);
    contest.hold(std::move(entrants), kSureMixed);
    return contest.best();
  }

  std::optional<Winner> split() {
    std::vector<Entrant> entrants;
    each_split(table_, options_, [&](const Layout& layout) {
      const PhaseAlone* p = alone_of(layout.prefill.worker, Phase::kPrefill, layout.chunk_tokens);
      const PhaseAlone* d =
          alone_of(layout.decode.worker, Phase::kDecode, layout.chunk_tokens, layout.within_node);
      if (!p || !d) return;
      // Decode workers may compute short prompts, too: what both do together is no bound of one.
      const double n = layout.prefill.count * layout.units, m = layout.decode.count * layout.units;
      entrants.push_back({layout, std::min(n * p->goodput, m * d->goodput), m * d->bound});
    });
    Contest contest(trials_, table_, trace_);
    contest.hold(std::move(entrants), kSureSplit);
    contest.trim();
    return contest.best();
  }

  void verify() {
    std::vector<std::pair<const Winner*, Verified*>> all;
    if (plan_.split) all.emplace_back(&*plan_.split, &plan_.split_verified);
    if (plan_.mixed) all.emplace_back(&*plan_.mixed, &plan_.mixed_verified);
    std::vector<ClusterSpec> specs;
    std::vector<Trial> trials;
    specs.reserve(all.size());
    for (const auto& [winner, verified] : all) {
      specs.push_back(cluster_of(table_, winner->layout));
      for (uint64_t i = 1; i <= kOtherSeeds; ++i) {
        trials.push_back({&specs.back(), &trace_, winner->goodput / winner->layout.units,
                          options_.trials.seed + i, kLocalTokens, true, kLonger});
      }
    }
    const std::vector<double> shares = trials_.attained(trials);
    for (size_t i = 0; i < shares.size(); ++i) {
      all[i / kOtherSeeds].second->attained.push_back(shares[i]);
    }
  }

  const Hardware& table_;
  const TraceFile& trace_;
  const PlanOptions& options_;
  const Room room_{options_.gpus, options_.budget};
  std::vector<const WorkerOption*> usable_;  // what there is room for
  TraceFile prompts_;                        // the same requests, of one token of output each
  Trials trials_;
  PlanResult plan_;
};

}  // namespace

const std::optional<Winner>& PlanResult::best() const {
  return split && (!mixed || split->goodput > mixed->goodput) ? split : mixed;
}

result<PlanResult> make_plan(const Hardware& table, const TraceFile& trace,
                             const PlanOptions& options) {
  // What every trial would say.
  BATON_TRY([[maybe_unused]] const Traffic traffic,
            Traffic::make(trace, {options.trials.arrivals, 1, 1, 1}));
  return Planner(table, trace, options).run();
}

std::vector<Layout> all_layouts(const Hardware& table, const PlanOptions& options) {
  std::vector<Layout> all;
  each_mixed(table, options, [&](const Layout& layout) { all.push_back(layout); });
  each_split(table, options, [&](const Layout& layout) { all.push_back(layout); });
  return all;
}

}  // namespace baton::sim
