#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <string>
#include <thread>

#include "cli/commands.h"
#include "common/base/config.h"
#include "common/base/log.h"
#include "sim/run.h"

namespace baton::cli {
namespace {

struct SimSettings {
  bool faults = false;
  std::string seeds = "1..100";
  uint32_t jobs = 0;
  uint32_t requests = 16;
  bool trace = false;
};

void add_options(Options& options, SimSettings& s) {
  options.add("faults", &s.faults, "Run a whole cluster in which things go wrong");
  options.add("seeds", &s.seeds, "Which runs: A..B, both included; a seed is always the same run");
  options.add("jobs", &s.jobs, "Threads; 0: one a processor");
  options.add("requests", &s.requests, "Requests in each run");
  options.add("trace", &s.trace, "Tell what happens, a line each; for one seed");
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
  if (!s.faults) return bad("--faults is needed: it is all that can be simulated yet");
  if (s.jobs > 1024) return bad("--jobs is not in [0, 1024]");
  if (s.requests == 0 || s.requests > 10'000) return bad("--requests is not in [1, 10000]");
  BATON_TRY(const sim::SeedRange range, parse_seeds(s.seeds));
  if (s.trace && range.first != range.last) return bad("--trace is for one seed: --seeds N..N");
  return range;
}

void tell_failure(uint64_t seed, const sim::RunResult& run, uint32_t requests) {
  fmt::print(
      "seed {} failed at {:.6f} s, event {}: {}; replay: baton sim --faults --seeds {}..{} "
      "--requests {} --trace\n",
      seed, to_seconds(run.at), run.events, run.violation, seed, seed, requests);
  std::fflush(stdout);
}

void tell_counts(const sim::SeedsResult& all) {
  const sim::Tally& t = all.tally;
  fmt::print(
      "{} seeds, {} failed, {} events, {} requests ({} answered, {} cancelled, {} errors, {} lost "
      "with their router), {} retries ({} by another reader), {} resumes, {} preemptions, {} "
      "digests that did not match; "
      "faults:",
      all.seeds, all.failed, all.events, t.requests, t.answered, t.cancelled, t.errors,
      t.lost_with_router, t.retries, t.retargets, t.resumes, t.preemptions, all.mismatches);
  for (size_t f = 0; f < sim::kNumFaults; ++f) {
    fmt::print("{} {} {}", f == 0 ? "" : ",", name(static_cast<sim::Fault>(f)), all.faults[f]);
  }
  fmt::print("\n");
}

int run_one(uint64_t seed, const SimSettings& s) {
  const sim::RunResult run =
      sim::run_world({.seed = seed, .requests = s.requests, .trace = stdout});
  if (!run.violation.empty()) tell_failure(seed, run, s.requests);
  return run.violation.empty() ? 0 : 1;
}

}  // namespace

int run_sim(const std::vector<std::string>& args) {
  SimSettings settings;
  Options options("sim",
                  "The cluster on a virtual clock. The routers' and workers' own code, among "
                  "messages that are lost, late or doubled, memory that is wrong, and processes "
                  "that die or sleep. Ends with 1 if anything was wrong.");
  add_options(options, settings);
  const auto outcome = options.parse(args);
  if (outcome && *outcome == Options::Outcome::kDone) return 0;
  const auto range = outcome ? check(settings) : result<sim::SeedRange>(outcome.error());
  if (!range) {
    std::fprintf(stderr, "baton sim: %s\n", range.error().message.c_str());
    return 2;
  }
  // What goes wrong there is the point; where it is traced, what the processes say is part of it.
  spdlog::set_level(settings.trace ? spdlog::level::info : spdlog::level::off);
  if (settings.trace) return run_one(range->first, settings);
  const uint32_t processors = std::max(1u, std::thread::hardware_concurrency());
  const uint32_t jobs = settings.jobs == 0 ? processors : settings.jobs;
  const sim::SeedsResult all = sim::run_seeds(*range, settings.requests, jobs,
                                              [&](uint64_t seed, const sim::RunResult& run) {
                                                tell_failure(seed, run, settings.requests);
                                              });
  tell_counts(all);
  return all.failed == 0 ? 0 : 1;
}

}  // namespace baton::cli
