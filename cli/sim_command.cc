#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <string>
#include <thread>

#include "cli/commands.h"
#include "cli/sim_cluster.h"
#include "common/base/config.h"
#include "common/base/log.h"
#include "sim/run.h"

namespace baton::cli {
namespace {

struct SimSettings {
  bool faults = false;
  std::string seeds;
  uint32_t jobs = 0;
  uint32_t requests = 0;
  bool tell = false;
  SimClusterSettings cluster;

  uint32_t fault_requests() const { return requests == 0 ? 16 : requests; }
};

void add_options(Options& options, SimSettings& s) {
  options.add("faults", &s.faults, "Run a whole cluster in which things go wrong");
  options.add("seeds", &s.seeds,
              "Which runs: A..B, both included; a seed is always the same run. 1..100 of faults, "
              "1..1 of a cluster where it is not said");
  options.add("jobs", &s.jobs, "Threads; 0: one a processor");
  options.add("requests", &s.requests,
              "Requests in each run; 0: 16 among faults, of a cluster as many as the trace has");
  options.add("tell", &s.tell, "With --faults: tell what happens, a line each; for one seed");
  add_sim_cluster_options(options, s.cluster);
}

result<sim::SeedRange> parse_seeds(const std::string& text) {
  sim::SeedRange range;
  const char* const end = text.data() + text.size();
  const auto first = std::from_chars(text.data(), end, range.first);
  const bool dots =
      first.ec == std::errc() && end - first.ptr > 2 && first.ptr[0] == '.' && first.ptr[1] == '.';
  const auto last =
      dots ? std::from_chars(first.ptr + 2, end, range.last) : std::from_chars_result{end, {}};
  if (!dots || last.ec != std::errc() || last.ptr != end || range.last < range.first ||
      range.last == UINT64_MAX) {
    return error(Errc::kInvalidArgument, "--seeds '" + text + "' is not of the form A..B");
  }
  return range;
}

result<sim::SeedRange> check(const SimSettings& s) {
  const auto bad = [](std::string what) { return error(Errc::kInvalidArgument, std::move(what)); };
  if (s.faults == !s.cluster.cluster.empty()) return bad("one of --faults and --cluster is needed");
  if (s.jobs > 1024) return bad("--jobs is not in [0, 1024]");
  const uint32_t most = s.faults ? 10'000 : 100'000'000;
  if (s.requests > most) return bad(fmt::format("--requests is not in [0, {}]", most));
  BATON_TRY(const sim::SeedRange range, parse_seeds(!s.seeds.empty() ? s.seeds
                                                    : s.faults       ? "1..100"
                                                                     : "1..1"));
  if (s.tell && range.first != range.last) return bad("--tell is for one seed: --seeds N..N");
  if (s.tell && !s.faults) return bad("--tell is for --faults");
  if (!s.faults && range.last - range.first >= 10'000) return bad("--seeds are more than 10000");
  return range;
}

void tell_failure(uint64_t seed, const sim::RunResult& run, uint32_t requests) {
  fmt::print(
      "seed {} failed at {:.6f} s, event {}: {}; replay: baton sim --faults --seeds {}..{} "
      "--requests {} --tell\n",
      seed, to_seconds(run.at), run.events, run.violation, seed, seed, requests);
  std::fflush(stdout);
}

void tell_counts(const sim::SeedsResult& all) {
  const sim::Tally& t = all.tally;
  fmt::print(
      "{} seeds, {} failed, {} events, {} requests ({} answered, {} cancelled, {} errors, {} lost "
      "with their router), {} retries ({} by another reader), {} resumes, {} preemptions, {} "
      "digests that did not match, {} roles changed; "
      "faults:",
      all.seeds, all.failed, all.events, t.requests, t.answered, t.cancelled, t.errors,
      t.lost_with_router, t.retries, t.retargets, t.resumes, t.preemptions, all.mismatches,
      all.flips);
  for (size_t f = 0; f < sim::kNumFaults; ++f) {
    fmt::print("{} {} {}", f == 0 ? "" : ",", name(static_cast<sim::Fault>(f)), all.faults[f]);
  }
  fmt::print("\n");
}

int run_one(uint64_t seed, const SimSettings& s) {
  const sim::RunResult run =
      sim::run_world({.seed = seed, .requests = s.fault_requests(), .trace = stdout});
  if (!run.violation.empty()) tell_failure(seed, run, s.fault_requests());
  return run.violation.empty() ? 0 : 1;
}

int run_faults(sim::SeedRange range, const SimSettings& s, uint32_t jobs) {
  const sim::SeedsResult all = sim::run_seeds(range, s.fault_requests(), jobs,
                                              [&](uint64_t seed, const sim::RunResult& run) {
                                                tell_failure(seed, run, s.fault_requests());
                                              });
  tell_counts(all);
  return all.failed == 0 ? 0 : 1;
}

}  // namespace

int run_sim(const std::vector<std::string>& args) {
  SimSettings settings;
  Options options("sim",
                  "The cluster on a virtual clock, with the routers' and workers' own code. "
                  "--faults: among messages that are lost, late or doubled, memory that is wrong, "
                  "and processes that die or sleep; ends with 1 if anything was wrong. --cluster: "
                  "how many requests of a trace it serves in time.");
  add_options(options, settings);
  const auto outcome = options.parse(args);
  if (outcome && *outcome == Options::Outcome::kDone) return 0;
  const auto range = outcome ? check(settings) : result<sim::SeedRange>(outcome.error());
  if (!range) {
    std::fprintf(stderr, "baton sim: %s\n", range.error().message.c_str());
    return 2;
  }
  // What goes wrong there is the point; where it is told, what the processes say is part of it.
  spdlog::set_level(settings.tell ? spdlog::level::info : spdlog::level::off);
  const uint32_t processors = std::max(1u, std::thread::hardware_concurrency());
  const uint32_t jobs = settings.jobs == 0 ? processors : settings.jobs;
  if (!settings.faults) return run_sim_cluster(settings.cluster, *range, settings.requests, jobs);
  return settings.tell ? run_one(range->first, settings) : run_faults(*range, settings, jobs);
}

}  // namespace baton::cli
