#include <cmath>

#include "sim/plan/trials.h"
#include "tests/sim/plan_fixture.h"

namespace baton::sim {
namespace {

struct Found {
  double rate = 0;
  int asked = 0;
  double highest = 0;  // that was asked
};

Found find(RateSearch search, double truth) {
  Found found;
  while (!search.done()) {
    std::vector<bool> holds;
    const std::vector<double> rates = search.wanted();
    for (const double rate : rates) {
      holds.push_back(rate <= truth);
      found.highest = std::max(found.highest, rate);
    }
    found.asked += static_cast<int>(rates.size());
    search.tell(rates, holds);
  }
  found.rate = search.best();
  return found;
}

constexpr double kInfinite = std::numeric_limits<double>::infinity();

TEST(RateSearch, FindsTheEdgeFromAnywhere) {
  for (const double start : {0.01, 0.3, 0.9, 1.0, 1.1, 3.0, 50.0}) {
    const Found f = find({start * 40, kInfinite, 1.02}, 40);
    EXPECT_LE(f.rate, 40) << start;
    EXPECT_GE(f.rate, 40 / 1.02) << start;
    EXPECT_LE(f.asked, start > 0.5 && start < 2 ? 10 : 30) << start;
  }
}

TEST(RateSearch, NeverAsksBeyondItsBound) {
  const Found f = find({100, 60, 1.02}, 1000);
  EXPECT_LE(f.highest, 60);
  EXPECT_GE(f.rate, 60 / 1.02);
  EXPECT_NEAR(find({30, 1e4, 1.02}, 40).rate, 39.6, 0.5);
}

TEST(RateSearch, GivesUpWhereNothingHolds) {
  const Found f = find({10, kInfinite, 1.02}, 0);
  EXPECT_EQ(f.rate, 0);
  EXPECT_LE(f.asked, 30);
  EXPECT_TRUE(RateSearch(0, kInfinite, 1.02).done());
}

class TrialsTest : public PlanTest {};

TEST_F(TrialsTest, TheNumberOfThreadsDoesNotShow) {
  const TraceFile trace = around(500, 20);
  const ClusterSpec one = mixed(1), two = mixed(2);
  const auto run = [&](unsigned threads) {
    TrialOptions o = options(1).trials;
    o.threads = threads;
    Trials trials(o);
    std::vector<double> out = trials.goodputs({{{&one, &trace, 10}}, {{&two, &trace, 100}}});
    const auto shares = trials.attained({{&one, &trace, 50}, {&two, &trace, 50}});
    out.insert(out.end(), shares.begin(), shares.end());
    EXPECT_GT(trials.simulations(), 10u);
    EXPECT_GT(trials.requests(), trials.simulations() * 500);
    return out;
  };
  const std::vector<double> alone = run(1);
  EXPECT_EQ(alone, run(3));
  EXPECT_GT(alone[0], 10);
  EXPECT_GT(alone[1], 1.9 * alone[0]);
}

// Rates on both sides of what the cluster serves: what is to be known is the same, sooner.
TEST_F(TrialsTest, WhatEndsEarlyDecidesAsWhatIsPlayedToItsEnd) {
  const TraceFile trace = around(500, 20);
  const ClusterSpec two = mixed(2);
  constexpr double kMargin = 0.08;
  const double share = options(1).trials.share;
  bool held = false, near_miss = false, far_miss = false;
  uint64_t all = 0, fewer = 0;
  for (const bool admission : {true, false}) {
    for (double rate = 20; rate < 400; rate *= 1.12) {
      Trial trial{.spec = &two, .trace = &trace, .rate = rate, .admission = admission};
      Trials whole(options(1).trials), early(options(1).trials), near(options(1).trials);
      const double truth = whole.attained({trial})[0];
      trial.indifferent = 0;
      EXPECT_EQ(early.attained({trial})[0] >= share, truth >= share) << rate;
      trial.indifferent = kMargin;
      const double roughly = near.attained({trial})[0];
      EXPECT_EQ(roughly >= share, truth >= share) << rate;
      EXPECT_EQ(roughly < share - kMargin, truth < share - kMargin) << rate;
      held = held || truth >= share;
      far_miss = far_miss || truth < share - kMargin;
      near_miss = near_miss || (truth < share && truth >= share - kMargin);
      all += whole.requests();
      fewer += early.requests();
    }
  }
  EXPECT_TRUE(held && near_miss && far_miss);
  EXPECT_LT(fewer, 0.8 * static_cast<double>(all));
}

}  // namespace
}  // namespace baton::sim
