#include "sim/cluster/swing.h"

#include <cmath>
#include <numeric>

namespace baton::sim {
namespace {

double covariance(std::span<const double> values, double mean, size_t lag) {
  double sum = 0;
  for (size_t i = lag; i < values.size(); ++i) {
    sum += (values[i] - mean) * (values[i - lag] - mean);
  }
  return sum / static_cast<double>(values.size() - lag);
}

}  // namespace

Swing swing_of(std::span<const double> values, Duration every) {
  Swing out;
  if (values.size() < 2) return out;
  out.mean =
      std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  const double variance = covariance(values, out.mean, 0);
  if (!(out.mean > 0) || !(variance > 1e-12 * out.mean * out.mean)) return out;
  out.variation = std::sqrt(variance) / out.mean;
  bool was_below = false;
  for (size_t lag = 1; lag <= values.size() / 2; ++lag) {
    const double r = covariance(values, out.mean, lag) / variance;
    was_below = was_below || r < 0;
    if (!was_below || r <= out.regularity) continue;
    out.regularity = r;
    out.period = to_seconds(every) * static_cast<double>(lag);
  }
  return out;
}

Swing swing_of(std::span<const Moment> moments) {
  size_t end = moments.size();
  while (end > 0 && moments[end - 1].came == 0) --end;
  if (end < 3) return {};
  std::vector<double> sequences;
  for (size_t i = end / 5; i < end; ++i) {
    sequences.push_back(static_cast<double>(moments[i].sequences));
  }
  return swing_of(sequences, moments[1].at - moments[0].at);
}

}  // namespace baton::sim
