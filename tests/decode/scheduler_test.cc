#include <gtest/gtest.h>

#include <deque>

#include "common/engine/client_mark.h"
#include "tests/decode/scheduler_fixture.h"

namespace baton::decode {
namespace {

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

TEST_F(SchedulerTest, ADoubledKeyIsRefusedAndKeepsNothing) {
  Scheduler s = make();
  const DecodeRequest r = request(1, 6);
  const Granted granted = grant(s, r);
  const auto counts = pool.counts();
  const auto free_slots = slots.available();

  engine::HandOver again{.request = r.request, .first_tokens = {1}};
  pool.allocate(2, again.table);
  slots.allocate(1, again.slots);
  EXPECT_EQ(s.adopt(std::move(again), events).error().code, Errc::kInvalidArgument);
  EXPECT_TRUE(events.empty());
  EXPECT_EQ(pool.counts().active, counts.active);
  EXPECT_EQ(slots.available(), free_slots);

  // The first one is as it was.
  ASSERT_TRUE(s.join(r.request.key, write_prompt(r.request, granted.blocks), events));
  EXPECT_EQ(s.snapshot().running, 1u);
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
