#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>

#include "sim/world.h"

namespace baton::sim {

struct SeedRange {
  uint64_t first = 1, last = 1;  // both included
};

struct SeedsResult {
  uint64_t seeds = 0, failed = 0, events = 0, mismatches = 0, flips = 0;
  Tally tally;
  FaultCounts faults{};
};

// Runs every seed, on so many threads. A failing seed is told at once, by whichever thread has it,
// one at a time.
SeedsResult run_seeds(SeedRange range, uint32_t requests, unsigned threads,
                      const std::function<void(uint64_t seed, const RunResult&)>& on_failed);

}  // namespace baton::sim
