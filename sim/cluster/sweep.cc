#include "sim/cluster/sweep.h"

#include <time.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "sim/cluster/bound.h"
#include "sim/cluster/phases.h"

namespace baton::sim {
namespace {

constexpr double kTolerance = 1.02;
constexpr int kMostDoublings = 12;
constexpr auto kProgressEvery = std::chrono::milliseconds(500);

// That this thread has had of a core.
double core_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

struct Job {
  size_t point = 0, run = 0;
  Traffic traffic;
  uint64_t seed = 0;
};

class Pool {
 public:
  Pool(const ClusterSpec& spec, const TraceFile& trace, const std::vector<Job>& jobs,
       const SweepOptions& options, std::vector<SweepPoint>& points)
      : spec_(spec), trace_(trace), jobs_(jobs), options_(options), points_(points) {
    for (const Job& job : jobs) requests_ += job.traffic.size();
  }

  void run() {
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < std::max(1u, options_.threads); ++i) {
      threads.emplace_back([this] { work(); });
    }
    {
      std::unique_lock lock(mutex_);
      while (!done_.wait_for(lock, kProgressEvery, [this] { return finished_ == jobs_.size(); })) {
        if (options_.progress) options_.progress(ended_, requests_);
      }
    }
    for (std::thread& t : threads) t.join();
  }

 private:
  void work() {
    for (size_t i = next_++; i < jobs_.size(); i = next_++) {
      const Job& job = jobs_[i];
      ClusterRunOptions run = options_.run;
      run.seed = job.seed;
      run.ended = &ended_;
      const Bounds bounds = bounds_of(job.traffic, run);
      const double begun = core_seconds();
      ClusterResult result = run_cluster(spec_, job.traffic, run);
      const double core = core_seconds() - begun;
      Measures measures = measure(result.outcomes, options_.slo);
      const double share = measures.rate / static_cast<double>(job.traffic.size());
      measures.bound = bounds.known * share;
      measures.blind_bound = bounds.blind * share;
      std::vector<Measures> phases = measure_phases(result.outcomes, trace_, options_.slo);
      const std::lock_guard lock(mutex_);
      SweepPoint& point = points_[job.point];
      point.runs[job.run] = measures;
      point.phases[job.run] = std::move(phases);
      point.moments[job.run] = std::move(result.moments);
      point.flips += result.flips.size();
      point.events += result.events;
      point.tokens += result.tokens;
      point.failures += result.failures;
      point.retries += result.retries;
      point.preemptions += result.preemptions;
      point.simulated_seconds += to_seconds(result.simulated);
      point.core_seconds += core;
      ++finished_;
      done_.notify_one();
    }
  }

  // Requests that anybody could have met, and who knows no lengths.
  struct Bounds {
    double known = 0, blind = 0;
  };
  // Turns away those whom nobody who knows all would serve, if that is asked for.
  Bounds bounds_of(const Traffic& traffic, ClusterRunOptions& run) const {
    if (!options_.bound && options_.clairvoyant == 0) return {};
    BoundOptions how{options_.slo, run.placement.most_local_tokens};
    const Bound known = most_met(spec_, traffic, how);
    if (options_.clairvoyant > 0) {
      for (const double cost : known.costs) {
        run.turned_away.push_back(cost > options_.clairvoyant);
      }
    }
    how.known_outputs = false;
    return {known.requests, options_.bound ? most_met(spec_, traffic, how).requests : 0};
  }

  const ClusterSpec& spec_;
  const TraceFile& trace_;
  const std::vector<Job>& jobs_;
  const SweepOptions& options_;
  std::vector<SweepPoint>& points_;
  uint64_t requests_ = 0;
  std::atomic<size_t> next_{0};
  std::atomic<uint64_t> ended_{0};
  std::mutex mutex_;
  std::condition_variable done_;
  size_t finished_ = 0;
};

}  // namespace

Estimate SweepPoint::of(double Measures::*what) const {
  std::vector<double> values;
  for (const Measures& m : runs) values.push_back(m.*what);
  return estimate(values);
}

Estimate SweepPoint::of(Quantiles Measures::*which, double Quantiles::*what) const {
  std::vector<double> values;
  for (const Measures& m : runs) values.push_back(m.*which.*what);
  return estimate(values);
}

result<std::vector<SweepPoint>> sweep(const ClusterSpec& spec, const TraceFile& trace,
                                      const std::vector<double>& rates,
                                      const SweepOptions& options) {
  std::vector<SweepPoint> points(rates.size());
  std::vector<Job> jobs;
  const size_t runs = options.seeds.last - options.seeds.first + 1;
  for (size_t p = 0; p < rates.size(); ++p) {
    points[p].rate = rates[p];
    points[p].runs.resize(runs);
    points[p].phases.resize(runs);
    points[p].moments.resize(runs);
    for (size_t r = 0; r < runs; ++r) {
      const uint64_t seed = options.seeds.first + r;
      BATON_TRY(Traffic traffic,
                Traffic::make(trace, {options.arrivals, rates[p], options.count, seed}));
      jobs.push_back({p, r, std::move(traffic), seed});
    }
  }
  Pool(spec, trace, jobs, options, points).run();
  return points;
}

result<GoodputSearch> find_goodput(const ClusterSpec& spec, const TraceFile& trace, double share,
                                   double start, const SweepOptions& options) {
  GoodputSearch search;
  const auto holds = [&](double rate) -> result<bool> {
    BATON_TRY(std::vector<SweepPoint> tried, sweep(spec, trace, {rate}, options));
    search.points.push_back(std::move(tried.front()));
    return search.points.back().joint() >= share;
  };
  double low = 0, high = 0;  // holds, does not
  double rate = start;
  for (int i = 0; i < kMostDoublings && (low == 0 || high == 0); ++i) {
    BATON_TRY(const bool held, holds(rate));
    (held ? low : high) = rate;
    rate = low == 0 ? rate / 2 : rate * 2;
  }
  while (low > 0 && high > low * kTolerance) {
    BATON_TRY(const bool held, holds((low + high) / 2));
    (held ? low : high) = (low + high) / 2;
  }
  std::ranges::sort(search.points, {}, &SweepPoint::rate);
  for (size_t i = 0; low > 0 && i < search.points.size(); ++i) {
    if (search.points[i].rate == low) search.best = static_cast<int>(i);
  }
  return search;
}

}  // namespace baton::sim
