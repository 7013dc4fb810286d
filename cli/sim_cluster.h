#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/config.h"
#include "sim/run.h"

namespace baton::cli {

// `baton sim --cluster`: what a cluster would give, by the router's and workers' own code.
struct SimClusterSettings {
  std::string cluster;
  std::string trace;
  std::string policy = "goodput";
  bool admission = true;
  bool predict = true;
  std::string admit_by = "foreseen";
  uint32_t local_prefill_tokens = 512;
  double load_every_ms = 50;
  double believed = 1;
  std::vector<std::string> slo;
  std::string arrivals = "auto";
  std::vector<std::string> rates;
  double find_goodput = 0;
  double deadline = 3600;
  bool known_lengths = false;
  double moments_every = 0;
  bool bound = false;
  double clairvoyant = 0;
  std::string step_times;
  std::string json, svg, log_decisions;
};

void add_sim_cluster_options(Options& options, SimClusterSettings& settings);

// Prints the table to stdout and what goes wrong to stderr; the exit code.
int run_sim_cluster(const SimClusterSettings& settings, sim::SeedRange seeds, uint64_t requests,
                    uint32_t jobs);

}  // namespace baton::cli
