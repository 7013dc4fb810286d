#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "sim/cluster/cluster_run.h"
#include "sim/cluster/measures.h"
#include "sim/run.h"

namespace baton::sim {

struct SweepOptions {
  ClusterRunOptions run;  // its seed is set for each run
  Arrivals arrivals;
  uint64_t count = 0;  // requests of a run; 0: as many as the trace has
  SeedRange seeds;
  Slo slo;
  bool bound = false;  // the most that anybody could have met is told, too (bound.h)
  // Above 0: who pays more than this at the bound's prices is turned away as it comes, so that the
  // rest is served in time: what somebody who knew all of it beforehand can do.
  double clairvoyant = 0;
  unsigned threads = 1;
  // Called now and then by the calling thread: requests that have ended, of all that will be.
  std::function<void(uint64_t ended, uint64_t all)> progress;
};

// All runs of one rate.
struct SweepPoint {
  double rate = 0;                            // asked for; 0: the trace's
  std::vector<Measures> runs;                 // a seed each
  std::vector<std::vector<Measures>> phases;  // [run][phase of the trace]
  std::vector<std::vector<Moment>> moments;   // [run][moment]; empty ones: none were asked for
  uint64_t events = 0, tokens = 0, failures = 0, retries = 0, preemptions = 0, flips = 0;
  double simulated_seconds = 0, core_seconds = 0;  // of all runs together

  Estimate of(double Measures::*what) const;
  Estimate of(Quantiles Measures::*which, double Quantiles::*what) const;
  double joint() const { return of(&Measures::joint_met).mean; }
};

// Runs all rates and seeds, each run by one thread; what comes out does not depend on how many
// there are. kInvalidArgument: Traffic::make's.
result<std::vector<SweepPoint>> sweep(const ClusterSpec& spec, const TraceFile& trace,
                                      const std::vector<double>& rates,
                                      const SweepOptions& options);

// The highest rate at which at least `share` of the requests meet both targets: doubled or halved
// from `start` until it is bracketed, then bisected to within 2 %. All points that were tried, by
// rate; `best` is the index of the highest that holds, or -1 if none did.
struct GoodputSearch {
  std::vector<SweepPoint> points;
  int best = -1;
};
result<GoodputSearch> find_goodput(const ClusterSpec& spec, const TraceFile& trace, double share,
                                   double start, const SweepOptions& options);

}  // namespace baton::sim
