#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/base/clock.h"
#include "sim/cluster/frontend.h"

namespace baton::sim {

// What requests were promised.
struct Slo {
  Duration ttft = milliseconds(500);  // from the scheduled arrival to the first token
  Duration tpot = milliseconds(50);   // (last token - first) / (tokens - 1), of one token: 0
};

struct Quantiles {
  double mean = 0, p50 = 0, p90 = 0, p99 = 0, most = 0;  // seconds
};
// Nearest rank. Of nothing: zeros. Sorts `seconds`.
Quantiles quantiles_of(std::vector<double>& seconds);

// One run. A request that was refused or failed missed everything; quantiles are of those answered.
struct Measures {
  uint64_t requests = 0, answered = 0, refused = 0, failed = 0;
  double ttft_met = 0, tpot_met = 0, joint_met = 0;  // of all, in [0, 1]
  Quantiles ttft, tpot, worst_gap;
  double rate = 0;     // requests a second that came
  double goodput = 0;  // requests a second that met both
  // The most that could have, and that could have without knowing lengths (bound.h); 0: not asked.
  double bound = 0, blind_bound = 0;
  double tokens_a_second = 0;  // of output, while requests came
};

Measures measure(std::span<const Outcome> outcomes, const Slo& slo);
double tpot_of(const Outcome& outcome);  // seconds
bool met_both(const Outcome& outcome, const Slo& slo);

// Of several runs: the mean, and half the width of its 95 % interval (Student's t; 0 of one run).
struct Estimate {
  double mean = 0, half_width = 0;
};
Estimate estimate(std::span<const double> values);

}  // namespace baton::sim
