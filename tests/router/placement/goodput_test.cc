// What the default policy foresees: queues, batches, promises kept and broken; and admission.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "common/net/protocol.h"
#include "router/placement/placement.h"
#include "tests/router/dispatch/dispatcher_fixture.h"

namespace baton::router {
namespace {

using testing::HasSubstr;

// A token of a prompt takes 1 ms, a decode step 10 ms and 1 ms for each sequence.
latency::StepCosts costs(double speed = 1) {
  return {.fixed = 0.01 / speed, .row = 0.001 / speed, .row_beyond = 0, .ridge_rows = 1e6};
}

class GoodputTest : public testing::Test {
 protected:
  GoodputTest() { make(Policy::kGoodput); }

  void make(Policy policy, uint32_t most_local_tokens = 0) {
    placer_.emplace(PlacementOptions{
        .policy = policy,
        .most_local_tokens = most_local_tokens,
        .classes = {{.name = "chat", .target = {milliseconds(500), milliseconds(20)}},
                    {.name = "batch", .target = {}, .best_effort = true}}});
  }
  void add(WorkerId id, proto::Role role, double speed = 1) {
    proto::WorkerHello hello = make_hello(id, role);
    hello.set_protocol_max(net::kProtocolMax);
    hello.set_max_sequences(64);
    hello.set_total_blocks(10'000);
    hello.set_max_context(100'000);
    hello.set_chunk_tokens(1 << 20);
    ASSERT_TRUE(pool_.add(hello, "host:1"));
    load(id, 0, 0, speed);
  }
  void add_pairs() {
    add(kPrefill, proto::ROLE_PREFILL);
    add(kPrefill2, proto::ROLE_PREFILL);
    add(kDecode, proto::ROLE_DECODE);
    add(kDecode2, proto::ROLE_DECODE);
  }
  void load(WorkerId id, double queued, uint32_t sequences, double speed = 1,
            uint32_t free_blocks = 10'000) {
    proto::Load load;
    load.set_free_blocks(free_blocks);
    load.set_total_blocks(10'000);
    load.set_queued_us(static_cast<uint64_t>(queued * 1e6));
    load.set_running(sequences);
    load.set_sequences(sequences);
    load.set_context_tokens(uint64_t{sequences} * 100);
    const latency::StepCosts c = costs(speed);
    load.mutable_step_costs()->set_fixed(c.fixed);
    load.mutable_step_costs()->set_row(c.row);
    load.mutable_step_costs()->set_ridge_rows(c.ridge_rows);
    for (const WorkerId p : {kPrefill, kPrefill2}) load.add_paired(p.value);
    ASSERT_TRUE(pool_.update(id, std::move(load), now_));
  }
  void say_reads(WorkerId id, double latency, double token) {
    proto::Load load = pool_.find(id)->load;
    load.set_link_latency(latency);
    load.set_link_token(token);
    ASSERT_TRUE(pool_.update(id, std::move(load), now_));
  }
  PlacementQuery query(uint64_t tokens = 100, uint32_t slo_class = 0) const {
    const SloClass& c = placer_->options().classes[slo_class];
    PlacementQuery q{.model = "m",
                     .shape = {.tokens = tokens, .output = 50, .due = now_},
                     .target = c.target,
                     .received = now_,
                     .best_effort = c.best_effort,
                     .now = now_};
    if (c.target.ttft) q.shape.due = q.shape.promise = now_ + *c.target.ttft;
    return q;
  }
  Decision place(const PlacementQuery& q) { return placer_->place(pool_, q).value(); }
  std::optional<Refusal> judge(const PlacementQuery& q) {
    return placer_->judge(pool_, q, place(q));
  }
  void place_prompt(WorkerId id, uint64_t request, double seconds, Duration promise) {
    pool_.find(id)->prompts.add(RequestId(request), now_ + promise, now_ + promise, seconds);
  }

  WorkerPool pool_;
  std::optional<Placer> placer_;
  TimePoint now_{seconds(100)};
};

TEST_F(GoodputTest, ForeseesQueueComputeAndStep) {
  add_pairs();
  load(kPrefill, 0.2, 0);
  load(kPrefill2, 0.3, 0);
  const Decision d = place(query(100));
  EXPECT_EQ(d.placement.prefill, kPrefill);
  EXPECT_TRUE(d.known);
  EXPECT_NEAR(d.ttft, 0.2 + 0.01 + 0.1, 1e-6);
  EXPECT_NEAR(d.tpot, 0.011, 1e-6);
  EXPECT_TRUE(d.in_time);
  EXPECT_FALSE(judge(query(100)));
}

TEST_F(GoodputTest, TimeThatHasPassedCountsAgainstTheTarget) {
  add_pairs();
  PlacementQuery q = query(100);
  q.received = now_ - milliseconds(450);
  EXPECT_FALSE(place(q).in_time);
  EXPECT_NEAR(place(q).ttft, 0.56, 1e-6);
}

TEST_F(GoodputTest, AFasterWorkerMayHaveTheLongerQueue) {
  add(kPrefill, proto::ROLE_PREFILL, 10);
  add(kPrefill2, proto::ROLE_PREFILL, 1);
  add(kDecode, proto::ROLE_DECODE);
  load(kPrefill, 0.1, 0, 10);
  EXPECT_EQ(place(query(300)).placement.prefill, kPrefill);
  EXPECT_EQ(place(query(10)).placement.prefill, kPrefill2);
}

TEST_F(GoodputTest, PromptsOfOtherRoutersTakeTheirShareOfAWorkersTime) {
  add(kMixed, proto::ROLE_MIXED);
  const auto share_after = [&](uint64_t prompts, uint64_t tokens, uint64_t cached) {
    proto::Load load = pool_.find(kMixed)->load;
    load.mutable_of_others()->set_prompts(prompts);
    load.mutable_of_others()->set_tokens(tokens);
    load.mutable_of_others()->set_cached_tokens(cached);
    EXPECT_TRUE(pool_.update(kMixed, std::move(load), now_));
    return prompt_share(pool_.find(kMixed)->view, now_);
  };
  EXPECT_EQ(share_after(7, 700, 0), 0) << "before it was known";
  // Of 2 s; two of 150 tokens, of which 50 were found, each in a step.
  EXPECT_NEAR(share_after(9, 1000, 100), 2 * 0.11 / 2, 1e-6);
  EXPECT_NEAR(share_after(9, 1000, 200), 2 * 0.11 / 2, 1e-6) << "nothing new";
  EXPECT_NEAR(share_after(2, 100, 0), 2 * 0.11 / 2, 1e-6) << "nonsense";
  EXPECT_NEAR(share_after(3, 200, 0), 3 * 0.11 / 2, 1e-6);
}

TEST_F(GoodputTest, WhoHasHardlyTakenAStepIsAskedAllTheSame) {
  add(kPrefill, proto::ROLE_PREFILL);
  add(kDecode, proto::ROLE_DECODE);
  add(kDecode2, proto::ROLE_DECODE, /*speed=*/0.2);
  proto::Load guess = pool_.find(kDecode2)->load;
  std::map<WorkerId, int> times;
  const auto ask = [&] {
    times.clear();
    for (uint64_t turn = 0; turn < 10; ++turn) {
      PlacementQuery q = query();
      q.turn = turn;
      ++times[place(q).placement.decode];
    }
  };
  ask();
  EXPECT_EQ(times[kDecode2], 0) << "it is slow, and knows";
  guess.set_guessed(true);
  ASSERT_TRUE(pool_.update(kDecode2, guess, now_));
  ask();
  EXPECT_EQ(times[kDecode2], 5);
}

TEST_F(GoodputTest, WhatIsNearlyEqualTakesTurns) {
  add(kPrefill, proto::ROLE_PREFILL, 1.01);
  add(kPrefill2, proto::ROLE_PREFILL);
  add(kDecode, proto::ROLE_DECODE);
  add(kDecode2, proto::ROLE_DECODE, 1.01);
  std::map<WorkerId, int> times;
  for (uint64_t turn = 0; turn < 40; ++turn) {
    PlacementQuery q = query();
    q.turn = turn;
    const Placement p = place(q).placement;
    ++times[p.prefill];
    ++times[p.decode];
  }
  for (const WorkerId id : {kPrefill, kPrefill2, kDecode, kDecode2}) EXPECT_GT(times[id], 9);
}

TEST_F(GoodputTest, WhatIsReadAfterThePromptIsComputedCountsAgainstTheTpot) {
  add_pairs();
  constexpr double kStep = 0.011, kGaps = 49;  // of 50 tokens
  // 100 tokens are computed in 110 ms and read in 300.
  say_reads(kDecode, 0.001, 0.003);
  EXPECT_EQ(place(query(100)).placement.decode, kDecode2);
  say_reads(kDecode2, 0.001, 0.003);
  EXPECT_NEAR(place(query(100)).tpot, kStep + 0.191 / kGaps, 1e-6);

  PlacementQuery parked = query(100);  // read when there is room: all of it then
  parked.park = true;
  EXPECT_NEAR(place(parked).tpot, kStep + 0.301 / kGaps, 1e-6);

  // Read as fast as it is computed: but for the last read it does not show.
  for (const WorkerId id : {kDecode, kDecode2}) say_reads(id, 0.001, 0.001);
  EXPECT_NEAR(place(query(100)).tpot, kStep + 0.001 / kGaps, 1e-6);
  // Beside another prompt's reads it is twice as slow. 11 ms: a step of two.
  for (const WorkerId id : {kDecode, kDecode2}) {
    proto::Load load = pool_.find(id)->load;
    load.set_running(1);
    ASSERT_TRUE(pool_.update(id, std::move(load), now_));
  }
  EXPECT_NEAR(place(query(100)).tpot, kStep + 0.001 + (0.001 + 0.2 - 0.11) / kGaps, 1e-6);
}

TEST_F(GoodputTest, WhatIsNoTimeOfAReadIsNotBelieved) {
  add_pairs();
  for (const double nonsense : {std::nan(""), -1.0, 1e9, HUGE_VAL}) {
    for (const WorkerId id : {kDecode, kDecode2}) say_reads(id, nonsense, nonsense);
    EXPECT_NEAR(place(query(100)).tpot, 0.011, 1e-6) << nonsense;
  }
}

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

TEST_F(GoodputTest, PrefersWhoHoldsThePromptUnlessItsQueueCostsMore) {
  add_pairs();
  const PrefixMap::Match match{kPrefill2, 200};
  PlacementQuery q = query(300);
  q.matches = {&match, 1};
  for (q.turn = 0; q.turn < 4; ++q.turn) EXPECT_EQ(place(q).placement.prefill, kPrefill2);
  EXPECT_NEAR(place(q).ttft, 0.11, 1e-6);
  EXPECT_EQ(place(q).cached, 200u);
  load(kPrefill2, 0.4, 0);
  EXPECT_EQ(place(q).placement.prefill, kPrefill);
}

TEST_F(GoodputTest, WhoNeverHoldsWhatItIsThoughtToIsNotPreferred) {
  add_pairs();
  const PrefixMap::Match match{kPrefill2, 200};
  PlacementQuery q = query(300);
  q.matches = {&match, 1};
  for (int i = 0; i < 100; ++i) note_cached(pool_.find(kPrefill2)->view, 200, 0);
  EXPECT_EQ(place(q).cached, 0u);
  EXPECT_EQ(place(q).placement.prefill, kPrefill) << "its turn";
  for (int i = 0; i < 100; ++i) note_cached(pool_.find(kPrefill2)->view, 200, 192);
  EXPECT_GT(place(q).cached, 180u);
  EXPECT_EQ(place(q).matched, 200u);
}

TEST_F(GoodputTest, AShortPromptGoesToAnIdleDecodeWorkerIfPrefillIsBusy) {
  add_pairs();
  make(Policy::kGoodput, 512);
  EXPECT_FALSE(place(query(100)).placement.mixed());
  load(kPrefill, 0.45, 0);
  load(kPrefill2, 0.45, 0);
  EXPECT_TRUE(place(query(100)).placement.mixed());
  PlacementQuery q = query(600);
  q.target = {};
  EXPECT_FALSE(place(q).placement.mixed()) << "too long to be computed among streams";
  load(kDecode, 0, 20);
  load(kDecode2, 0, 20);
  EXPECT_FALSE(place(q).placement.mixed());
}

TEST_F(GoodputTest, PromptsAtOnceDoNotStallADecodeWorker) {
  make(Policy::kGoodput, 512);
  add_pairs();
  for (const WorkerId prefill : {kPrefill, kPrefill2}) load(prefill, 0.35, 0);
  for (const WorkerId decode : {kDecode, kDecode2}) load(decode, 0, 1);
  int local = 0;
  for (int i = 0; i < 20; ++i) {
    const Decision d = place(query(100));
    if (d.placement.prefill != d.placement.decode) continue;
    ++local;
    note_prompt(pool_.find(d.placement.decode)->view, d.prompt, now_);
  }
  // 110 ms each, for a stream of 0.6 s that has less than half of it to spare.
  EXPECT_GE(local, 2);
  EXPECT_LE(local, 8);
}

TEST_F(GoodputTest, BatchesThatHaveEndedWhenItJoinsAreForeseen) {
  add_pairs();
  load(kPrefill, 0.3, 0);
  load(kPrefill2, 0.3, 0);
  load(kDecode, 0, 40);
  load(kDecode2, 0, 40);
  PlacementQuery q = query(100);
  q.shape.output = 10;  // of 40 sequences few are left after 0.4 s of steps of 50 ms
  EXPECT_LT(place(q).tpot, 0.035);
  PlacementOptions now_only = placer_->options();
  now_only.predict = false;
  placer_.emplace(now_only);
  EXPECT_NEAR(place(q).tpot, 0.051, 1e-6);
}

// Forty that wait for their prompts do not join all at once: the first ones have ended by then.
TEST_F(GoodputTest, WhoIsAwaitedComesOneByOne) {
  add_pairs();
  load(kPrefill, 0.4, 0);
  load(kPrefill2, 0.4, 0);
  for (const WorkerId id : {kDecode, kDecode2}) {
    pool_.find(id)->placed_sequences = 40;
    WorkerPool::refresh_view(*pool_.find(id));
  }
  PlacementQuery q = query(100);
  q.shape.output = 4;  // 0.2 s, of the half second until it joins
  EXPECT_LT(place(q).tpot, 0.037);
  EXPECT_GT(place(q).tpot, 0.02);
}

TEST_F(GoodputTest, AFullCacheCountsAgainstTheTpot) {
  add_pairs();
  PlacementQuery q = query(480);
  q.target.ttft.reset();
  load(kDecode, 0, 5);
  load(kDecode2, 0, 5);
  const double with_room = place(q).tpot;
  load(kDecode, 0, 5, 1, /*free_blocks=*/2);
  load(kDecode2, 0, 5, 1, /*free_blocks=*/2);
  EXPECT_GT(place(q).tpot, with_room + 0.002) << "until one of the five ends";
}

TEST_F(GoodputTest, ManyWorkersAreDrawnFromAndTheHolderIsAmongThem) {
  constexpr uint64_t kMany = 500;
  for (uint64_t i = 0; i < kMany; ++i) add(WorkerId(1000 + i), proto::ROLE_MIXED);
  const PrefixMap::Match match{WorkerId(1234), 80};
  PlacementQuery q = query(100);
  q.matches = {&match, 1};
  for (int i = 0; i < 20; ++i) EXPECT_EQ(place(q).placement.prefill, WorkerId(1234));
}

TEST_F(GoodputTest, EveryPolicyTakesAPairThatIsOne) {
  for (size_t i = 0; i < std::size(kPolicyNames); ++i) {
    pool_ = {};
    add_pairs();
    make(parse_policy(kPolicyNames[i]).value());
    for (uint64_t turn = 0; turn < 20; ++turn) {
      PlacementQuery q = query();
      q.turn = turn;
      q.target = {};
      const Decision d = place(q);
      ASSERT_FALSE(d.placement.mixed()) << kPolicyNames[i];
      EXPECT_TRUE(is_paired(*pool_.find(d.placement.decode), *pool_.find(d.placement.prefill)));
      EXPECT_TRUE(d.known);
      EXPECT_NEAR(d.ttft, 0.11, 1e-6);
    }
  }
  EXPECT_FALSE(parse_policy("best"));
}

TEST_F(GoodputTest, RoundRobinTakesAllInTurn) {
  add_pairs();
  make(Policy::kRoundRobin);
  load(kPrefill, 100, 0);
  std::map<WorkerId, int> times;
  for (uint64_t turn = 0; turn < 40; ++turn) {
    PlacementQuery q = query();
    q.turn = turn;
    ++times[place(q).placement.prefill];
    ++times[place(q).placement.decode];
  }
  for (const WorkerId id : {kPrefill, kPrefill2, kDecode, kDecode2}) EXPECT_EQ(times[id], 20);
}

TEST_F(GoodputTest, TwoOfManyAreDrawnAndTheLessLoadedTaken) {
  for (uint64_t i = 0; i < 20; ++i) {
    add(WorkerId(1000 + i), proto::ROLE_MIXED);
    proto::Load load = pool_.find(WorkerId(1000 + i))->load;
    load.set_running(static_cast<uint32_t>(i));
    ASSERT_TRUE(pool_.update(WorkerId(1000 + i), load, now_));
  }
  make(Policy::kPowerOfTwo);
  std::map<WorkerId, int> times;
  for (int i = 0; i < 4000; ++i) ++times[place(query(1)).placement.decode];
  // The least loaded one is drawn in 1 of 10 pairs, the most loaded never wins.
  EXPECT_NEAR(times[WorkerId(1000)], 400, 80);
  EXPECT_EQ(times[WorkerId(1019)], 0);
}

TEST_F(GoodputTest, KvCostWeighsWhatIsCachedAgainstWhatIsInUse) {
  add_pairs();
  make(Policy::kKvCost);
  const PrefixMap::Match match{kPrefill2, 80};
  PlacementQuery q = query(100);
  q.matches = {&match, 1};
  EXPECT_EQ(place(q).placement.prefill, kPrefill2);
  proto::Load busy = pool_.find(kPrefill2)->load;
  busy.set_queued_tokens(90);
  ASSERT_TRUE(pool_.update(kPrefill2, busy, now_));
  EXPECT_EQ(place(q).placement.prefill, kPrefill);
}

}  // namespace
}  // namespace baton::router
