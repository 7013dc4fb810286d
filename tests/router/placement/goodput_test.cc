// What the default policy foresees: queues, batches, promises kept and broken.
#include <cmath>

#include "tests/router/placement/goodput_fixture.h"

namespace baton::router {
namespace {

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
  // Of a stream's life of 2 s, which has just begun; two of 150 tokens, of which 50 were found:
  // what they add to the two steps that would be taken anyway.
  const double life = 2 * (1 - std::exp(-0.25));
  EXPECT_NEAR(share_after(9, 1000, 100), 2 * 0.1 / life, 1e-6);
  EXPECT_NEAR(share_after(9, 1000, 200), 2 * 0.1 / life, 1e-6) << "nothing new";
  EXPECT_NEAR(share_after(2, 100, 0), 2 * 0.1 / life, 1e-6) << "nonsense";
  EXPECT_NEAR(share_after(3, 200, 0), 3 * 0.1 / life, 1e-6);
}

// Ten prompts a second are ten from the first second on, and are forgotten when they have stopped.
TEST_F(GoodputTest, WhatPromptsTakeIsTheirRateHoweverShortAgoTheyBegan) {
  add(kMixed, proto::ROLE_MIXED);
  WorkerView& view = pool_.find(kMixed)->view;
  for (int i = 1; i <= 60; ++i) {
    note_prompt(view, 0.03, now_);
    now_ += milliseconds(100);
    if (i >= 10) {
      EXPECT_NEAR(prompt_share(view, now_), 0.3, 0.02) << i;
    }
  }
  now_ += seconds(20);
  EXPECT_LT(prompt_share(view, now_), 1e-4);
  note_prompt(view, 0.03, now_);
  EXPECT_NEAR(prompt_share(view, now_), 0.03 / (2 * (1 - std::exp(-0.25))), 1e-3) << "began anew";
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
  // Beside another prompt's reads, which take 100 of the 110 ms until then, it is nearly twice as
  // slow. 11 ms: a step of two.
  for (const WorkerId id : {kDecode, kDecode2}) {
    proto::Load load = pool_.find(id)->load;
    load.set_running(1);
    ASSERT_TRUE(pool_.update(id, std::move(load), now_));
  }
  EXPECT_NEAR(place(query(100)).tpot,
              kStep + 0.001 + (0.001 + 0.1 * (1 + 0.1 / 0.11) - 0.11) / kGaps, 1e-6);
}

// Of many that are awaited over a long time few are read at any time.
TEST_F(GoodputTest, ReadsThatAreAwaitedAreSpreadOverTheTimeUntilThen) {
  add_pairs();
  say_reads(kDecode, 0.001, 0.001);
  Worker& worker = *pool_.find(kDecode);
  worker.placed_sequences = 20;
  worker.placed_output = 20 * 50;
  worker.placed_stay = 20 * 50 * 10;
  worker.placed_tokens = 20 * 100;  // each is read once, however short its answer is
  WorkerPool::refresh_view(worker);
  EXPECT_NEAR(reads_beside(worker, 100, {10, 10}, 5), 20 * 0.1 / 10, 1e-9);
  EXPECT_NEAR(reads_beside(worker, 100, {0.01, 0.01}, 5), 5, 1e-9);
  EXPECT_NEAR(reads_beside(worker, 100, {0, 0}, 50), 20, 1e-9);
}

TEST_F(GoodputTest, WhatIsNoTimeOfAReadIsNotBelieved) {
  add_pairs();
  for (const double nonsense : {std::nan(""), -1.0, 1e9, HUGE_VAL}) {
    for (const WorkerId id : {kDecode, kDecode2}) say_reads(id, nonsense, nonsense);
    EXPECT_NEAR(place(query(100)).tpot, 0.011, 1e-6) << nonsense;
  }
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
  q.shape.output = 4;
  // 80 a second, each of which stays for 4 steps of 10 + n ms: n is 4.7 on average, and in 9 of 10
  // cases 7.3 at most. A step of all forty would be 50 ms, in which nobody were gone.
  EXPECT_LT(place(q).tpot, 0.021);
  EXPECT_GT(place(q).tpot, 0.016);
}

// Of long prompts with short answers hardly one is there at a time.
TEST_F(GoodputTest, HowLongTheAwaitedStayIsTheirOwn) {
  add_pairs();
  load(kPrefill, 0.4, 0);
  load(kPrefill2, 0.4, 0);
  const auto expect = [&](uint64_t long_ones, uint64_t short_ones) {
    for (const WorkerId id : {kDecode, kDecode2}) {
      place_answers(id, {{10, 10'000, long_ones}, {10, 100, short_ones}});
    }
    return place(query(100)).tpot;
  };
  const double both = expect(50, 50);
  EXPECT_NEAR(pool_.find(kDecode)->view.prompt_each, 5050, 1e-6);
  const double few = expect(1, 50);
  EXPECT_NEAR(pool_.find(kDecode)->view.prompt_each, (10'000 + 50 * 100) / 51.0, 1e-6);
  EXPECT_NEAR(pool_.find(kDecode)->view.output_each, 25.5, 1e-6);
  EXPECT_LT(few, 0.95 * both);

  // Of as many of others' only the class is known.
  for (const WorkerId id : {kDecode, kDecode2}) {
    proto::Load load = pool_.find(id)->load;
    load.set_sequences_of_others(20);
    ASSERT_TRUE(pool_.update(id, std::move(load), now_));
  }
  EXPECT_GT(place(query(100)).tpot, few);
}

// What is held at a time is of prompts with long answers: where tokens that are read cost.
TEST_F(GoodputTest, LongPromptsWithShortAnswersAreHardlyThere) {
  add_pairs();
  load(kPrefill, 2, 0);
  load(kPrefill2, 2, 0);
  const auto expect = [&](uint64_t output_of_long, uint64_t output_of_short) {
    for (const WorkerId id : {kDecode, kDecode2}) {
      pool_.find(id)->view.costs.context_token = 1e-7;
      place_answers(id, {{20, 10'000, output_of_long}, {20, 100, output_of_short}});
    }
    return place(query(100)).tpot;
  };
  const double of_long_prompts = expect(40, 10), of_short_ones = expect(10, 40);
  EXPECT_LT(of_short_ones, of_long_prompts - 0.001);
}

// What this router has there it knows; of the others' the worker tells, if it can.
TEST_F(GoodputTest, SequencesOfOtherRoutersComeOnTopOfItsOwn) {
  add(kMixed, proto::ROLE_MIXED);
  Worker& worker = *pool_.find(kMixed);
  const auto told = [&](uint32_t running, std::optional<uint32_t> others) {
    proto::Load load = worker.load;
    load.set_running(running);
    if (others) load.set_sequences_of_others(*others);
    EXPECT_TRUE(pool_.update(kMixed, std::move(load), now_));
    return worker.view.sequences;
  };
  worker.placed_sequences = 5;  // of which it has heard of 3
  EXPECT_EQ(told(3 + 20, std::nullopt), 23u) << "not told apart: one of both is all that is known";
  EXPECT_EQ(told(3 + 20, 20), 25u);
  worker.placed_sequences = 6;
  WorkerPool::refresh_view(worker);
  EXPECT_EQ(worker.view.sequences, 26u);
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
