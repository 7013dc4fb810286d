// What became of requests, in steps of time.
#include "router/page/live_history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace baton::router {
namespace {

using testing::ElementsAre;

constexpr Duration kStep = LiveHistory::kStep;
const TimePoint kStart{std::chrono::hours(1)};

std::vector<uint32_t> met(LiveHistory& history, TimePoint now) {
  std::vector<uint32_t> out;
  for (const auto& step : history.steps(now)) {
    out.push_back(step.results[0][static_cast<size_t>(SloResult::kMet)]);
  }
  return out;
}

TEST(LiveHistoryTest, EachRequestIsInTheStepThatItEndedIn) {
  LiveHistory history(kStart);
  EXPECT_THAT(met(history, kStart), ElementsAre(0));
  history.ended(0, SloResult::kMet, kStart);
  history.ended(0, SloResult::kMet, kStart + kStep - milliseconds(1));
  history.ended(0, SloResult::kMet, kStart + kStep);
  history.ended(1, SloResult::kMet, kStart + kStep);
  history.ended(0, SloResult::kFailed, kStart + kStep);
  const TimePoint now = kStart + 3 * kStep + seconds(2);
  EXPECT_THAT(met(history, now), ElementsAre(2, 1, 0, 0));
  EXPECT_EQ(history.age(now), seconds(2));
}

TEST(LiveHistoryTest, TheOldestStepsGo) {
  LiveHistory history(kStart);
  for (size_t i = 0; i < 2 * LiveHistory::kSteps; ++i) {
    const TimePoint now = kStart + i * kStep;
    for (size_t n = 0; n < i; ++n) history.ended(0, SloResult::kMet, now);
  }
  const auto kept = met(history, kStart + (2 * LiveHistory::kSteps - 1) * kStep);
  ASSERT_EQ(kept.size(), LiveHistory::kSteps);
  EXPECT_EQ(kept.front(), LiveHistory::kSteps);
  EXPECT_EQ(kept.back(), 2 * LiveHistory::kSteps - 1);
}

TEST(LiveHistoryTest, AfterALongSilenceAllIsEmpty) {
  LiveHistory history(kStart);
  history.ended(0, SloResult::kMet, kStart);
  history.refused("quota", kStart);
  const auto steps = history.steps(kStart + std::chrono::hours(1000));
  ASSERT_EQ(steps.size(), LiveHistory::kSteps);
  for (const auto& step : steps) {
    EXPECT_EQ(step.results[0][0], 0u);
    EXPECT_EQ(step.refused[0], 0u);
  }
}

TEST(LiveHistoryTest, ReasonsAreNamedUpToABound) {
  LiveHistory history(kStart);
  history.refused("quota", kStart);
  history.refused("overloaded", kStart);
  history.refused("quota", kStart);
  EXPECT_THAT(history.reasons(), ElementsAre("quota", "overloaded"));
  EXPECT_EQ(history.steps(kStart)[0].refused[0], 2u);
  for (int i = 0; i < 40; ++i) history.refused("reason " + std::to_string(i), kStart);
  ASSERT_EQ(history.reasons().size(), LiveHistory::kMaxReasons);
  EXPECT_EQ(history.reasons().back(), "other");
  EXPECT_EQ(history.steps(kStart)[0].refused.back(), 40 - (LiveHistory::kMaxReasons - 3));
}

}  // namespace
}  // namespace baton::router
