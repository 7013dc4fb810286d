#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "kvtransfer/handoff_driver.h"
#include "kvtransfer/loopback_transport.h"

namespace baton::kvtransfer {

// How one run goes wrong.
struct SimFaults {
  LoopbackFaults network;
  double damage_source = 0;  // a request's KV is changed after its digests were taken
  double cancel = 0;         // a request is given up at a random moment, by one side or both
  double worker_dies = 0;    // a second, each; replaced a little later
  double worker_pauses = 0;  // a second, each; for longer or shorter than the lease
  double refuse = 0;         // a decode worker has no room at first
};

struct SimConfig {
  uint64_t seed = 1;
  uint32_t requests = 40;
  uint32_t sources = 2, sinks = 2;
  SimFaults faults;
  bool mixed_blocks = false;  // workers differ in block size
  // Caches are in GPUs, and what would befall a get befalls a read there. Not with mixed_blocks.
  bool gpus = false;
};

struct SimResult {
  uint32_t joined = 0, given_up = 0, attempts = 0, retargets = 0;
  uint64_t mismatches = 0, rereads = 0, ignored = 0, late_reads = 0, events = 0;
  std::vector<std::string> violations;  // what must never happen
};

// Runs `requests` requests through real drivers over a loopback hub on a virtual clock, with a
// router that retries, and checks what docs/handoff.md promises after every event.
SimResult run_sim(const SimConfig& config);

}  // namespace baton::kvtransfer
