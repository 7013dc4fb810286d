#include "sim/plan/trials.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <span>
#include <thread>

namespace baton::sim {
namespace {

constexpr auto kProgressEvery = std::chrono::milliseconds(500);
constexpr int kMostRounds = 30;
constexpr double kLeastOfStart = 1.0 / 128;  // less is none

// How long a request may stay and meet its targets. What waits for a place in decode waits within
// its TPOT: a queue there can grow for as long before it shows.
double residence(const TraceFile& trace, const Slo& slo) {
  return to_seconds(slo.ttft) + trace.mean_output() * to_seconds(slo.tpot);
}

struct Count {
  uint64_t skipped = 0, measured = 0;
};

Count count_of(const Trial& trial, const TrialOptions& options) {
  const double full = trial.rate * residence(*trial.trace, options.slo);
  const auto half = static_cast<double>(options.most_requests) / 2;
  const auto skipped = static_cast<uint64_t>(std::min(full, half));
  return {skipped, trial.times * std::max(options.requests, skipped)};
}

// Arrivals that are drawn come a little faster or slower than they should, by chance: here those
// that are measured come at the rate that was asked for.
result<Traffic> traffic_of(const Trial& trial, const TrialOptions& options, Count count,
                           uint64_t seed) {
  TrafficOptions o{options.arrivals, trial.rate, count.skipped + count.measured, seed};
  BATON_TRY(const Traffic drawn, Traffic::make(*trial.trace, o));
  if (o.arrivals.kind == Arrivals::Kind::kTrace) return drawn;
  const double span = to_seconds(drawn.at(drawn.size() - 1) - drawn.at(count.skipped));
  o.rate *= trial.rate * span / static_cast<double>(count.measured - 1);
  return Traffic::make(*trial.trace, o);
}

// Counts the requests that are measured until the others cannot change what is to be known.
class Tally {
 public:
  Tally(const Trial& trial, const TrialOptions& options, Count count)
      : slo_(options.slo),
        share_(options.share),
        least_(options.share - trial.indifferent),
        skipped_(count.skipped),
        measured_(static_cast<double>(count.measured)) {}

  bool enough(uint64_t request, const Outcome& outcome) {
    if (request < skipped_) return false;
    ++(met_both(outcome, slo_) ? met_ : missed_);
    return holds() || (measured_ - missed_) / measured_ < least_;
  }
  double attained() const { return holds() ? met_ / measured_ : met_ / (met_ + missed_); }

 private:
  bool holds() const { return met_ / measured_ >= share_; }

  const Slo slo_;
  const double share_, least_;
  const uint64_t skipped_;
  const double measured_;
  double met_ = 0, missed_ = 0;  // of those that have ended
};

}  // namespace

RateSearch::RateSearch(double start, double most, double tolerance)
    : start_(std::min(start, most / 1.1)), tolerance_(tolerance), high_(most) {}

bool RateSearch::done() const {
  return rounds_ >= kMostRounds || (low_ > 0 && high_ <= low_ * tolerance_) ||
         high_ < start_ * kLeastOfStart || !(start_ > 0);
}

std::vector<double> RateSearch::wanted() const {
  if (done()) return {};
  if (rounds_ == 0) return {start_, std::min(start_ * 1.25, high_)};
  if (low_ == 0 && rounds_ == 1) return {high_ / 1.5, high_ / 1.15};
  if (low_ == 0) return {high_ / 4, high_ / 2};
  // Where the bound is far away, what is near counts first.
  const double third = std::cbrt(std::min(high_ / low_, 3.0));
  return {low_ * third, low_ * third * third};
}

void RateSearch::tell(const std::vector<double>& rates, const std::vector<bool>& holds) {
  ++rounds_;
  for (size_t i = 0; i < rates.size(); ++i) {
    if (!holds[i]) {
      high_ = rates[i];
      return;
    }
    low_ = rates[i];
  }
}

double Trials::run(const Trial& trial, std::atomic<uint64_t>& ended) const {
  const Count count = count_of(trial, options_);
  const uint64_t seed = trial.seed == 0 ? options_.seed : trial.seed;
  const auto traffic = traffic_of(trial, options_, count, seed);
  if (!traffic) return 0;
  ClusterRunOptions run;
  run.seed = seed;
  run.ended = &ended;
  run.promise = {options_.slo.ttft, options_.slo.tpot};
  run.placement.classes = {{.name = "default", .target = run.promise}};
  run.placement.admission = trial.admission;
  run.placement.most_local_tokens = trial.most_local_tokens;
  if (trial.indifferent >= 1) {
    const ClusterResult result = run_cluster(*trial.spec, *traffic, run);
    return measure(std::span(result.outcomes).subspan(count.skipped), options_.slo).joint_met;
  }
  Tally tally(trial, options_, count);
  run.enough = [&](uint64_t request, const Outcome& o) { return tally.enough(request, o); };
  run_cluster(*trial.spec, *traffic, run);
  return tally.attained();
}

std::vector<double> Trials::attained(const std::vector<Trial>& trials) {
  std::vector<double> shares(trials.size());
  std::atomic<size_t> next{0};
  std::atomic<uint64_t> ended{0};
  std::mutex mutex;
  std::condition_variable done;
  size_t finished = 0;
  const auto work = [&] {
    for (size_t i = next++; i < trials.size(); i = next++) {
      shares[i] = run(trials[i], ended);
      const std::lock_guard lock(mutex);
      ++finished;
      done.notify_one();
    }
  };
  std::vector<std::thread> threads;
  const size_t most = std::min<size_t>(std::max(1u, options_.threads), trials.size());
  for (size_t i = 0; i < most; ++i) threads.emplace_back(work);
  {
    std::unique_lock lock(mutex);
    while (!done.wait_for(lock, kProgressEvery, [&] { return finished == trials.size(); })) {
      if (options_.progress) options_.progress(simulations_ + finished, requests_ + ended);
    }
  }
  for (std::thread& t : threads) t.join();
  simulations_ += trials.size();
  requests_ += ended;
  return shares;
}

// All searches take their steps together, so that there is enough to do for all threads.
std::vector<double> Trials::goodputs(const std::vector<Search>& searches) {
  std::vector<RateSearch> states;
  for (const Search& s : searches) states.emplace_back(s.trial.rate, s.most, s.tolerance);
  for (;;) {
    std::vector<Trial> trials;
    std::vector<std::vector<double>> wanted;
    for (size_t i = 0; i < states.size(); ++i) {
      wanted.push_back(states[i].wanted());
      for (const double rate : wanted.back()) {
        trials.push_back(searches[i].trial);
        trials.back().rate = rate;
        trials.back().indifferent = 0;
      }
    }
    if (trials.empty()) break;
    const std::vector<double> shares = attained(trials);
    size_t at = 0;
    for (size_t i = 0; i < states.size(); ++i) {
      if (wanted[i].empty()) continue;
      std::vector<bool> holds;
      for (size_t k = 0; k < wanted[i].size(); ++k) holds.push_back(shares[at++] >= options_.share);
      states[i].tell(wanted[i], holds);
    }
  }
  std::vector<double> best;
  for (const RateSearch& s : states) best.push_back(s.best());
  return best;
}

}  // namespace baton::sim
