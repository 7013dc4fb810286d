#include "sim/cluster/measures.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

namespace baton::sim {

Quantiles quantiles_of(std::vector<double>& seconds) {
  if (seconds.empty()) return {};
  std::ranges::sort(seconds);
  const auto n = static_cast<double>(seconds.size());
  const auto at = [&](double q) {
    return seconds[static_cast<size_t>(std::max(std::ceil(q * n) - 1, 0.0))];
  };
  return {std::accumulate(seconds.begin(), seconds.end(), 0.0) / n, at(0.5), at(0.9), at(0.99),
          seconds.back()};
}

double tpot_of(const Outcome& o) {
  return o.tokens < 2 ? 0 : to_seconds(o.last_token - o.first_token) / (o.tokens - 1);
}

bool met_both(const Outcome& o, const Slo& slo) {
  return o.end == Outcome::End::kAnswered &&
         to_seconds(o.first_token - o.scheduled) <= to_seconds(slo.ttft) &&
         tpot_of(o) <= to_seconds(slo.tpot);
}

Measures measure(std::span<const Outcome> outcomes, const Slo& slo) {
  Measures m;
  m.requests = outcomes.size();
  if (outcomes.empty()) return m;
  std::vector<double> ttfts, tpots, gaps;
  uint64_t ttft_met = 0, tpot_met = 0, joint_met = 0, tokens = 0;
  Duration last{};
  for (const Outcome& o : outcomes) {
    last = std::max(last, o.scheduled);
    tokens += o.tokens;
    m.refused += o.end == Outcome::End::kRefused;
    m.failed += o.end == Outcome::End::kFailed || o.end == Outcome::End::kOpen;
    if (o.end != Outcome::End::kAnswered) continue;
    ++m.answered;
    const double ttft = to_seconds(o.first_token - o.scheduled), tpot = tpot_of(o);
    const bool first = ttft <= to_seconds(slo.ttft), rest = tpot <= to_seconds(slo.tpot);
    ttft_met += first;
    tpot_met += rest;
    joint_met += met_both(o, slo);
    ttfts.push_back(ttft);
    if (o.tokens < 2) continue;
    tpots.push_back(tpot);
    gaps.push_back(to_seconds(o.worst_gap));
  }
  const auto n = static_cast<double>(m.requests);
  m.ttft_met = static_cast<double>(ttft_met) / n;
  m.tpot_met = static_cast<double>(tpot_met) / n;
  m.joint_met = static_cast<double>(joint_met) / n;
  m.ttft = quantiles_of(ttfts);
  m.tpot = quantiles_of(tpots);
  m.worst_gap = quantiles_of(gaps);
  const double span = to_seconds(last - outcomes.front().scheduled);
  if (span <= 0) return m;
  m.rate = (n - 1) / span;
  m.goodput = m.joint_met * m.rate;
  m.tokens_a_second = static_cast<double>(tokens) / span;
  return m;
}

Estimate estimate(std::span<const double> values) {
  // 97.5 % of Student's t by degrees of freedom; beyond the table, of the last.
  static constexpr std::array<double, 20> kT = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365,
                                                2.306,  2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
                                                2.131,  2.120, 2.110, 2.101, 2.093, 2.086};
  if (values.empty()) return {};
  const auto n = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  if (values.size() < 2) return {mean, 0};
  double squares = 0;
  for (const double v : values) squares += (v - mean) * (v - mean);
  const double t = kT[std::min(values.size() - 2, kT.size() - 1)];
  return {mean, t * std::sqrt(squares / (n - 1) / n)};
}

}  // namespace baton::sim
