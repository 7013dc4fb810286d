#include "common/latency/step_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/latency/rough_costs.h"
#include "tests/latency/costs.h"

namespace baton::latency {
namespace {

// |predicted / true − 1| of a hundred steps: the largest, and that of all but five.
struct Errors {
  double worst = 0, most = 0;
};

template <class Draw>
Errors errors(const StepModel& model, const StepCosts& truth, Draw draw) {
  std::vector<double> all;
  for (int i = 0; i < 100; ++i) {
    const StepWork work = draw();
    all.push_back(
        std::abs(to_seconds(model.predict(work)) / to_seconds(step_time(truth, work)) - 1));
  }
  std::ranges::sort(all);
  return {all.back(), all[94]};
}

Errors errors(const StepModel& model, const StepCosts& truth, uint64_t seed = 1000) {
  SomeSteps steps(seed);
  return errors(model, truth, [&] { return steps.any(); });
}

bool sane(const StepCosts& c) {
  for (const double v :
       {c.fixed, c.row, c.row_beyond, c.context_token, c.attended_pair, c.output}) {
    if (!std::isfinite(v) || v < 0) return false;
  }
  return true;
}

// --- the formula ---------------------------------------------------------------------------------

TEST(StepTime, IsTheFormula) {
  const StepCosts c = gpu_costs();
  EXPECT_NEAR(to_seconds(step_time(c, StepWork::decode(8, 8192))),
              4.3e-3 + 8 * 2e-6 + 8192 * 38e-9 + 8192 * 0.8e-9 + 8 * 4e-6, 1e-8);
  const StepWork prefill = StepWork::prefill(1000, 24);
  EXPECT_EQ(prefill.context, 1024u);
  EXPECT_EQ(prefill.attended, 1000u * 24 + 1000u * 1001 / 2);
  EXPECT_NEAR(to_seconds(step_time(c, prefill)),
              4.3e-3 + 1000 * 2e-6 + 810 * 20e-6 + 1024 * 38e-9 +
                  static_cast<double>(prefill.attended) * 0.8e-9 + 4e-6,
              1e-8);
}

TEST(StepTime, AMixedStepReadsTheWeightsOnce) {
  const StepCosts c = gpu_costs();
  const StepWork chunk = StepWork::prefill(512, 0), decode = StepWork::decode(32, 32 * 1024);
  const Duration mixed = step_time(c, chunk + decode);
  EXPECT_EQ((chunk + decode).kind(), StepKind::kMixed);
  EXPECT_LT(mixed, step_time(c, chunk) + step_time(c, decode) - milliseconds(3));
  EXPECT_GT(mixed, step_time(c, chunk));
  EXPECT_GT(mixed, step_time(c, decode));
  // Decode rows ride for nothing but their own KV and outputs while the chunk hides the weights.
  const Duration hidden = step_time(c, StepWork::prefill(100, 0) + StepWork::decode(1, 1)) -
                          step_time(c, StepWork::prefill(100, 0));
  EXPECT_LT(hidden, microseconds(10));
}

TEST(StepTime, OfNothingIsTheFixedCost) {
  EXPECT_EQ(step_time({.fixed = 0.5}, {}), milliseconds(500));
  EXPECT_EQ(step_time({}, {}), Duration::zero());
}

TEST(StepTime, IsCapped) {
  const StepWork huge = StepWork::prefill(uint64_t{1} << 40, uint64_t{1} << 40);
  EXPECT_LE(step_time(gpu_costs(), huge), std::chrono::hours(24));
  EXPECT_GT(step_time(gpu_costs(), huge), Duration::zero());
}

TEST(PromptTime, IsTheSumOfItsSteps) {
  SomeSteps steps(1);
  const StepCosts c = gpu_costs();
  for (int i = 0; i < 300; ++i) {
    const uint64_t tokens = steps.pick(1, 5000), cached = steps.pick(0, 3000);
    const uint64_t chunk = i % 5 == 0 ? 0 : steps.pick(1, 2048);
    Duration sum{};
    for (uint64_t at = 0; at < tokens;) {
      const uint64_t n = chunk == 0 ? tokens : std::min(chunk, tokens - at);
      sum += step_time(c, StepWork::prefill(n, cached + at, at + n == tokens ? 1 : 0));
      at += n;
    }
    EXPECT_NEAR(to_seconds(prompt_time(c, tokens, cached, chunk)), to_seconds(sum),
                1e-6 + 1e-9 * to_seconds(sum))
        << tokens << " " << cached << " " << chunk;
  }
  EXPECT_EQ(prompt_time(c, 0, 100, 256), Duration::zero());
}

// --- learning ------------------------------------------------------------------------------------

TEST(StepModel, SaysWhatThePriorSaysUntilItHasSeenSomething) {
  const StepModel model(gpu_costs());
  EXPECT_EQ(model.costs(), gpu_costs());
  EXPECT_EQ(errors(model, gpu_costs()).worst, 0);
  EXPECT_EQ(model.error(StepKind::kDecode).count(), 0u);
}

// Noise of 5 % and one step in ten up to ten times too long.
TEST(StepModel, RecoversCostsUnderNoiseAndOutliers) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SomeSteps steps(seed);
    StepCosts truth = gpu_costs();
    for (double* v : {&truth.fixed, &truth.row, &truth.row_beyond, &truth.context_token,
                      &truth.attended_pair, &truth.output}) {
      *v *= 0.5 + static_cast<double>(steps.pick(0, 1500)) / 1000;  // 0.5 to 2 times the prior
    }
    StepModel model(gpu_costs());
    for (int i = 0; i < 600; ++i) {
      const StepWork work = steps.any();
      model.observe(work, steps.noisy(step_time(truth, work), 0.05, 0.1));
      ASSERT_TRUE(sane(model.costs()));
    }
    const Errors found = errors(model, truth, seed + 1000);
    EXPECT_LT(found.most, 0.08) << seed;
    EXPECT_LT(found.worst, 0.15) << seed;
  }
}

TEST(StepModel, IsExactWithoutNoise) {
  SomeSteps steps(3);
  StepModel model(gpu_costs());
  const StepCosts truth = times(gpu_costs(), 1.7);
  for (int i = 0; i < 600; ++i) {
    const StepWork work = steps.any();
    model.observe(work, step_time(truth, work));
  }
  EXPECT_LT(errors(model, truth).worst, 0.005);
}

// A clock that changes is learnt within 256 steps of each kind.
TEST(StepModel, Forgets) {
  for (const double factor : {2.0, 1.3, 0.6, 0.4}) {
    SomeSteps steps(4);
    StepModel model(gpu_costs());
    const auto teach = [&](const StepCosts& truth, int n) {
      for (int i = 0; i < n; ++i) {
        for (const StepWork& work : {steps.prefill(), steps.decode()}) {
          model.observe(work, steps.noisy(step_time(truth, work), 0.03));
        }
      }
    };
    teach(gpu_costs(), 5000);
    EXPECT_LT(errors(model, gpu_costs()).most, 0.05);
    const StepCosts changed = times(gpu_costs(), factor);
    teach(changed, 256);
    const Errors found = errors(model, changed);
    EXPECT_LT(found.most, 0.05) << factor;
    EXPECT_LT(found.worst, 0.12) << factor;
  }
}

// A prompt now and then between many decode steps is no outlier among them.
TEST(StepModel, LearnsWhatIsRareBesideWhatIsCommon) {
  SomeSteps steps(5);
  StepModel model(gpu_costs());
  StepCosts truth = gpu_costs();
  truth.row_beyond *= 2;
  truth.attended_pair *= 2;
  for (int i = 0; i < 256; ++i) {
    for (int k = 0; k < 50; ++k) {
      const StepWork work = steps.decode();
      model.observe(work, steps.noisy(step_time(truth, work), 0.03));
    }
    const StepWork work = steps.prefill();
    model.observe(work, steps.noisy(step_time(truth, work), 0.03));
  }
  EXPECT_LT(errors(model, truth, [&] { return steps.prefill(); }).worst, 0.06);
  EXPECT_LT(errors(model, truth, [&] { return steps.decode(); }).worst, 0.04);
}

// A hundred thousand steps that are all the same teach their own time and spoil nothing else.
TEST(StepModel, StaysWellConditionedWhenAllStepsLookAlike) {
  SomeSteps steps(6);
  StepModel model(gpu_costs());
  const StepWork same = StepWork::decode(16, 16 * 700);
  for (int i = 0; i < 100'000; ++i) {
    model.observe(same, steps.noisy(step_time(gpu_costs(), same), 0.05, 0.02));
    ASSERT_TRUE(sane(model.costs()));
  }
  EXPECT_LT(errors(model, gpu_costs(), [&] { return same; }).worst, 0.05);
  EXPECT_LT(errors(model, gpu_costs(), [&] { return steps.decode(); }).worst, 0.15);
  EXPECT_LT(errors(model, gpu_costs(), [&] { return steps.prefill(); }).worst, 0.25);
  // And what comes then is learnt as if nothing had been before, 256 steps of each kind.
  const StepCosts truth = times(gpu_costs(), 1.4);
  for (int i = 0; i < 768; ++i) {
    const StepWork work = steps.any();
    model.observe(work, steps.noisy(step_time(truth, work), 0.03));
  }
  EXPECT_LT(errors(model, truth).most, 0.06);
}

// Weights of 16 GB, on a GPU whose roofs are not quite known; nor is its ridge, which no fit
// changes.
TEST(StepModel, ARoughPriorIsEnough) {
  for (const double off : {0.5, 1.0, 2.0}) {
    SomeSteps steps(8);
    const StepCosts rough = rough_costs(16e9, 131072, {3e12 * off, 4e14 / off});
    StepModel model(rough, kRoughFit);
    for (int i = 0; i < 768; ++i) {
      const StepWork work = steps.any();
      model.observe(work, steps.noisy(step_time(gpu_costs(), work), 0.03, 0.02));
    }
    EXPECT_LT(errors(model, gpu_costs()).most, 0.2) << off;
  }
}

// A worker that decodes twice as fast as its profile says most likely prefills faster, too.
TEST(StepModel, OneSpeedForAllIsTheFirstGuess) {
  SomeSteps steps(7);
  StepModel model(gpu_costs());
  const StepCosts truth = times(gpu_costs(), 0.5);
  const StepWork prompt = StepWork::prefill(2000, 0);
  for (int i = 0; i < 500; ++i) {
    const StepWork work = steps.decode();
    model.observe(work, step_time(truth, work));
  }
  EXPECT_LT(errors(model, truth, [&] { return prompt; }).worst, 0.45);  // the prior is off by 1
}

// --- what must never happen ----------------------------------------------------------------------

// Whatever a worker reports, however absurd.
TEST(StepModel, NeverPredictsNegativeOrAbsurdTimesAndMoreTokensNeverTakeLess) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    SomeSteps steps(seed);
    StepModel model(gpu_costs());
    for (int i = 0; i < 2000; ++i) {
      const StepWork work = steps.any();
      const auto took =
          Duration(static_cast<int64_t>(steps.pick(0, uint64_t{1} << steps.pick(0, 62))));
      model.observe(work, took);
      ASSERT_TRUE(sane(model.costs())) << seed << " " << i;
    }
    for (int i = 0; i < 200; ++i) {
      const uint64_t tokens = steps.pick(1, 8000), cached = steps.pick(0, 8000);
      const uint64_t more = steps.pick(1, 500), chunk = steps.pick(0, 2048);
      ASSERT_GE(model.predict(StepWork::prefill(tokens, cached)), Duration::zero());
      ASSERT_LE(model.predict(StepWork::prefill(tokens, cached)),
                model.predict(StepWork::prefill(tokens + more, cached)));
      ASSERT_LE(model.predict(StepWork::prefill(tokens, cached)),
                model.predict(StepWork::prefill(tokens, cached + more)));
      ASSERT_LE(model.predict(StepWork::decode(tokens, tokens + cached)),
                model.predict(StepWork::decode(tokens + more, tokens + more + cached)));
      ASSERT_LE(model.predict_prompt(tokens, cached, chunk),
                model.predict_prompt(tokens + more, cached, chunk));
      ASSERT_GE(model.predict_prompt(tokens, cached, chunk), Duration::zero());
    }
  }
}

TEST(StepModel, IgnoresWhatIsNoObservation) {
  StepModel model(gpu_costs());
  model.observe({}, milliseconds(5));
  model.observe(StepWork::decode(4, 100), Duration::zero());
  model.observe(StepWork::decode(4, 100), Duration(-5));
  EXPECT_EQ(model.costs(), gpu_costs());
  EXPECT_EQ(model.error(StepKind::kDecode).count(), 0u);
}

TEST(StepModel, TellsItsErrorByKind) {
  StepModel model(gpu_costs());
  const StepWork decode = StepWork::decode(8, 8000), prefill = StepWork::prefill(512, 0);
  model.observe(decode, model.predict(decode) * 5 / 4);
  model.observe(prefill, model.predict(prefill) * 3);
  EXPECT_NEAR(model.error(StepKind::kDecode).ratio_quantile(0.5), 1.25, 1e-4);
  EXPECT_NEAR(model.error(StepKind::kPrefill).ratio_quantile(0.5), 3, 1e-4);
  EXPECT_EQ(model.error(StepKind::kMixed).count(), 0u);
}

}  // namespace
}  // namespace baton::latency
