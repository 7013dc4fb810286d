#include <fmt/format.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>

#include "cli/commands.h"
#include "cli/sim_words.h"
#include "common/base/config.h"
#include "common/base/log.h"
#include "sim/plan/plan_report.h"

namespace baton::cli {
namespace {

struct PlanSettings {
  std::string hardware, model, trace;
  std::vector<std::string> slo;
  std::string arrivals = "auto";
  uint32_t gpus = 8;
  double budget = 0;
  double share = 0.9;
  std::string affinity = "auto";
  std::vector<std::string> chunks = {"256", "512", "1024", "2048", "4096"};
  uint32_t split_chunk = 4096;
  uint64_t requests = 3000;
  uint64_t seed = 1;
  uint32_t jobs = 0;
  std::string write, json;
};

void add_options(Options& options, PlanSettings& s) {
  options.add("hardware", &s.hardware, "What workers there can be: a YAML table (deploy/plans)");
  options.add("model", &s.model,
              "The model, for workers that are not measured: a YAML file (deploy/plans/models)");
  options.add("trace", &s.trace, "The traffic, as of baton sim: a file, or lengths:IN,OUT");
  options.add("slo", &s.slo,
              "What requests must meet, ttft=SECONDS,tpot=SECONDS; ttft=0.5,tpot=0.05 where it is "
              "not said");
  options.add("arrivals", &s.arrivals,
              "When requests come: trace, poisson or gamma:CV; auto: the trace's, or else poisson");
  options.add("gpus", &s.gpus, "At most so many GPUs");
  options.add("budget", &s.budget, "At most this cost, in the table's unit; 0: any");
  options.add("share", &s.share, "Of the requests, how many must meet both targets");
  options.add("affinity", &s.affinity,
              "Where KV goes: high (between any two workers), low (within a node only) or auto "
              "(whichever is better)");
  options.add("chunks", &s.chunks, "Prompt tokens in a step, to be tried with mixed workers");
  options.add("split-chunk", &s.split_chunk, "Prompt tokens in a step of prefill workers");
  options.add("requests", &s.requests, "At least so many requests are measured in each simulation");
  options.add("seed", &s.seed, "Of the requests; a seed is always the same plan");
  options.add("jobs", &s.jobs, "Threads; 0: one a processor");
  options.add("write", &s.write,
              "A file for the cluster, which baton sim --cluster takes; derived profiles go beside "
              "it");
  options.add("json", &s.json, "A file for all figures");
}

Error bad(std::string what) { return error(Errc::kInvalidArgument, std::move(what)); }

// Everything that a plan is made from.
struct PlanInput {
  sim::Hardware hardware;
  sim::TraceFile trace;
  sim::PlanOptions options;
};

status set_options(const PlanSettings& s, sim::PlanOptions& o) {
  using Affinity = sim::PlanOptions::Affinity;
  if (s.gpus < 1 || s.gpus > 4096) return bad("--gpus is not in [1, 4096]");
  if (!(s.share > 0 && s.share <= 0.999)) return bad("--share is not in (0, 0.999]");
  if (s.requests < 100 || s.requests > 1'000'000) return bad("--requests is not in [100, 1000000]");
  if (!(s.budget >= 0)) return bad("--budget is less than 0");
  if (s.jobs > 1024) return bad("--jobs is not in [0, 1024]");
  o.gpus = s.gpus;
  if (s.budget > 0) o.budget = s.budget;
  o.trials.share = s.share;
  o.trials.requests = s.requests;
  o.trials.most_requests = std::max<uint64_t>(o.trials.most_requests, 2 * s.requests);
  o.trials.seed = s.seed;
  o.trials.threads = s.jobs == 0 ? std::max(1u, std::thread::hardware_concurrency()) : s.jobs;
  if (s.affinity == "high") {
    o.affinity = Affinity::kHigh;
  } else if (s.affinity == "low") {
    o.affinity = Affinity::kLow;
  } else if (s.affinity != "auto") {
    return bad("--affinity is none of auto, high and low");
  }
  o.split_chunk = s.split_chunk;
  o.mixed_chunks.clear();
  for (const std::string& chunk : s.chunks) {
    BATON_TRY(const double tokens, parse_number(chunk, "chunks"));
    o.mixed_chunks.push_back(static_cast<uint32_t>(std::min(tokens, 1e8)));
  }
  return {};
}

result<PlanInput> read_input(const PlanSettings& s) {
  if (s.hardware.empty()) return bad("--hardware is needed: a table of workers");
  if (s.trace.empty()) return bad("--trace is needed: a file, or lengths:IN,OUT");
  PlanInput in;
  std::optional<sim::ModelShape> model;
  if (!s.model.empty()) {
    BATON_TRY(model, sim::read_model_shape(s.model));
  }
  BATON_TRY(in.hardware, sim::read_hardware(s.hardware, model));
  BATON_TRY(in.trace, sim::read_trace(s.trace));
  BATON_CHECK_OK(set_options(s, in.options));
  sim::TrialOptions& trials = in.options.trials;
  BATON_TRY(trials.slo, parse_slo(s.slo));
  if (s.arrivals == "auto") {
    trials.arrivals.kind =
        in.trace.has_arrivals ? sim::Arrivals::Kind::kTrace : sim::Arrivals::Kind::kPoisson;
  } else {
    BATON_TRY(trials.arrivals, sim::parse_arrivals(s.arrivals));
  }
  const uint32_t block = in.hardware.block_tokens;
  for (const uint32_t chunk : in.options.mixed_chunks) {
    if (chunk == 0 || chunk % block != 0) return bad("--chunks are not all multiples of a block");
  }
  if (s.split_chunk == 0 || s.split_chunk % block != 0) {
    return bad("--split-chunk is not a multiple of a block");
  }
  return in;
}

// On a terminal one line that changes; else a line every ten seconds.
class Progress {
 public:
  void stage(std::string_view what) { stage_ = what; }
  void operator()(uint64_t simulations, uint64_t requests) {
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < (terminal_ ? std::chrono::milliseconds(500) : std::chrono::seconds(10)))
      return;
    last_ = now;
    fmt::print(stderr, "{}{}: {} simulations, {} requests, {:.0f} s{}", terminal_ ? "\r" : "",
               stage_, simulations, requests, to_seconds(now - begun_), terminal_ ? "   " : "\n");
    std::fflush(stderr);
    shown_ = terminal_;
  }
  ~Progress() {
    if (shown_) fmt::print(stderr, "\r{:78}\r", "");
  }

 private:
  const bool terminal_ = ::isatty(2) != 0;
  const std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point last_ = begun_;
  std::string stage_;
  bool shown_ = false;
};

void tell_use(const PlanInput& in, const sim::Layout& layout, const std::string& file) {
  const sim::Slo& slo = in.options.trials.slo;
  if (layout.units > 1) fmt::print("\nEach of the {} clusters:\n", layout.units);
  fmt::print("\nbaton up {}\n", sim::up_flags(in.hardware, layout));
  const auto worker = [&](const sim::WorkerPool& pool, const char* role) {
    if (pool.count == 0) return;
    fmt::print("baton worker {}   # {} of them, of {}\n",
               sim::worker_flags(in.hardware, layout, pool, role), pool.count,
               pool.worker->to_string());
  };
  worker(layout.prefill, "prefill");
  worker(layout.decode, "decode");
  worker(layout.mixed, "mixed");
  fmt::print("baton router --slo-class 'default: ttft={:g}ms, tpot={:g}ms'\n",
             1000 * to_seconds(slo.ttft), 1000 * to_seconds(slo.tpot));
  if (!file.empty()) fmt::print("baton sim --cluster {} --trace ...\n", file);
}

status write_cluster(const PlanSettings& s, const PlanInput& in, const sim::Layout& layout) {
  if (s.write.empty()) return {};
  const std::filesystem::path path = std::filesystem::absolute(s.write);
  const sim::ClusterFiles files =
      sim::cluster_files(in.hardware, layout, path.stem().string(), path.parent_path());
  for (const sim::PlanFile& profile : files.profiles) {
    BATON_CHECK_OK(write_text((path.parent_path() / profile.name).string(), profile.text));
  }
  return write_text(path.string(), files.cluster);
}

result<int> plan(const PlanSettings& s) {
  BATON_TRY(PlanInput in, read_input(s));
  const auto begun = std::chrono::steady_clock::now();
  result<sim::PlanResult> planned = error(Errc::kInternal, "");
  {
    Progress progress;
    in.options.stage = [&](std::string_view what) { progress.stage(what); };
    in.options.trials.progress = [&](uint64_t simulations, uint64_t requests) {
      progress(simulations, requests);
    };
    planned = sim::make_plan(in.hardware, in.trace, in.options);
  }
  if (!planned) return planned.error();
  const sim::PlanHead head{in.hardware.name, in.trace.name, &in.options};
  fmt::print("{}", sim::plan_table(head, *planned));
  BATON_CHECK_OK(write_text(s.json, sim::plan_json(head, *planned)));
  if (planned->best()) {
    BATON_CHECK_OK(write_cluster(s, in, planned->best()->layout));
    tell_use(in, planned->best()->layout, s.write);
  }
  fmt::print("\n{} simulations of {} requests in {:.0f} s\n", planned->simulations,
             planned->requests, to_seconds(std::chrono::steady_clock::now() - begun));
  return planned->best() ? 0 : 1;
}

}  // namespace

int run_plan(const std::vector<std::string>& args) {
  PlanSettings settings;
  Options options("plan",
                  "Which workers serve a traffic best: how many GPUs each, how many of them for "
                  "prompts and how many to decode, or mixed ones, found by simulating clusters. "
                  "Ends with 1 if no placement meets the targets.");
  add_options(options, settings);
  const auto outcome = options.parse(args);
  if (outcome && *outcome == Options::Outcome::kDone) return 0;
  // As in baton sim: prompts come and go by the million, and what processes say is not told.
  mallopt(M_MMAP_THRESHOLD, 1 << 26);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  spdlog::set_level(spdlog::level::off);
  const result<int> done = outcome ? plan(settings) : result<int>(outcome.error());
  if (done) return *done;
  fmt::print(stderr, "baton plan: {}\n", done.error().message);
  return 2;
}

}  // namespace baton::cli
