#pragma once

#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sim/plan/bounds.h"
#include "sim/plan/contest.h"

namespace baton::sim {

struct PlanOptions {
  TrialOptions trials;
  uint32_t gpus = 8;                                        // at most so many
  double budget = std::numeric_limits<double>::infinity();  // at most this cost
  // Where KV goes. kHigh: between any two workers, over their NICs. kLow: within a node only, each
  // node being a cluster of its own. kAuto: whichever is better.
  enum class Affinity : uint8_t { kAuto, kHigh, kLow };
  Affinity affinity = Affinity::kAuto;
  std::vector<uint32_t> mixed_chunks = {256, 512, 1024, 2048, 4096};
  uint32_t split_chunk = 4096;
  // Called when something else begins, by the calling thread.
  std::function<void(std::string_view)> stage;
};

// What one worker gives that does one phase, among a few of its kind and nothing else.
struct PhaseAlone {
  const WorkerOption* worker = nullptr;
  Phase phase = Phase::kBoth;
  uint32_t chunk_tokens = 0;
  bool within_node = false;  // KV comes over the links within a node
  double bound = 0;          // requests a second that no such worker exceeds
  double goodput = 0;        // requests a second; 0: it meets the targets of too few
};

struct Verified {
  std::vector<double> attained;  // at the goodput found, of other requests: a seed each
};

struct PlanResult {
  std::optional<Winner> split, mixed;
  Verified split_verified, mixed_verified;
  double impossible = 0;  // of the requests, in [0, 1]: late even on idle workers
  std::vector<PhaseAlone> alone;
  uint64_t simulations = 0, requests = 0;

  // The better one; of equals the one that is not split. None: nobody can.
  const std::optional<Winner>& best() const;
};

// The placement of at most options.gpus GPUs that serves the highest rate of which options.share
// meet both targets, by the search of DistServe (Zhong et al., OSDI 2024, algorithms 1 and 2): each
// phase alone, replicated by the ratio of what they give, and then whole clusters, simulated. The
// same arguments give the same plan, with any number of threads. Blocks for seconds to minutes.
// kInvalidArgument: the trace has no arrivals of the kind asked for.
result<PlanResult> make_plan(const Hardware& table, const TraceFile& trace,
                             const PlanOptions& options);

// Every placement that make_plan() chooses from, with nothing known of it. For tests.
std::vector<Layout> all_layouts(const Hardware& table, const PlanOptions& options);

}  // namespace baton::sim
