#include "common/latency/link_model.h"

#include <algorithm>

namespace baton::latency {
namespace {

constexpr double kMostSeconds = 86400;
constexpr double kLeastSeconds = 1e-7;

// Bytes that the link moves until ours are through.
double moved(size_t bytes, const LinkLoad& load) {
  const double ours = static_cast<double>(bytes);
  return ours + std::min(static_cast<double>(load.bytes), ours * load.transfers);
}

double seconds_of(const LinkCosts& costs, double moved) {
  return costs.latency + costs.byte * moved;
}

}  // namespace

Duration transfer_time(const LinkCosts& costs, size_t bytes, const LinkLoad& load) {
  return from_seconds(std::clamp(seconds_of(costs, moved(bytes, load)), 0.0, kMostSeconds));
}

LinkModel::LinkModel(const LinkCosts& prior, const FitOptions& options)
    : prior_(prior), costs_(prior), fit_({1, 1}, options), scatter_(options.scatter) {}

void LinkModel::observe(size_t bytes, const LinkLoad& load, Duration took) {
  if (took <= Duration::zero()) return;
  error_.add(predict(bytes, load), took);
  const double all = moved(bytes, load);
  const double predicted = std::max(seconds_of(costs_, all), kLeastSeconds);
  fit_.observe({prior_.latency / predicted, prior_.byte * all / predicted},
               to_seconds(took) / predicted, scatter_);
  costs_.latency = prior_.latency * fit_.theta()[0];
  costs_.byte = prior_.byte * fit_.theta()[1];
}

}  // namespace baton::latency
