#include "common/latency/step_model.h"

#include <algorithm>

namespace baton::latency {
namespace {

constexpr double kMostSeconds = 86400;
// A step is never believed to be shorter: it is what relative errors are relative to.
constexpr double kLeastSeconds = 1e-7;

using Terms = std::array<double, 6>;

double beyond(double rows, double ridge) { return std::max(0.0, rows - ridge); }

// The costs' terms, in one order everywhere.
Terms terms(const StepCosts& c, const StepWork& w) {
  const auto rows = static_cast<double>(w.rows);
  return {c.fixed,
          c.row * rows,
          c.row_beyond * beyond(rows, c.ridge_rows),
          c.context_token * static_cast<double>(w.context),
          c.attended_pair * static_cast<double>(w.attended),
          c.output * static_cast<double>(w.outputs)};
}

double sum(const Terms& t) { return t[0] + t[1] + t[2] + t[3] + t[4] + t[5]; }

Duration bounded(double s) { return from_seconds(std::clamp(s, 0.0, kMostSeconds)); }

}  // namespace

Duration step_time(const StepCosts& costs, const StepWork& work) {
  return bounded(sum(terms(costs, work)));
}

Duration prompt_time(const StepCosts& c, uint64_t tokens, uint64_t cached, uint64_t chunk) {
  if (tokens == 0) return Duration::zero();
  if (chunk == 0 || chunk > tokens) chunk = tokens;
  const uint64_t whole = (tokens - 1) / chunk;  // chunks before the last
  const auto steps = static_cast<double>(whole);
  const auto last = static_cast<double>(tokens - whole * chunk);
  const StepWork all = StepWork::prefill(tokens, cached);
  // Each whole chunk reads what stands before its end; the last one all.
  const double context = steps * static_cast<double>(cached) +
                         static_cast<double>(chunk) * steps * (steps + 1) / 2 +
                         static_cast<double>(all.context);
  return bounded(c.fixed * (steps + 1) + c.row * static_cast<double>(tokens) +
                 c.row_beyond * (steps * beyond(static_cast<double>(chunk), c.ridge_rows) +
                                 beyond(last, c.ridge_rows)) +
                 c.context_token * context + c.attended_pair * static_cast<double>(all.attended) +
                 c.output);
}

StepModel::StepModel(const StepCosts& prior, const FitOptions& options)
    : prior_(prior),
      costs_(prior),
      fit_({1, 1, 1, 1, 1, 1}, options),
      scatter_{Scatter(options.scatter), Scatter(options.scatter), Scatter(options.scatter)} {}

void StepModel::observe(const StepWork& work, Duration took) {
  if (work.rows == 0 || took <= Duration::zero()) return;
  const auto kind = static_cast<size_t>(work.kind());
  errors_[kind].add(predict(work), took);
  const double predicted = std::max(sum(terms(costs_, work)), kLeastSeconds);
  Terms x = terms(prior_, work);
  for (double& v : x) v /= predicted;
  fit_.observe(x, to_seconds(took) / predicted, scatter_[kind]);
  const Fit::Vector& theta = fit_.theta();
  costs_.fixed = prior_.fixed * theta[0];
  costs_.row = prior_.row * theta[1];
  costs_.row_beyond = prior_.row_beyond * theta[2];
  costs_.context_token = prior_.context_token * theta[3];
  costs_.attended_pair = prior_.attended_pair * theta[4];
  costs_.output = prior_.output * theta[5];
}

}  // namespace baton::latency
