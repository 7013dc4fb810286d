#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "sim/cluster/cluster_run.h"
#include "sim/cluster/measures.h"

namespace baton::sim {

// What all simulations of a plan have in common.
struct TrialOptions {
  Slo slo;
  Arrivals arrivals;
  double share = 0.9;        // of requests that must meet both targets
  uint64_t requests = 3000;  // at least so many are measured
  uint64_t most_requests = 40'000;
  uint64_t seed = 1;
  unsigned threads = 1;
  // Called now and then by the calling thread.
  std::function<void(uint64_t simulations, uint64_t requests)> progress;
};

// One simulation of a cluster at a rate. Requests are not measured before it is as full as it will
// be: for as long as one may take that meets its targets.
struct Trial {
  const ClusterSpec* spec = nullptr;
  const TraceFile* trace = nullptr;
  double rate = 0;
  uint64_t seed = 0;               // 0: that of the options
  uint32_t most_local_tokens = 0;  // prompts that a decode worker may compute
  bool admission = true;           // what would miss its targets is refused
  uint32_t times = 1;              // as many requests are measured
  // How far beside the share that is wanted, in [0, 1], what is met need not be known: a simulation
  // ends once it is certain that the share holds, or that more than this is lacking.
  double indifferent = 1;
};

// Seeks the highest rate that holds, two rates at a time: upwards or downwards from `start` until
// it is bracketed, then by thirds to within `tolerance`. Never asks above `most`, and
// gives up a hundred times below `start`.
class RateSearch {
 public:
  RateSearch(double start, double most, double tolerance);

  bool done() const;
  std::vector<double> wanted() const;  // ascending; empty if done
  // For each of wanted(): whether it holds. What is above one that does not, does not either.
  void tell(const std::vector<double>& rates, const std::vector<bool>& holds);
  double best() const { return low_; }  // 0: none held

 private:
  double start_, tolerance_;
  double low_ = 0;  // holds
  double high_;     // does not, or is the bound
  int rounds_ = 0;
};

// Runs simulations, as many at once as there are threads. What comes out does not depend on that.
class Trials {
 public:
  explicit Trials(TrialOptions options) : options_(std::move(options)) {}

  // The share of requests that met both targets, of each. Of a simulation that ended early: where
  // it holds, at least options.share; else of those that had ended.
  std::vector<double> attained(const std::vector<Trial>& trials);
  struct Search {
    Trial trial;  // its rate: where to start
    double most = std::numeric_limits<double>::infinity();
    double tolerance = 1.02;
  };
  // The highest rate at which options.share is met, of each; 0: none is.
  std::vector<double> goodputs(const std::vector<Search>& searches);

  const TrialOptions& options() const { return options_; }
  uint64_t simulations() const { return simulations_; }
  uint64_t requests() const { return requests_; }

 private:
  double run(const Trial& trial, std::atomic<uint64_t>& ended) const;

  const TrialOptions options_;
  uint64_t simulations_ = 0, requests_ = 0;
};

}  // namespace baton::sim
