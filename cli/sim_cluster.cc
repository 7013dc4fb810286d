#include "cli/sim_cluster.h"

#include <fmt/format.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>

#include "cli/placement_options.h"
#include "cli/sim_words.h"
#include "sim/cluster/cluster_spec.h"
#include "sim/cluster/phases.h"
#include "sim/cluster/report.h"
#include "sim/cluster/sweep.h"
#include "sim/timeline.h"

namespace baton::cli {
namespace {

using sim::Arrivals;

Error bad(std::string what) { return error(Errc::kInvalidArgument, std::move(what)); }

status set_placement(const SimClusterSettings& s, sim::SweepOptions& sweep) {
  const auto policy = router::parse_policy(s.policy);
  if (!policy) return bad("--policy: " + policy.error().message);
  router::PlacementOptions& placement = sweep.run.placement;
  placement.policy = *policy;
  placement.admission = s.admission;
  placement.predict = s.predict;
  const auto by = std::ranges::find(router::kAdmitByNames, s.admit_by);
  if (by == std::end(router::kAdmitByNames)) {
    return bad("--admit-by is not foreseen, now or at-decode");
  }
  placement.admit_by = static_cast<router::AdmitBy>(by - std::begin(router::kAdmitByNames));
  placement.most_local_tokens = s.local_prefill_tokens;
  sweep.run.promise = {sweep.slo.ttft, sweep.slo.tpot};
  placement.classes = {{.name = "default", .target = sweep.run.promise}};
  if (!(s.load_every_ms >= 1 && s.load_every_ms <= 60'000)) {
    return bad("--load-every-ms is not in [1, 60000]");
  }
  sweep.run.load_every = from_seconds(s.load_every_ms * 1e-3);
  return {};
}

status set_views(const SimClusterSettings& s, sim::SweepOptions& sweep) {
  const bool measured = !s.step_times.empty();
  if (measured && (s.bound || s.clairvoyant > 0)) {
    return bad("--bound and --clairvoyant are of profiles' times: not with --step-times");
  }
  if (!(s.moments_every >= 0 && s.moments_every <= 3600)) {
    return bad("--moments-every is not in [0, 3600]");
  }
  if (!(s.clairvoyant >= 0)) return bad("--clairvoyant is below 0");
  if (!(s.believed >= 0.1 && s.believed <= 10)) return bad("--believed is not in [0.1, 10]");
  if (measured && s.believed != 1) return bad("--believed is not for --step-times");
  sweep.run.believed = s.believed;
  sweep.run.moments_every = from_seconds(s.moments_every);
  sweep.bound = s.bound;
  sweep.clairvoyant = s.clairvoyant;
  return {};
}

// Everything that a run needs.
struct Plan {
  sim::ClusterSpec spec;
  sim::TraceFile trace;
  std::unique_ptr<sim::StepRecordings> steps;
  std::vector<double> rates;
  sim::SweepOptions sweep;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> decisions{nullptr, std::fclose};
};

result<Plan> plan(const SimClusterSettings& s, sim::SeedRange seeds, uint64_t requests,
                  uint32_t jobs) {
  Plan p;
  if (s.trace.empty()) return bad("--trace is needed: a file, or lengths:IN,OUT");
  BATON_TRY(p.spec, sim::read_cluster(s.cluster));
  BATON_TRY(p.trace, sim::read_trace(s.trace));
  BATON_TRY(p.sweep.slo, parse_slo(s.slo));
  BATON_CHECK_OK(set_placement(s, p.sweep));
  if (s.arrivals == "auto") {
    p.sweep.arrivals.kind =
        p.trace.has_arrivals ? Arrivals::Kind::kTrace : Arrivals::Kind::kPoisson;
  } else {
    BATON_TRY(p.sweep.arrivals, sim::parse_arrivals(s.arrivals));
  }
  for (const std::string& rate : s.rates) {
    BATON_TRY(const double value, parse_number(rate, "rates"));
    p.rates.push_back(value);
  }
  if (p.rates.empty()) p.rates.push_back(0);  // the trace's
  if (!(s.find_goodput >= 0 && s.find_goodput < 1)) return bad("--find-goodput is not in [0, 1)");
  if (!(s.deadline > 0 && s.deadline <= 86'400)) return bad("--deadline is not in (0, 86400]");
  if (!s.step_times.empty()) {
    BATON_TRY(sim::StepRecordings steps, sim::StepRecordings::read(s.step_times));
    p.steps = std::make_unique<sim::StepRecordings>(std::move(steps));
  }
  p.sweep.run.times = p.steps.get();
  p.sweep.run.deadline = from_seconds(s.deadline);
  p.sweep.run.known_lengths = s.known_lengths;
  BATON_CHECK_OK(set_views(s, p.sweep));
  p.sweep.count = requests;
  p.sweep.seeds = seeds;
  p.sweep.threads = jobs;
  if (s.log_decisions.empty()) return p;
  if (p.rates.size() > 1 || seeds.first != seeds.last || s.find_goodput > 0) {
    return bad("--log-decisions is for one rate and one seed");
  }
  p.decisions.reset(std::fopen(s.log_decisions.c_str(), "w"));
  if (!p.decisions) return error(Errc::kIo, "cannot write " + s.log_decisions);
  p.sweep.run.decisions = p.decisions.get();
  return p;
}

// On a terminal one line that changes; else a line every ten seconds.
class Progress {
 public:
  void operator()(uint64_t ended, uint64_t all) {
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < (terminal_ ? std::chrono::milliseconds(500) : std::chrono::seconds(10)))
      return;
    last_ = now;
    fmt::print(stderr, "{}{} of {} requests, {:.0f} s{}", terminal_ ? "\r" : "", ended, all,
               to_seconds(now - begun_), terminal_ ? "   " : "\n");
    std::fflush(stderr);
    shown_ = terminal_;
  }
  ~Progress() {
    if (shown_) fmt::print(stderr, "\r{:60}\r", "");
  }

 private:
  const bool terminal_ = ::isatty(2) != 0;
  const std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point last_ = begun_;
  bool shown_ = false;
};

void tell_work(const std::vector<sim::SweepPoint>& points) {
  uint64_t events = 0, tokens = 0, failures = 0, retries = 0, preemptions = 0, flips = 0;
  double simulated = 0, core = 0;
  for (const sim::SweepPoint& p : points) {
    events += p.events;
    tokens += p.tokens;
    failures += p.failures;
    retries += p.retries;
    preemptions += p.preemptions;
    flips += p.flips;
    simulated += p.simulated_seconds;
    core += p.core_seconds;
  }
  fmt::print(
      "simulated {:.0f} s in {:.1f} s of a core: {} events ({:.2f} M/s), {} tokens ({:.2f} M/s)",
      simulated, core, events, static_cast<double>(events) / core / 1e6, tokens,
      static_cast<double>(tokens) / core / 1e6);
  fmt::print("; {} workers failed, {} retries, {} preemptions", failures, retries, preemptions);
  fmt::print("{}\n", flips == 0 ? "" : fmt::format(", {} roles changed", flips));
}

// What was asked for beside what came out.
void tell_views(const sim::SweepPoint& p) {
  const double rate = p.of(&sim::Measures::rate).mean;
  const sim::Estimate bound = p.of(&sim::Measures::bound);
  if (p.of(&sim::Measures::blind_bound).mean > 0) {
    fmt::print(
        "{:.3g}/s: nobody could have met more than {:.2f}±{:.2f}/s, nor, without knowing "
        "lengths, about {:.2f}/s; these are {:.1f} % of it\n",
        rate, bound.mean, bound.half_width, p.of(&sim::Measures::blind_bound).mean,
        100 * p.of(&sim::Measures::goodput).mean / bound.mean);
  }
  for (const auto& moments : p.moments) {
    if (moments.empty()) continue;
    const sim::Swing swing = sim::swing_of(moments);
    fmt::print(
        "{:.3g}/s: {:.1f} sequences decode, varying by {:.1f} %; period {:.1f} s, "
        "autocorrelation {:.2f}\n",
        rate, swing.mean, 100 * swing.variation, swing.period, swing.regularity);
  }
}

status run(const SimClusterSettings& s, Plan& p) {
  Progress progress;
  p.sweep.progress = [&progress](uint64_t ended, uint64_t all) { progress(ended, all); };
  std::vector<sim::SweepPoint> points;
  int best = -1;
  if (s.find_goodput > 0) {
    const double start = p.rates.front() > 0 ? p.rates.front() : p.spec.num_workers();
    BATON_TRY(sim::GoodputSearch found,
              sim::find_goodput(p.spec, p.trace, s.find_goodput, start, p.sweep));
    points = std::move(found.points);
    best = found.best;
  } else {
    BATON_TRY(points, sim::sweep(p.spec, p.trace, p.rates, p.sweep));
  }
  const sim::ReportHead head{.cluster = p.spec.name,
                             .trace = p.trace.name,
                             .policy = s.policy,
                             .arrivals = p.sweep.arrivals.to_string(),
                             .gpus = p.spec.num_gpus(),
                             .slo = p.sweep.slo,
                             .share = s.find_goodput};
  fmt::print("{}", sim::table(head, points));
  for (const sim::SweepPoint& point : points) {
    if (!p.trace.phases.empty()) fmt::print("{}", sim::phase_table(p.trace, point.phases));
  }
  for (const sim::SweepPoint& point : points) tell_views(point);
  if (s.find_goodput > 0 && best < 0) fmt::print("no rate was met by {:g}\n", s.find_goodput);
  if (best >= 0) {
    fmt::print("{:.4g} requests/s are met by {:g}: {:.4g} per GPU\n", points[best].rate,
               s.find_goodput, points[best].rate / std::max(head.gpus, 1u));
  }
  tell_work(points);
  BATON_CHECK_OK(write_text(s.json, sim::to_json(head, points, best)));
  return write_text(s.svg, sim::to_svg(head, points));
}

}  // namespace

void add_sim_cluster_options(Options& options, SimClusterSettings& s) {
  options.add("cluster", &s.cluster, "Simulate how fast this cluster is (a YAML file)");
  options.add("trace", &s.trace,
              "With --cluster: a file of requests (Azure, Mooncake, lengths), lengths:IN,OUT, or "
              "phases:SECONDSxRATE:IN,OUT/…");
  options.add(
      "policy", &s.policy,
      fmt::format("With --cluster: how the router places requests: one of {}", policy_names()));
  options.add("admission", &s.admission,
              "With --cluster: refuse at once what would miss its targets");
  options.add("predict", &s.predict,
              "With --cluster: go by what will run when a request joins, not by what runs now");
  options.add(
      "admit-by", &s.admit_by,
      "With --cluster: by what requests are admitted: foreseen, as by the router; now: what "
      "decodes when they come; at-decode: what decodes when their prompt is computed");
  options.add("local-prefill-tokens", &s.local_prefill_tokens, "With --cluster: as of the router");
  options.add("load-every-ms", &s.load_every_ms,
              "With --cluster: how often workers tell routers of their load");
  options.add("believed", &s.believed,
              "With --cluster: what workers say that their steps take, as a share of what they do");
  options.add("slo", &s.slo,
              "With --cluster: what requests must meet, ttft=SECONDS,tpot=SECONDS; "
              "ttft=0.5,tpot=0.05 where it is not said");
  options.add(
      "arrivals", &s.arrivals,
      "With --cluster: when requests come: trace, poisson or gamma:CV; auto: the trace's, or "
      "else poisson");
  options.add("rates", &s.rates,
              "With --cluster: requests a second, a run each; without: the trace's own");
  options.add("find-goodput", &s.find_goodput,
              "With --cluster: seek the highest rate at which this share meets both targets");
  options.add("deadline", &s.deadline, "With --cluster: seconds until a request is given up");
  options.add(
      "known-lengths", &s.known_lengths,
      "With --cluster: requests ask for as many tokens as they get, so that the router knows "
      "of how many; else of as many as the longest answer has");
  options.add(
      "step-times", &s.step_times,
      "With --cluster: recorded step times, instead of the profiles': a CSV file, or a folder with "
      "steps-WORKER.csv for each worker");
  options.add("moments-every", &s.moments_every,
              "With --cluster: seconds between two moments whose prompts, sequences and refusals "
              "--json has; 0: none");
  options.add("bound", &s.bound,
              "With --cluster: tell the most that anybody could have met who knew all beforehand");
  options.add(
      "clairvoyant", &s.clairvoyant,
      "With --cluster: turn away who costs more than this at the bound's prices, where 1 is "
      "the gain of one request; 0: nobody");
  options.add("json", &s.json, "With --cluster: a file for all figures");
  options.add("svg", &s.svg, "With --cluster: a file for a plot of what is met against the rate");
  options.add("log-decisions", &s.log_decisions,
              "With --cluster: a file for each decision of the router, for one run");
}

int run_sim_cluster(const SimClusterSettings& settings, sim::SeedRange seeds, uint64_t requests,
                    uint32_t jobs) {
  // Prompts come and go by the million: their memory is kept.
  mallopt(M_MMAP_THRESHOLD, 1 << 26);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  auto planned = plan(settings, seeds, requests, jobs);
  const status done = planned ? run(settings, *planned) : status(planned.error());
  if (done) return 0;
  fmt::print(stderr, "baton sim: {}\n", done.error().message);
  return 2;
}

}  // namespace baton::cli
