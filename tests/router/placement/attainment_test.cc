#include "router/placement/attainment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <vector>

namespace baton::router {
namespace {

const TimePoint kReceived{seconds(50)};
TimePoint at(int ms) { return kReceived + milliseconds(ms); }

TokenTimes times(const std::vector<int>& ms) {
  TokenTimes out;
  for (const int t : ms) out.add(at(t));
  return out;
}

TEST(TokenTimes, AreFirstMeanAndWorst) {
  const TokenTimes none;
  EXPECT_FALSE(none.first() || none.last() || none.tpot());
  const TokenTimes one = times({30});
  EXPECT_EQ(one.first(), at(30));
  EXPECT_EQ(one.last(), at(30));
  EXPECT_FALSE(one.tpot());
  EXPECT_EQ(one.worst_gap(), Duration::zero());
  const TokenTimes three = times({30, 40, 70});
  EXPECT_EQ(three.first(), at(30));
  EXPECT_EQ(three.last(), at(70));
  EXPECT_EQ(three.tpot(), milliseconds(20));
  EXPECT_EQ(three.worst_gap(), milliseconds(30));
  EXPECT_EQ(times({5, 5, 5}).tpot(), Duration::zero());
}

TEST(Attainment, TheWorstChoiceOfEachFigureCounts) {
  const std::vector<TokenTimes> choices = {times({10, 20, 90}), times({40, 50, 60}), times({}),
                                           times({35})};
  const Measured worst = worst_of(choices, kReceived);
  EXPECT_EQ(worst.ttft, milliseconds(40));
  EXPECT_EQ(worst.tpot, milliseconds(40));
  EXPECT_EQ(worst.worst_gap, milliseconds(70));
  const Measured nothing = worst_of({}, kReceived);
  EXPECT_FALSE(nothing.ttft || nothing.tpot);
}

TEST(Attainment, IsJoint) {
  const auto result = [](SloTarget target, const std::vector<int>& ms) {
    const TokenTimes one = times(ms);
    return attained(target, worst_of({&one, 1}, kReceived));
  };
  const SloTarget both{milliseconds(100), milliseconds(10)};
  EXPECT_EQ(result(both, {100, 110, 120}), SloResult::kMet);  // a target is met when it is reached
  EXPECT_EQ(result(both, {101, 111, 121}), SloResult::kMissedTtft);
  EXPECT_EQ(result(both, {90, 101, 111}), SloResult::kMissedTpot);
  EXPECT_EQ(result(both, {101, 112, 123}), SloResult::kMissedBoth);
  EXPECT_EQ(result(both, {90}), SloResult::kMet);
  EXPECT_EQ(result(both, {}), SloResult::kMissedTtft);
  EXPECT_EQ(result({milliseconds(100), {}}, {90, 5000}), SloResult::kMet);
  EXPECT_EQ(result({{}, milliseconds(10)}, {9000, 9005}), SloResult::kMet);
  EXPECT_EQ(result({}, {9000, 19000}), SloResult::kMet);
}

// Means and gaps of any times, against a list of them.
TEST(Attainment, AgreesWithTheList) {
  std::mt19937_64 random(11);
  for (int i = 0; i < 2000; ++i) {
    std::vector<int> ms(1 + random() % 20);
    for (int& t : ms) t = static_cast<int>(random() % 1000);
    std::ranges::sort(ms);
    const TokenTimes got = times(ms);
    int worst = 0;
    for (size_t k = 1; k < ms.size(); ++k) worst = std::max(worst, ms[k] - ms[k - 1]);
    EXPECT_EQ(got.worst_gap(), milliseconds(worst));
    EXPECT_EQ(got.tokens(), ms.size());
    if (ms.size() > 1) {
      const auto whole = Duration(milliseconds(ms.back() - ms.front()));
      EXPECT_EQ(got.tpot(), whole / (ms.size() - 1));
      EXPECT_LE(*got.tpot(), got.worst_gap());
    }
  }
}

TEST(Attainment, EveryResultHasAName) {
  std::set<std::string_view> names;
  for (size_t i = 0; i < kNumSloResults; ++i) names.insert(name(static_cast<SloResult>(i)));
  EXPECT_EQ(names.size(), kNumSloResults);
}

}  // namespace
}  // namespace baton::router
