#include "sim/run.h"

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

namespace baton::sim {

SeedsResult run_seeds(SeedRange range, uint32_t requests, unsigned threads,
                      const std::function<void(uint64_t seed, const RunResult&)>& on_failed) {
  SeedsResult all;
  std::atomic<uint64_t> next{range.first};
  std::mutex mutex;
  const auto work = [&] {
    for (uint64_t seed = next++; seed <= range.last; seed = next++) {
      const RunResult one = run_world({.seed = seed, .requests = requests});
      const std::lock_guard lock(mutex);
      ++all.seeds;
      all.events += one.events;
      all.mismatches += one.mismatches;
      all.flips += one.flips;
      all.tally.add(one.tally);
      for (size_t f = 0; f < kNumFaults; ++f) all.faults[f] += one.faults[f];
      if (one.violation.empty()) continue;
      ++all.failed;
      on_failed(seed, one);
    }
  };
  std::vector<std::thread> workers;
  for (unsigned i = 1; i < threads; ++i) workers.emplace_back(work);
  work();
  for (std::thread& w : workers) w.join();
  return all;
}

}  // namespace baton::sim
