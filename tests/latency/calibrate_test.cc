#include "common/latency/calibrate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/latency/step_model.h"
#include "tests/latency/costs.h"

namespace baton::latency {
namespace {

std::vector<StepObservation> observe(const StepCosts& truth, SomeSteps& steps, int n) {
  std::vector<StepObservation> all;
  for (int i = 0; i < n; ++i) {
    const StepWork work = steps.any();
    all.push_back({work, steps.noisy(step_time(truth, work), 0.04, 0.05)});
  }
  return all;
}

TEST(Calibrate, FindsCostsWithoutAPrior) {
  for (const double factor : {1.0, 40.0}) {
    StepCosts truth = times(gpu_costs(), factor);
    truth.ridge_rows = 128;
    SomeSteps steps(1);
    const StepCosts found = calibrate(observe(truth, steps, 600));
    std::vector<double> errors;
    for (int i = 0; i < 200; ++i) {
      const StepWork work = steps.any();
      errors.push_back(
          std::abs(to_seconds(step_time(found, work)) / to_seconds(step_time(truth, work)) - 1));
    }
    std::ranges::sort(errors);
    EXPECT_LT(errors[100], 0.02) << factor;
    EXPECT_LT(errors[190], 0.06) << factor;
  }
}

TEST(Calibrate, OfNothingIsNothing) {
  EXPECT_GT(calibrate({}).fixed, 0);
  EXPECT_EQ(calibrate({}).row, 0);
  const std::vector<StepObservation> useless{{{}, milliseconds(1)}, {StepWork::decode(1, 1), {}}};
  EXPECT_EQ(calibrate(useless).row, 0);
}

}  // namespace
}  // namespace baton::latency
