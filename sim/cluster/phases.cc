#include "sim/cluster/phases.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "sim/cluster/draw.h"
#include "sim/timeline.h"

namespace baton::sim {
namespace {

constexpr size_t kMostEntries = 50'000'000;
constexpr double kMostLength = 1e6;

struct Numbers {
  double seconds = 0, rate = 0, in = 0, out = 0;
};

// SECONDSxRATE:IN,OUT
bool parse(std::string_view text, Numbers& n) {
  const auto take = [&text](double& value, std::string_view before, double most) {
    if (!before.empty()) {
      if (!text.starts_with(before)) return false;
      text.remove_prefix(before.size());
    }
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (ec != std::errc() || !(value > 0 && value <= most)) return false;
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    return true;
  };
  return take(n.seconds, "", 1e7) && take(n.rate, "x", 1e6) && take(n.in, ":", kMostLength) &&
         take(n.out, ",", kMostLength) && text.empty();
}

}  // namespace

result<TraceFile> phases_trace(const std::string& what) {
  const auto bad = [&](const char* why) {
    return error(Errc::kInvalidArgument, fmt::format("the trace '{}' {}", what, why));
  };
  TraceFile trace;
  trace.name = what;
  trace.has_arrivals = true;
  Random random(1);
  std::string_view rest = std::string_view(what).substr(what.find(':') + 1);
  double begun = 0;
  while (true) {
    const std::string_view text = rest.substr(0, rest.find('/'));
    Numbers n;
    if (!parse(text, n)) return bad("is not of the form phases:SECONDSxRATE:IN,OUT/…");
    trace.phases.push_back({std::string(text), trace.entries.size()});
    const double end = begun + n.seconds;
    for (double at = begun + exponential(random) / n.rate; at < end;
         at += exponential(random) / n.rate) {
      const uint32_t in = log_normal_length(random, n.in), out = log_normal_length(random, n.out);
      trace.entries.push_back({from_seconds(at), in, out, 0, 0});
      if (trace.entries.size() > kMostEntries) return bad("has too many requests");
    }
    begun = end;
    if (text.size() == rest.size()) break;
    rest.remove_prefix(text.size() + 1);
  }
  if (trace.entries.size() < 2) return bad("has fewer than two requests");
  const Duration first = trace.entries.front().at;
  for (TraceFile::Entry& e : trace.entries) e.at -= first;
  return trace;
}

std::vector<Measures> measure_phases(std::span<const Outcome> outcomes, const TraceFile& trace,
                                     const Slo& slo) {
  std::vector<Measures> all;
  for (size_t p = 0; p < trace.phases.size(); ++p) {
    const bool last = p + 1 == trace.phases.size();
    const size_t end =
        std::min(last ? trace.entries.size() : trace.phases[p + 1].first_entry, outcomes.size());
    const size_t begin = std::min(trace.phases[p].first_entry, end);
    all.push_back(measure(outcomes.subspan(begin, end - begin), slo));
  }
  return all;
}

std::string phase_table(const TraceFile& trace, std::span<const std::vector<Measures>> runs) {
  std::string out =
      fmt::format("{:<28} {:>8} {:>7} {:>7} {:>7} {:>8} {:>8} {:>7}\n", "phase", "requests",
                  "TTFT %", "TPOT %", "both %", "goodput", "refused", "failed");
  for (size_t p = 0; p < trace.phases.size(); ++p) {
    Measures sum;
    for (const std::vector<Measures>& run : runs) {
      const Measures& m = run[p];
      sum.requests += m.requests;
      sum.refused += m.refused;
      sum.failed += m.failed;
      sum.ttft_met += m.ttft_met;
      sum.tpot_met += m.tpot_met;
      sum.joint_met += m.joint_met;
      sum.goodput += m.goodput;
    }
    const double n = std::max<double>(1, static_cast<double>(runs.size()));
    out += fmt::format("{:<28} {:>8} {:>7.1f} {:>7.1f} {:>7.1f} {:>8.3f} {:>8} {:>7}\n",
                       trace.phases[p].name, sum.requests, 100 * sum.ttft_met / n,
                       100 * sum.tpot_met / n, 100 * sum.joint_met / n, sum.goodput / n,
                       sum.refused, sum.failed);
  }
  return out;
}

}  // namespace baton::sim
