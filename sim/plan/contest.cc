#include "sim/plan/contest.h"

#include <algorithm>

namespace baton::sim {
namespace {

constexpr size_t kBatch = 4;         // tried at once, with any number of threads
constexpr double kBetter = 1.01;     // what a challenger must hold, of the best
constexpr double kFarBelow = 0.85;   // an estimate, of the best one
constexpr double kFarWorse = 0.08;   // of what was to be met
constexpr double kNotNeeded = 0.98;  // of the best's rate, without a worker

bool same_kinds(const Layout& a, const Layout& b) {
  return a.split() && b.split() && a.prefill.worker == b.prefill.worker &&
         a.decode.worker == b.decode.worker && a.within_node == b.within_node;
}

}  // namespace

void Contest::hold(std::vector<Entrant> entrants, size_t sure) {
  std::ranges::stable_sort(entrants, std::greater{}, &Entrant::estimate);
  tried_.clear();
  size_t next = 0;
  while (next < entrants.size()) {
    const size_t most = best_ ? kBatch : 1;
    std::vector<Entrant> batch;
    for (; next < entrants.size() && batch.size() < most; ++next) {
      const Entrant& e = entrants[next];
      if (!worth_a_try(e)) continue;
      if (next >= sure && e.estimate < kFarBelow * entrants.front().estimate) continue;
      if (next >= sure && behind_a_loser(e.layout)) continue;
      batch.push_back(e);
    }
    if (batch.empty()) continue;
    best_ ? challenge(batch) : first(batch);
  }
}

bool Contest::worth_a_try(const Entrant& e) const {
  return e.estimate > 0 && (!best_ || e.bound > best_->goodput * kBetter);
}

// With more and more of one role things get better, and then worse.
bool Contest::behind_a_loser(const Layout& layout) const {
  for (const Tried& lost : tried_) {
    if (!same_kinds(lost.layout, layout)) continue;
    if (lost.attained >= trials_.options().share - kFarWorse) continue;
    for (const Tried& nearer : tried_) {
      if (!same_kinds(nearer.layout, layout) || nearer.attained <= lost.attained) continue;
      const uint32_t a = nearer.layout.prefill.count, b = lost.layout.prefill.count;
      const uint32_t c = layout.prefill.count;
      if ((a < b && b < c) || (c < b && b < a)) return true;
    }
  }
  return false;
}

void Contest::first(const std::vector<Entrant>& batch) {
  std::vector<double> starts;
  for (const Entrant& e : batch) starts.push_back(e.estimate);
  search(batch, starts);
  if (best_) tried_.push_back({best_->layout, trials_.options().share});
}

void Contest::challenge(const std::vector<Entrant>& batch) {
  const double bar = best_->goodput * kBetter;
  std::vector<Layout> layouts;
  for (const Entrant& e : batch) layouts.push_back(e.layout);
  const std::vector<double> shares = attained(layouts, bar);
  std::vector<Entrant> held;
  for (size_t i = 0; i < batch.size(); ++i) {
    tried_.push_back({batch[i].layout, shares[i]});
    if (shares[i] >= trials_.options().share) held.push_back(batch[i]);
  }
  search(held, std::vector<double>(held.size(), bar * kBetter));
}

std::vector<double> Contest::attained(const std::vector<Layout>& layouts, double rate) {
  std::vector<ClusterSpec> specs;
  std::vector<Trial> trials;
  specs.reserve(layouts.size());
  for (const Layout& layout : layouts) {
    specs.push_back(cluster_of(table_, layout));
    trials.push_back({.spec = &specs.back(),
                      .trace = &trace_,
                      .rate = rate / layout.units,
                      .most_local_tokens = kLocalTokens,
                      .indifferent = kFarWorse});
  }
  return trials_.attained(trials);
}

void Contest::search(const std::vector<Entrant>& batch, const std::vector<double>& starts) {
  std::vector<ClusterSpec> specs;
  std::vector<Trials::Search> searches;
  specs.reserve(batch.size());
  for (size_t i = 0; i < batch.size(); ++i) {
    const uint32_t units = batch[i].layout.units;
    specs.push_back(cluster_of(table_, batch[i].layout));
    searches.push_back(
        {{&specs.back(), &trace_, starts[i] / units, 0, kLocalTokens}, batch[i].bound / units});
  }
  const std::vector<double> found = trials_.goodputs(searches);
  for (size_t i = 0; i < batch.size(); ++i) {
    const double goodput = found[i] * batch[i].layout.units;
    if (goodput > (best_ ? best_->goodput : 0)) {
      best_ = {batch[i].layout, batch[i].estimate, goodput};
    }
  }
}

void Contest::trim() {
  const double rate = best_ ? best_->goodput * kNotNeeded : 0;
  while (best_ && best_->layout.split()) {
    std::vector<Layout> fewer;
    for (WorkerPool Layout::*pool : {&Layout::prefill, &Layout::decode}) {
      if ((best_->layout.*pool).count < 2) continue;
      fewer.push_back(best_->layout);
      --(fewer.back().*pool).count;
    }
    if (fewer.empty()) return;
    const std::vector<double> shares = attained(fewer, rate);
    const Layout* smallest = nullptr;
    for (size_t i = 0; i < fewer.size(); ++i) {
      if (shares[i] < trials_.options().share) continue;
      if (!smallest || fewer[i].gpus() < smallest->gpus()) smallest = &fewer[i];
    }
    if (!smallest) return;
    best_->layout = *smallest;
    best_->goodput = rate;
  }
}

}  // namespace baton::sim
