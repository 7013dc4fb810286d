#include "common/latency/calibrate.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "common/latency/step_model.h"

namespace baton::latency {
namespace {

constexpr int kPasses = 20;
constexpr std::array<double, 9> kRidges{0, 4, 8, 16, 32, 64, 128, 256, 512};
// Nothing is forgotten, and the start says next to nothing.
constexpr FitOptions kFit{.memory = 1e12, .long_memory = 1e12, .common_spread = 3, .own_spread = 3};

bool is_usable(const StepObservation& s) { return s.work.rows > 0 && s.took > Duration::zero(); }

// Each term takes a sixth of each step that has it, on average.
StepCosts start_for(std::span<const StepObservation> steps, double ridge) {
  std::array<double, 6> sum{}, n{};
  for (const StepObservation& s : steps) {
    if (!is_usable(s)) continue;
    const auto rows = static_cast<double>(s.work.rows);
    const std::array<double, 6> counts{1,
                                       rows,
                                       std::max(0.0, rows - ridge),
                                       static_cast<double>(s.work.context),
                                       static_cast<double>(s.work.attended),
                                       static_cast<double>(s.work.outputs)};
    for (size_t i = 0; i < counts.size(); ++i) {
      if (counts[i] == 0) continue;
      sum[i] += to_seconds(s.took) / counts[i] / 6;
      n[i] += 1;
    }
  }
  const auto mean = [&](size_t i) { return n[i] > 0 ? sum[i] / n[i] : 0; };
  return {.fixed = std::max(mean(0), 1e-9),
          .row = mean(1),
          .row_beyond = mean(2),
          .context_token = mean(3),
          .attended_pair = mean(4),
          .output = mean(5),
          .ridge_rows = ridge};
}

// The mean |error| of nine tenths of the steps.
double error_of(const StepCosts& costs, std::span<const StepObservation> steps) {
  std::vector<double> errors;
  for (const StepObservation& s : steps) {
    if (!is_usable(s)) continue;
    errors.push_back(std::abs(to_seconds(step_time(costs, s.work)) / to_seconds(s.took) - 1));
  }
  std::ranges::sort(errors);
  errors.resize(errors.size() - errors.size() / 10);
  double sum = 0;
  for (const double e : errors) sum += e;
  return errors.empty() ? 0 : sum / static_cast<double>(errors.size());
}

}  // namespace

StepCosts calibrate(std::span<const StepObservation> steps) {
  StepCosts best;
  double least = INFINITY;
  for (const double ridge : kRidges) {
    StepModel model(start_for(steps, ridge), kFit);
    for (int pass = 0; pass < kPasses; ++pass) {
      for (const StepObservation& s : steps) model.observe(s.work, s.took);
    }
    const double error = error_of(model.costs(), steps);
    if (error < least * 0.98) {  // a ridge that does not help is not believed
      least = error;
      best = model.costs();
    }
  }
  best.fixed = std::max(best.fixed, 1e-9);
  return best;
}

}  // namespace baton::latency
