// Who is refused for what is foreseen, and what errors teach.
#include "tests/router/placement/goodput_fixture.h"

namespace baton::router {
namespace {

using testing::HasSubstr;

TEST_F(GoodputTest, KeepsTheTargetOfStreamsThatRunThere) {
  add_pairs();
  load(kDecode, 0, 10);  // one more takes a step from 20 to 21 ms
  load(kDecode2, 0, 3);
  pool_.find(kDecode)->view.streams[0] = 10;
  EXPECT_EQ(place(query()).placement.decode, kDecode2);
  load(kDecode2, 0, 10);
  pool_.find(kDecode2)->view.streams[0] = 10;
  placer_.emplace([&] {
    PlacementOptions o = placer_->options();
    o.predict = false;
    return o;
  }());
  const Decision d = place(query());
  EXPECT_EQ(d.harmed, 10u);
  const auto refusal = judge(query());
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->reason, Refusal::Reason::kUnattainable);
  EXPECT_GT(refusal->retry_after, Duration::zero());
}

TEST_F(GoodputTest, PromisesMadeBeforeAreNotBroken) {
  add_pairs();
  for (const WorkerId id : {kPrefill, kPrefill2})
    place_prompt(id, id.value, 0.4, milliseconds(600));
  // Wanted earlier, it would be computed first.
  PlacementQuery q = query(300);
  const Decision d = place(q);
  EXPECT_TRUE(d.in_time) << d.ttft;
  EXPECT_EQ(d.harmed, 1u);
  const auto refusal = judge(q);
  ASSERT_TRUE(refusal);
  EXPECT_THAT(refusal->message, HasSubstr("1 other request miss its target"));
  EXPECT_FALSE(judge(query(100))) << "there is time for this one before them";
}

TEST_F(GoodputTest, RefusalsSayWhichTargetAndByHowMuch) {
  add_pairs();
  load(kPrefill, 2, 0);
  load(kPrefill2, 3, 0);
  const auto refusal = judge(query(100));
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->reason, Refusal::Reason::kUnattainable);
  EXPECT_EQ(refusal->message, "TTFT would be 2.11 s, 1.61 s over the target of 500 ms");
  EXPECT_GE(refusal->retry_after, milliseconds(1610));
  EXPECT_LE(refusal->retry_after, milliseconds(2415));
  EXPECT_FALSE(judge(query(100, 1))) << "best effort waits";
}

TEST_F(GoodputTest, WhatAnIdleClusterCannotDoIsImpossible) {
  add_pairs();
  const auto refusal = judge(query(600));
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->reason, Refusal::Reason::kImpossible);
  EXPECT_THAT(refusal->message, HasSubstr("TTFT would be 610 ms on an idle cluster, 110 ms over"));
}

// Who refuses all learns nothing from which it could learn to refuse less.
TEST_F(GoodputTest, WhateverErrorsTaughtAnIdleClusterServes) {
  add_pairs();
  for (int i = 0; i < 600; ++i) {
    placer_->observe_ttft(0.45, 4, 0.5);
    placer_->observe_tpot(0.018, 0.12, 0.02);
  }
  const Decision idle = place(query(400));
  EXPECT_NEAR(idle.ttft, 0.41, 0.001);  // of 500 ms, and half of the room is left
  EXPECT_NEAR(idle.tpot, 0.011, 0.001);
  EXPECT_TRUE(idle.in_time);
  EXPECT_FALSE(judge(query(400)));
  load(kPrefill, 0.06, 0);
  load(kPrefill2, 0.06, 0);
  const auto refusal = judge(query(400));
  ASSERT_TRUE(refusal);  // 470 ms foreseen, and 45 ms are to be left
  EXPECT_THAT(refusal->message, HasSubstr("TTFT would be 515 ms, 15 ms over"));
  load(kPrefill, 0, 0);
  for (const WorkerId decode : {kDecode, kDecode2}) load(decode, 0, 8);
  const auto busy = judge(query(100));
  ASSERT_TRUE(busy);  // 19 ms foreseen
  EXPECT_THAT(busy->message, HasSubstr("TPOT would be"));
}

// What is foreseen is rather the worst that may come; where it never does, more is accepted.
TEST_F(GoodputTest, WhatComesSoonerThanForeseenIsAcceptedBeyondTheTarget) {
  add_pairs();
  for (const WorkerId decode : {kDecode, kDecode2}) {
    load(decode, 0, 12);  // a step of 23 ms, with one more
    pool_.find(decode)->view.streams[0] = 12;
  }
  EXPECT_TRUE(judge(query(100)));
  for (int i = 0; i < 600; ++i) {
    placer_->observe_ttft(0.45, 0.3, 0.5);
    placer_->observe_tpot(0.019, 0.015, 0.02);
  }
  EXPECT_FALSE(judge(query(100)));
  for (const WorkerId decode : {kDecode, kDecode2}) load(decode, 0, 14);
  EXPECT_TRUE(judge(query(100))) << "25 ms, 20 % less";
  const auto impossible = judge(query(600));
  ASSERT_TRUE(impossible);
  EXPECT_EQ(impossible->reason, Refusal::Reason::kImpossible);
  for (const WorkerId decode : {kDecode, kDecode2}) load(decode, 0, 0);
  PlacementQuery late = query(100);
  late.received = now_ - milliseconds(450);
  EXPECT_TRUE(judge(late)) << "the time that has passed is certain";
}

// What was learnt on a bad day must not hold for ever.
TEST_F(GoodputTest, WhereNothingIsAcceptedOneIsTriedNowAndThen) {
  add_pairs();
  int tried = 0;
  for (int s = 0; s <= 60; ++s, now_ += seconds(1)) tried += !judge(query(600));
  EXPECT_EQ(tried, 6) << "every 10 s, but not at once";
  for (int s = 0; s <= 60; ++s, now_ += seconds(1)) {
    EXPECT_FALSE(judge(query(100)));
    EXPECT_TRUE(judge(query(600))) << "others teach";
  }
}

TEST_F(GoodputTest, WhoSaysNothingOfItsCostsIsNotJudged) {
  proto::WorkerHello hello = make_hello(kMixed, proto::ROLE_MIXED);
  ASSERT_TRUE(pool_.add(hello, "host:1"));
  const Decision d = place(query(100'000));
  EXPECT_FALSE(d.known);
  EXPECT_FALSE(placer_->judge(pool_, query(100'000), d));
}

}  // namespace
}  // namespace baton::router
