#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "sim/cluster/cluster_spec.h"
#include "sim/cluster/frontend.h"
#include "sim/cluster/step_times.h"
#include "sim/cluster/swing.h"
#include "sim/cluster/traffic.h"

namespace baton::sim {

struct ClusterRunOptions {
  router::DispatchLimits limits;
  router::PlacementOptions placement;
  router::SloTarget promise;               // to each request; without admission, too
  const StepRecordings* times = nullptr;   // null: the profiles'
  bool known_lengths = false;              // requests ask for just as many tokens as they get
  Duration load_every = milliseconds(50);  // how old a router's view of a worker gets
  // What workers say that their steps take, as a share of what they do; not with `times`.
  double believed = 1;
  uint64_t seed = 1;                  // of failures, and of workers' ticks
  Duration deadline = seconds(3600);  // of a request, from its arrival
  Duration moments_every{};           // how often the result has a moment; 0: it has none
  // [requests of the traffic], or none: who is refused as it comes, whatever the router would do.
  std::vector<bool> turned_away;
  std::FILE* decisions = nullptr;          // a line each: what the router decided
  std::atomic<uint64_t>* ended = nullptr;  // counts requests that ended, for whoever watches
  // Called for each request that has ended; true: what is wanted is known, and the run is over;
  // those under way stay open in the result.
  std::function<bool(uint64_t request, const Outcome& outcome)> enough;
};

// A worker was told to take another role.
struct FlipAt {
  Duration at{};  // from the first possible arrival
  std::string worker;
  proto::Role to = proto::ROLE_UNSPECIFIED;
};

struct ClusterResult {
  std::vector<Outcome> outcomes;  // [requests of the traffic]
  Duration simulated{};           // from the first possible arrival to the last end
  uint64_t events = 0;            // of the virtual clock
  uint64_t tokens = 0;            // heard by clients
  uint64_t reads = 0;
  double read_bytes = 0;  // of KV
  uint64_t failures = 0;  // of workers
  uint64_t retries = 0, preemptions = 0;
  std::vector<FlipAt> flips;
  std::vector<Moment> moments;  // while requests come
};

// Plays a traffic on a cluster in virtual time: the servers' dispatcher, schedulers, accounting and
// hand-off; made up are steps (TimedEngine), links (Fabric) and messages (a latency). The same
// arguments give the same result on every machine. One thread; allocates as it goes.
ClusterResult run_cluster(const ClusterSpec& spec, const Traffic& traffic,
                          const ClusterRunOptions& options);

}  // namespace baton::sim
