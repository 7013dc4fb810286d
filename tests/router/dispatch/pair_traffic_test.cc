// Who read how much KV from whom.
#include "router/dispatch/pair_traffic.h"

#include "tests/router/dispatch/dispatcher_fixture.h"

namespace baton::router {
namespace {

const TimePoint kStart{std::chrono::hours(1)};
const PairTraffic::Key kPair{kPrefill, kDecode};

TEST(PairTrafficTest, ASteadyFlowShowsItsRateAndFadesWhenItEnds) {
  PairTraffic traffic;
  TimePoint now = kStart;
  for (int i = 0; i < 600; ++i) {
    now += milliseconds(100);
    traffic.add(kPair, 1000, 500, now);
  }
  const PairTraffic::Pair& pair = traffic.pairs().at(kPair);
  EXPECT_NEAR(pair.rate_at(now), 10'000, 200);
  EXPECT_EQ(pair.bytes, 600'000u);
  EXPECT_EQ(pair.hand_overs, 600u);
  EXPECT_NEAR(pair.exposed_seconds, 0.3, 1e-6);
  EXPECT_NEAR(pair.rate_at(now + PairTraffic::kMemory), 10'000 / 2.718, 200);
  EXPECT_LT(pair.rate_at(now + 10 * PairTraffic::kMemory), 1);
}

TEST(PairTrafficTest, WhatAWorkerWasInGoesWithIt) {
  PairTraffic traffic;
  traffic.add({kPrefill, kDecode}, 1, 0, kStart);
  traffic.add({kPrefill2, kDecode}, 1, 0, kStart);
  traffic.add({kPrefill2, kDecode2}, 1, 0, kStart);
  traffic.forget(kPrefill);
  EXPECT_EQ(traffic.pairs().size(), 2u);
  traffic.forget(kDecode);
  EXPECT_EQ(traffic.pairs().size(), 1u);
}

TEST(PairTrafficTest, ItIsBoundedAndMakesRoomOfWhatIsSilent) {
  PairTraffic traffic;
  for (uint64_t i = 0; i < PairTraffic::kMost + 10; ++i) {
    traffic.add({WorkerId(i), kDecode}, 1, 0, kStart);
  }
  EXPECT_EQ(traffic.pairs().size(), PairTraffic::kMost);
  const TimePoint later = kStart + 7 * PairTraffic::kMemory;
  traffic.add({WorkerId(1'000'000), kDecode}, 1, 0, later);
  EXPECT_EQ(traffic.pairs().size(), 1u);
}

TEST(PairTrafficTest, WhateverAWorkerSaysOfItsTimeNothingOverflows) {
  PairTraffic traffic;
  for (int i = 0; i < 3; ++i) traffic.add(kPair, ~uint64_t{0}, ~uint64_t{0}, kStart);
  EXPECT_GT(traffic.pairs().at(kPair).exposed_seconds, 0);
}

using PairTrafficOfDispatcher = DispatcherTest;

TEST_F(PairTrafficOfDispatcher, AHandOverCountsOnceForItsPair) {
  join_pair();
  submit(4);
  take_spec();
  grant(kDecode);
  token(kPrefill, 0, 50);
  handed_off(kDecode);
  handed_off(kPrefill);  // who is not its reader is not believed
  ASSERT_EQ(dispatcher_.traffic().pairs().size(), 1u);
  EXPECT_EQ(dispatcher_.traffic().pairs().at(kPair).hand_overs, 1u);
  dispatcher_.worker_lost(kDecode, now_, actions_);
  EXPECT_TRUE(dispatcher_.traffic().pairs().empty());
}

}  // namespace
}  // namespace baton::router
