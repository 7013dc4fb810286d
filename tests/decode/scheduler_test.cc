#include "decode/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <numeric>

#include "common/engine/client_mark.h"
#include "tests/fakes/fake_engine.h"

namespace baton::decode {
namespace {

using engine::StepBatch;
using fakes::FakeEngine;
using testing::HasSubstr;

constexpr uint32_t kBlock = 4;
const TimePoint kStart{seconds(100)};

RequestKey key(uint64_t id, uint64_t generation = 1) {
  return {RouterId{1}, RequestId{id}, Generation{generation}};
}

std::vector<TokenId> prompt_of(uint32_t tokens, TokenId first = 1) {
  std::vector<TokenId> prompt(tokens);
  std::iota(prompt.begin(), prompt.end(), first);
  return prompt;
}

DecodeRequest request(uint64_t id, uint32_t tokens, TokenId first = 1) {
  DecodeRequest r;
  r.request.key = key(id);
  r.request.tokens = prompt_of(tokens, first);
  r.request.prompt_tokens = tokens;
  r.request.sampling.max_tokens = 10;
  r.request.arrival = kStart + milliseconds(id);
  return r;
}

class SchedulerTest : public testing::Test {
 protected:
  static constexpr uint32_t kSlots = 6;

  explicit SchedulerTest(uint32_t pool_blocks = 16)
      : pool(pool_blocks), fake(pool_blocks, kBlock, 1, kSlots) {}

  Scheduler make(SchedulerConfig config = {.watermark_blocks = 0, .growth_blocks = 0}) {
    config.limits = {
        .max_rows = 64, .max_sequences = kSlots, .max_slots = kSlots, .max_context = 1000};
    return Scheduler(config, {pool, hasher, slots});
  }

  // What prefill and the transfer do: writes the prompt's KV into `blocks`, returns what is drawn.
  std::vector<TokenId> write_prompt(const engine::Request& r, const std::vector<BlockId>& blocks) {
    StepBatch batch;
    engine::StepSequence& s = batch.add_sequence();
    s.num_rows = r.num_tokens();
    s.tokens = r.tokens;
    s.block_table = blocks;
    fake.run(batch);
    std::vector<TokenId> first;
    for (uint32_t i = 0; i < r.sampling.num_choices; ++i) first.push_back(output(r, i)[0]);
    return first;
  }
  // What is left of the right output of choice i.
  std::vector<TokenId> output(const engine::Request& r, uint32_t i = 0) const {
    auto whole = FakeEngine::reference_output(std::span(r.tokens).first(r.prompt_tokens),
                                              r.sampling, r.sampling.first_choice + i);
    whole.erase(whole.begin(), whole.begin() + (r.num_tokens() - r.prompt_tokens));
    return whole;
  }
  Granted grant(Scheduler& s, const DecodeRequest& r) {
    auto reservation = s.reserve(r);
    EXPECT_TRUE(reservation && std::holds_alternative<Granted>(*reservation));
    return std::get<Granted>(*reservation);
  }
  void start(Scheduler& s, const DecodeRequest& r) {
    const Granted granted = grant(s, r);
    ASSERT_TRUE(s.join(r.request.key, write_prompt(r.request, granted.blocks), events));
  }

  StepBatch plan(Scheduler& s) {
    StepBatch batch;
    engine::StepBudget budget{.rows = 64, .sequences = 64};
    s.plan(budget, batch, events);
    return batch;
  }
  void finish(Scheduler& s, StepBatch& batch) {
    fake.run(batch);
    now += milliseconds(10);
    s.on_step_done(batch, now, events);
  }
  void step(Scheduler& s) {
    StepBatch batch = plan(s);
    finish(s, batch);
  }

  template <class T>
  std::vector<T> take() {
    std::vector<T> found;
    for (const Event& e : events) {
      if (const T* t = std::get_if<T>(&e)) found.push_back(*t);
    }
    return found;
  }
  std::vector<TokenId> tokens_of(const RequestKey& of, uint32_t choice = 0) {
    std::vector<TokenId> tokens;
    for (const Token& t : take<Token>()) {
      if (t.key == of && t.choice == choice) tokens.push_back(t.result.token);
    }
    return tokens;
  }
  void expect_nothing_held(Scheduler& s) {
    EXPECT_EQ(pool.counts().active, 0u);
    EXPECT_EQ(pool.counts().quarantined, 0u);
    EXPECT_EQ(slots.available(), slots.size());
    const Snapshot shot = s.snapshot();
    EXPECT_EQ(shot.running + shot.reserved + shot.ending, 0u);
    EXPECT_TRUE(pool.consistent());
  }

  kvcache::BlockPool pool;
  kvcache::PrefixHasher hasher{{"w", "", "t"}, kBlock};
  engine::SlotAllocator slots{kSlots};
  FakeEngine fake;
  TimePoint now = kStart;
  Events events;
};

TEST_F(SchedulerTest, StreamsTheRestAndFinishes) {
  for (const uint32_t depth : {1u, 2u}) {
    Scheduler s = make();
    events.clear();
    const DecodeRequest r = request(depth, 6);
    start(s, r);
    std::deque<StepBatch> in_flight;
    while (take<Finished>().empty()) {
      in_flight.push_back(plan(s));
      if (in_flight.size() < depth) continue;
      finish(s, in_flight.front());
      in_flight.pop_front();
    }
    while (!in_flight.empty()) finish(s, in_flight.front()), in_flight.pop_front();
    std::vector<TokenId> expected = output(r.request);
    ASSERT_EQ(expected.size(), 10u);
    expected.erase(expected.begin());
    EXPECT_EQ(tokens_of(key(depth)), expected) << "depth " << depth;
    uint32_t index = 1;
    for (const Token& t : take<Token>()) EXPECT_EQ(t.index, index++);
    EXPECT_EQ(take<Finished>().at(0).finish, engine::Finish{engine::FinishReason::kLength});
    EXPECT_EQ(take<Finished>()[0].output_tokens, 10u);
    expect_nothing_held(s);
  }
}

TEST_F(SchedulerTest, StopsAtAStopToken) {
  Scheduler s = make();
  DecodeRequest r = request(1, 6);
  const auto free_run = output(r.request);
  r.request.sampling.stop_tokens = {free_run[3]};
  start(s, r);
  StepBatch a = plan(s), b = plan(s), c = plan(s), d = plan(s);
  for (StepBatch* batch : {&a, &b, &c}) finish(s, *batch);
  ASSERT_EQ(take<Finished>().size(), 1u);
  EXPECT_EQ(take<Finished>()[0].finish, (engine::Finish{engine::FinishReason::kStop, free_run[3]}));
  EXPECT_EQ(take<Finished>()[0].output_tokens, 4u);
  EXPECT_EQ(s.snapshot().ending, 1u) << "one row went too far";
  EXPECT_GT(pool.counts().active, 0u);
  const size_t before = events.size();
  finish(s, d);
  EXPECT_EQ(events.size(), before);
  expect_nothing_held(s);
}

TEST_F(SchedulerTest, PlansNoRowPastTheLimit) {
  Scheduler s = make();
  DecodeRequest r = request(1, 6);
  r.request.sampling.max_tokens = 3;
  start(s, r);
  StepBatch a = plan(s), b = plan(s);
  EXPECT_EQ(a.num_rows() + b.num_rows(), 2u);
  EXPECT_TRUE(plan(s).empty());
  finish(s, a), finish(s, b);
  EXPECT_EQ(take<Finished>().size(), 1u);
  expect_nothing_held(s);
}

TEST_F(SchedulerTest, AFirstTokenMayBeTheLast) {
  Scheduler s = make();
  DecodeRequest r = request(1, 6);
  r.request.sampling.num_choices = 2;
  r.request.sampling.stop_tokens = {output(r.request, 1)[0]};
  start(s, r);
  ASSERT_EQ(take<Finished>().size(), 1u);
  EXPECT_EQ(take<Finished>()[0].choice, 1u);
  EXPECT_EQ(take<Finished>()[0].output_tokens, 1u);
  EXPECT_EQ(s.snapshot().running, 1u);
  EXPECT_TRUE(take<Token>().empty()) << "prefill has delivered it";
}

TEST_F(SchedulerTest, EndsAtTheContextsEnd) {
  Scheduler s = make();
  DecodeRequest r = request(1, 61);
  r.request.sampling.max_tokens = 100;  // the pool holds 64 tokens; the 65th needs no KV
  start(s, r);
  for (int i = 0; i < 3; ++i) step(s);
  EXPECT_EQ(take<Finished>().at(0).output_tokens, 4u);
  expect_nothing_held(s);
}

TEST_F(SchedulerTest, ForksCopyOnWrite) {
  Scheduler s = make();
  DecodeRequest r = request(1, 10);
  r.request.sampling.num_choices = 3;
  r.request.sampling.first_choice = 1;
  start(s, r);
  EXPECT_EQ(pool.counts().active, 3u);
  StepBatch batch = plan(s);
  EXPECT_EQ(batch.block_copies.size(), 2u);
  EXPECT_EQ(pool.counts().active, 5u) << "two full blocks are shared, the third is not";
  StepBatch overlapping = plan(s);
  EXPECT_TRUE(overlapping.block_copies.empty());
  finish(s, batch), finish(s, overlapping);
  while (s.snapshot().running > 0) step(s);
  for (uint32_t i = 0; i < 3; ++i) {
    auto expected = output(r.request, i);
    expected.erase(expected.begin());
    EXPECT_EQ(tokens_of(key(1), 1 + i), expected);
  }
  expect_nothing_held(s);
}

TEST_F(SchedulerTest, CopiesOnlyThePromptsLastBlock) {
  Scheduler s = make();
  DecodeRequest r = request(1, 7);
  r.request.sampling.num_choices = 2;
  start(s, r);
  EXPECT_EQ(plan(s).block_copies.size(), 1u);
  EXPECT_EQ(plan(s).block_copies.size(), 0u) << "the next block is new, with the copy in flight";
}

TEST_F(SchedulerTest, AForkOutlivesTheOneItCopies) {
  Scheduler s = make();
  DecodeRequest r = request(1, 10);
  r.request.sampling.num_choices = 2;
  start(s, r);
  ASSERT_TRUE(s.cancel_choice(key(1), 0));
  EXPECT_EQ(pool.counts().active, 3u);
  StepBatch batch = plan(s);
  EXPECT_EQ(pool.counts().active, 4u) << "what is copied is held until the copy is done";
  finish(s, batch);
  EXPECT_EQ(pool.counts().active, 3u);
  while (s.snapshot().running > 0) step(s);
  auto expected = output(r.request, 1);
  expected.erase(expected.begin());
  EXPECT_EQ(tokens_of(key(1), 1), expected);
  expect_nothing_held(s);
}

TEST_F(SchedulerTest, RegistersPromptAndOutput) {
  Scheduler s = make();
  const DecodeRequest r = request(1, 6);
  start(s, r);
  while (s.snapshot().running > 0) step(s);
  std::vector<TokenId> all = prompt_of(6);
  for (const TokenId t : output(r.request)) all.push_back(t);
  std::vector<kvcache::PrefixHash> hashes;
  hasher.block_hashes("", all, hashes);
  ASSERT_EQ(hashes.size(), 4u);
  EXPECT_EQ(pool.peek_prefix(hashes), 3u) << "the last token drawn has no KV";
}

TEST_F(SchedulerTest, ReceivesOnlyWhatItLacks) {
  Scheduler s = make();
  start(s, request(1, 9));
  ASSERT_TRUE(s.cancel(key(1)));
  DecodeRequest longer = request(2, 11);
  Granted granted = grant(s, longer);
  EXPECT_EQ(granted.first_lacking_block, 2u);
  EXPECT_EQ(granted.blocks.size(), 3u);
  ASSERT_TRUE(s.cancel(key(2)));
  pool.release_quarantine(granted.blocks[2]);
  longer.granule_tokens = 8;
  EXPECT_EQ(grant(s, longer).first_lacking_block, 2u);
  DecodeRequest short_one = request(3, 4);
  short_one.granule_tokens = 8;
  EXPECT_EQ(grant(s, short_one).first_lacking_block, 1u) << "nothing lacks, whatever the granule";
  DecodeRequest other = request(4, 7);
  other.granule_tokens = 8;
  EXPECT_EQ(grant(s, other).first_lacking_block, 0u);
  other.request.key = key(5);
  other.request.salt = "tenant";
  other.granule_tokens = 1;
  EXPECT_EQ(grant(s, other).first_lacking_block, 0u);
}

TEST_F(SchedulerTest, JoinWantsTheRightReservation) {
  Scheduler s = make();
  EXPECT_EQ(s.join(key(1), std::vector<TokenId>{1}, events).error().code, Errc::kNotFound);
  grant(s, request(1, 6));
  EXPECT_EQ(s.join(key(1, 2), std::vector<TokenId>{1}, events).error().code, Errc::kNotFound);
  EXPECT_EQ(s.join(key(1), std::vector<TokenId>{1, 2}, events).error().code,
            Errc::kInvalidArgument);
  EXPECT_TRUE(s.join(key(1), std::vector<TokenId>{1}, events));
  EXPECT_EQ(s.join(key(1), std::vector<TokenId>{1}, events).error().code, Errc::kNotFound);
}

TEST_F(SchedulerTest, RefusesWhatNeverFits) {
  Scheduler s = make();
  EXPECT_THAT(s.reserve(request(1, 65)).error().message, HasSubstr("65 are possible"));
  EXPECT_FALSE(s.reserve(request(1, 0)));
  DecodeRequest r = request(1, 6);
  r.request.sampling.num_choices = kSlots + 1;
  EXPECT_THAT(s.reserve(r).error().message, HasSubstr("choices"));
  r = request(1, 6);
  r.request.sampling.max_tokens = 0;
  EXPECT_FALSE(s.reserve(r));
  r = request(1, 6);
  r.granule_tokens = 0;
  EXPECT_FALSE(s.reserve(r));
  grant(s, request(1, 6));
  EXPECT_THAT(s.reserve(request(1, 6)).error().message, HasSubstr("already"));
}

TEST_F(SchedulerTest, AdmissionLeavesRoomToGrow) {
  Scheduler s = make({.watermark_blocks = 3, .growth_blocks = 2});
  start(s, request(1, 20));  // idle: takes what fits; 11 of 16 blocks left
  const auto refused = s.reserve(request(2, 20, 100));  // 5, and 3 + 2 * 2 to stay free
  ASSERT_TRUE(refused);
  ASSERT_TRUE(std::holds_alternative<Full>(*refused));
  EXPECT_GT(std::get<Full>(*refused).retry_after, Duration::zero());
  EXPECT_EQ(pool.counts().active, 5u) << "a refusal holds nothing";
  grant(s, request(3, 16, 200));
  StepBatch batch;
  engine::StepBudget budget{.rows = 64, .sequences = 64};
  s.plan(budget, batch, events);
  EXPECT_EQ(budget.keep_free_blocks, 3u + 2 * 2);
  EXPECT_EQ(budget.rows, 63u);
  EXPECT_EQ(budget.sequences, 63u);
}

TEST_F(SchedulerTest, AdmissionCountsSequences) {
  Scheduler s = make();
  DecodeRequest r = request(1, 4);
  r.request.sampling.num_choices = 4;
  grant(s, r);
  r.request.key = key(2);
  EXPECT_TRUE(std::holds_alternative<Full>(*s.reserve(r)));
  r.request.sampling.num_choices = 2;
  EXPECT_TRUE(std::holds_alternative<Granted>(*s.reserve(r)));
}

TEST_F(SchedulerTest, FullEstimatesFromStepsLeft) {
  Scheduler s = make();
  DecodeRequest r = request(1, 6);
  r.request.sampling.num_choices = kSlots;
  r.request.sampling.max_tokens = 9;
  start(s, r);
  for (int i = 0; i < 3; ++i) step(s);  // 10 ms each
  const auto full = s.reserve(request(2, 6));
  ASSERT_TRUE(std::holds_alternative<Full>(*full));
  const Duration wait = std::get<Full>(*full).retry_after;
  EXPECT_GT(wait, milliseconds(40));  // 5 or 6 steps, the mean starts above
  EXPECT_LT(wait, milliseconds(150));
}

TEST_F(SchedulerTest, CancelledReservationsAreQuarantined) {
  Scheduler s = make();
  const Granted granted = grant(s, request(1, 10));
  ASSERT_TRUE(s.cancel(key(1)));
  EXPECT_EQ(pool.counts().quarantined, 3u);
  EXPECT_EQ(s.cancel(key(1)).error().code, Errc::kNotFound);
  for (const BlockId b : granted.blocks) pool.release_quarantine(b);
  expect_nothing_held(s);
}

TEST_F(SchedulerTest, CancelHoldsTheBlocksOfAStepInFlight) {
  Scheduler s = make();
  start(s, request(1, 6));
  StepBatch batch = plan(s);
  ASSERT_TRUE(s.cancel(key(1)));
  EXPECT_EQ(pool.counts().active, 2u);
  EXPECT_TRUE(plan(s).empty());
  finish(s, batch);
  EXPECT_TRUE(events.empty());
  expect_nothing_held(s);
}

TEST_F(SchedulerTest, CancelsOneChoice) {
  Scheduler s = make();
  DecodeRequest r = request(1, 6);
  r.request.sampling.num_choices = 3;
  const Granted granted = grant(s, r);
  ASSERT_TRUE(s.cancel_choice(key(1), 1));  // before its KV came
  ASSERT_TRUE(s.join(key(1), write_prompt(r.request, granted.blocks), events));
  EXPECT_EQ(s.snapshot().running, 2u);
  ASSERT_TRUE(s.cancel_choice(key(1), 2));
  EXPECT_FALSE(s.cancel_choice(key(1), 2));
  step(s);
  EXPECT_EQ(take<Token>().size(), 1u);
  ASSERT_TRUE(s.cancel_choice(key(1), 0));
  EXPECT_FALSE(s.cancel_choice(key(1), 0)) << "the request is gone";
  expect_nothing_held(s);
}

TEST_F(SchedulerTest, DeadlinesEndReservedAndRunning) {
  Scheduler s = make();
  for (uint64_t id = 1; id <= 3; ++id) {
    DecodeRequest r = request(id, 6);
    r.request.deadline = kStart + seconds(id);
    if (id == 2) {
      grant(s, r);
    } else {
      start(s, r);
    }
  }
  s.expire(kStart + seconds(2), events);
  ASSERT_EQ(take<Expired>().size(), 2u);
  EXPECT_EQ(take<Expired>()[0].key, key(1));
  EXPECT_FALSE(take<Expired>()[0].reserved);
  EXPECT_TRUE(take<Expired>()[1].reserved);
  EXPECT_EQ(s.snapshot().running, 1u);
  EXPECT_GT(pool.counts().quarantined, 0u);
}

TEST_F(SchedulerTest, TheBudgetServesTheFirstFirst) {
  Scheduler s = make();
  for (const uint64_t id : {3, 1, 2}) start(s, request(id, 4, static_cast<TokenId>(10 * id)));
  StepBatch batch;
  engine::StepBudget budget{.rows = 2, .sequences = 64};
  s.plan(budget, batch, events);
  ASSERT_EQ(batch.sequences.size(), 2u);
  EXPECT_EQ(batch.sequences[0].request, RequestId{1});
  EXPECT_EQ(batch.sequences[1].request, RequestId{2});
}

TEST_F(SchedulerTest, ForcedPreemptionGivesBackWhatIsDelivered) {
  Scheduler s = make();
  const DecodeRequest r = request(1, 6);
  start(s, r);
  step(s), step(s);
  StepBatch batch = plan(s);
  ASSERT_TRUE(s.preempt(key(1), events));
  ASSERT_EQ(take<Preempted>().size(), 1u);
  const Preempted preempted = take<Preempted>()[0];
  const auto expected = output(r.request);
  EXPECT_EQ(preempted.output, (std::vector<TokenId>{expected[0], expected[1], expected[2]}));
  const size_t before = events.size();
  finish(s, batch);
  EXPECT_EQ(events.size(), before) << "what was in flight is drawn again elsewhere";
  EXPECT_FALSE(s.preempt(key(1), events));
  EXPECT_EQ(s.snapshot().preempted, 1u);
  expect_nothing_held(s);
}

TEST_F(SchedulerTest, AResumedChoiceGoesOnWhereItWas) {
  Scheduler s = make();
  DecodeRequest r = request(1, 6);
  r.request.sampling.num_choices = 2;
  start(s, r);
  step(s), step(s);
  ASSERT_TRUE(s.preempt(key(1), events));
  const Preempted preempted = take<Preempted>().at(1);
  ASSERT_EQ(preempted.choice, 1u);
  DecodeRequest again = request(1, 6);
  again.request.key.generation = Generation{2};
  again.request.tokens.insert(again.request.tokens.end(), preempted.output.begin(),
                              preempted.output.end());
  again.request.sampling.first_choice = 1;
  events.clear();
  start(s, again);
  while (s.snapshot().running > 0) step(s);
  const auto whole = output(r.request, 1);
  EXPECT_EQ(tokens_of(key(1, 2), 1), std::vector<TokenId>(whole.begin() + 4, whole.end()));
  EXPECT_EQ(take<Token>().at(0).index, 4u);
  EXPECT_EQ(take<Finished>().at(0).output_tokens, 10u);
}

TEST_F(SchedulerTest, PreemptsEveryNSteps) {
  Scheduler s = make({.watermark_blocks = 0, .growth_blocks = 0, .preempt_every_n_steps = 3});
  start(s, request(1, 6));
  start(s, request(2, 6));
  for (int i = 0; i < 3; ++i) step(s);
  ASSERT_EQ(take<Preempted>().size(), 1u);
  EXPECT_EQ(take<Preempted>()[0].key, key(2)) << "the newest";
}

class TightPoolTest : public SchedulerTest {
 protected:
  TightPoolTest() : SchedulerTest(6) {}
};

TEST_F(TightPoolTest, TheNewestGivesWayAndTheOldestGoesOn) {
  for (const uint32_t depth : {1u, 2u}) {
    Scheduler s = make();
    events.clear();
    // Each takes two blocks and wants a third at its fourth row: there are no more.
    const auto of = [](uint64_t id) {
      DecodeRequest r = request(id, 5, static_cast<TokenId>(100 * (id % 10)));
      r.request.sampling.max_tokens = 8;
      return r;
    };
    for (uint64_t id = 1; id <= 3; ++id) start(s, of(10 * depth + id));
    std::deque<StepBatch> in_flight;
    for (int i = 0; i < 40; ++i) {
      in_flight.push_back(plan(s));
      if (in_flight.size() == depth) finish(s, in_flight.front()), in_flight.pop_front();
    }
    ASSERT_EQ(take<Preempted>().size(), 1u) << "depth " << depth;
    EXPECT_EQ(take<Preempted>()[0].key, key(10 * depth + 3));
    ASSERT_EQ(take<Finished>().size(), 2u);
    for (uint64_t id = 1; id <= 2; ++id) {
      auto expected = output(of(10 * depth + id).request);
      expected.erase(expected.begin());
      EXPECT_EQ(tokens_of(key(10 * depth + id)), expected);
    }
    while (!in_flight.empty()) finish(s, in_flight.front()), in_flight.pop_front();
    expect_nothing_held(s);
  }
}

TEST_F(TightPoolTest, LowerPriorityGivesWayFirst) {
  Scheduler s = make();
  for (uint64_t id = 1; id <= 3; ++id) {
    DecodeRequest r = request(id, 5, static_cast<TokenId>(100 * id));
    r.request.priority = id == 1 ? 5 : 0;
    start(s, r);
  }
  while (take<Preempted>().empty()) step(s);
  EXPECT_EQ(take<Preempted>()[0].key, key(1));
}

TEST_F(SchedulerTest, LeavesOtherOwnersSamplesAlone) {
  Scheduler s = make();
  start(s, request(1, 6));
  StepBatch batch = plan(s);
  engine::StepSequence& other = batch.add_sequence();
  other.client = engine::client_mark(engine::Owner::kPrefill, 0);
  other.num_rows = 0;
  batch.samples.push_back({.sequence = 1, .slot = SlotId{0}});
  s.on_step_done(batch, now, events);
  EXPECT_EQ(take<Token>().size(), 1u);
}

}  // namespace
}  // namespace baton::decode
