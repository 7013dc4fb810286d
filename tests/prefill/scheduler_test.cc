#include "prefill/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/engine/client_mark.h"
#include "prefill/told_layers.h"
#include "tests/prefill/scheduler_fixture.h"

namespace baton::prefill {
namespace {

using testing::HasSubstr;

TEST_F(SchedulerTest, ComputesAPromptAndSamples) {
  Scheduler s = make();
  ASSERT_TRUE(s.add(request(7, 10)));
  now += milliseconds(5);
  StepBatch batch = plan(s);
  ASSERT_EQ(batch.sequences.size(), 1u);
  EXPECT_EQ(batch.sequences[0].request, RequestId{7});
  EXPECT_EQ(batch.sequences[0].tokens, prompt_of(10));
  EXPECT_EQ(batch.sequences[0].block_table.size(), 3u);
  ASSERT_EQ(batch.opens.size(), 1u);
  EXPECT_EQ(batch.opens[0].tokens, prompt_of(10));
  EXPECT_EQ(batch.opens[0].prompt_tokens, 10u);
  now += milliseconds(3);
  finish(s, batch);
  const auto done = take<PromptDone>();
  ASSERT_EQ(done.size(), 1u);
  EXPECT_EQ(done[0].key, key(7));
  EXPECT_EQ(done[0].queued, milliseconds(5));
  EXPECT_EQ(done[0].computed, milliseconds(3));
  ASSERT_EQ(done[0].first_tokens.size(), 1u);
  EXPECT_EQ(done[0].first_tokens[0].result.token,
            fakes::FakeEngine::reference_output(prompt_of(10), {.max_tokens = 1}, 0)[0]);
  EXPECT_EQ(s.snapshot().held_blocks, 3u);
  ASSERT_TRUE(s.release(key(7)));
  EXPECT_EQ(pool.counts().cached, 2u) << "the full blocks stay to be found";
  expect_nothing_held(s);
}

TEST_F(SchedulerTest, ChunksEndOnBlockBoundaries) {
  Scheduler s = make({.chunk_tokens = 6});
  ASSERT_TRUE(s.add(request(1, 11)));
  std::vector<uint32_t> rows;
  for (int i = 0; i < 3; ++i) rows.push_back(step(s).sequences.at(0).num_rows);
  EXPECT_EQ(rows, (std::vector<uint32_t>{4, 4, 3}));
  EXPECT_EQ(take<ChunkDone>().size(), 3u);
  EXPECT_EQ(take<PromptDone>().size(), 1u);
  EXPECT_TRUE(plan(s).empty());
}

TEST_F(SchedulerTest, ZeroChunkTokensMeansWhole) {
  Scheduler s = make({.chunk_tokens = 0});
  ASSERT_TRUE(s.add(request(1, 50)));
  EXPECT_EQ(plan(s).sequences.at(0).num_rows, 50u);
}

TEST_F(SchedulerTest, KeepsWithinTheBudgetAndTakesFromIt) {
  Scheduler s = make();
  for (uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(s.add(request(i, 6, 100 * static_cast<int>(i))));
  engine::StepBudget budget{.rows = 9, .sequences = 8};
  StepBatch batch;
  s.plan(budget, batch, now, events);
  ASSERT_EQ(batch.sequences.size(), 1u) << "three rows are left, which is less than a block";
  EXPECT_EQ(budget.rows, 3u);
  EXPECT_EQ(budget.sequences, 7u);
  const StepBatch next = plan(s, {.rows = 64, .sequences = 1});
  EXPECT_EQ(next.sequences.size(), 1u);
}

TEST_F(SchedulerTest, StepsMayOverlap) {
  Scheduler s = make({.chunk_tokens = 4});
  ASSERT_TRUE(s.add(request(1, 10)));
  StepBatch a = plan(s), b = plan(s), c = plan(s);
  EXPECT_EQ(a.sequences.at(0).position, 0u);
  EXPECT_EQ(b.sequences.at(0).position, 4u);
  EXPECT_EQ(c.sequences.at(0).num_rows, 2u);
  std::vector<kvcache::PrefixHash> hashes;
  hasher.block_hashes("", prompt_of(10), hashes);
  EXPECT_EQ(pool.peek_prefix(hashes), 0u) << "nothing is found before it is computed";
  finish(s, a);
  EXPECT_EQ(pool.peek_prefix(hashes), 1u);
  finish(s, b);
  EXPECT_TRUE(take<PromptDone>().empty());
  finish(s, c);
  EXPECT_EQ(take<PromptDone>().at(0).first_tokens.at(0).result.token,
            fakes::FakeEngine::reference_output(prompt_of(10), {.max_tokens = 1}, 0)[0]);
}

TEST_F(SchedulerTest, FindsThePrefixButComputesTheLastToken) {
  Scheduler s = make();
  ASSERT_TRUE(s.add(request(1, 8)));
  step(s);
  ASSERT_TRUE(s.release(key(1)));
  ASSERT_TRUE(s.add(request(2, 8)));
  const StepBatch batch = step(s);
  EXPECT_EQ(batch.sequences.at(0).position, 4u);
  EXPECT_EQ(take<PromptDone>().at(1).cached_tokens, 4u);
  EXPECT_EQ(take<PromptDone>()[0].first_tokens[0].result.token,
            take<PromptDone>()[1].first_tokens[0].result.token);
  EXPECT_EQ(s.snapshot().cached_tokens, 4u);
  EXPECT_EQ(s.snapshot().prompt_tokens, 16u);
}

TEST_F(SchedulerTest, PrefixesOfOtherTenantsAreNotFound) {
  Scheduler s = make();
  ASSERT_TRUE(s.add(request(1, 8)));
  step(s);
  PrefillRequest other = request(2, 8);
  other.request.salt = "tenant";
  ASSERT_TRUE(s.add(other));
  EXPECT_EQ(step(s).sequences.at(0).position, 0u);
}

TEST_F(SchedulerTest, ScoresEveryPromptToken) {
  Scheduler s = make({.chunk_tokens = 4});
  ASSERT_TRUE(s.add(request(1, 8)));
  step(s), step(s);
  ASSERT_TRUE(s.release(key(1)));
  PrefillRequest scored = request(2, 7);
  scored.prompt_logprobs = 0;
  scored.sample = false;
  ASSERT_TRUE(s.add(scored));
  StepBatch first = step(s);
  EXPECT_EQ(first.sequences.at(0).position, 0u) << "cached tokens have no logits";
  EXPECT_EQ(first.sequences[0].next_tokens, (std::vector<TokenId>{2, 3, 4, 5}));
  StepBatch second = step(s);
  EXPECT_TRUE(second.samples.empty());
  const PromptDone done = take<PromptDone>().at(1);
  EXPECT_TRUE(done.first_tokens.empty());
  ASSERT_EQ(done.prompt_scores.size(), 6u);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(done.prompt_scores[i].token, i + 2);
  ASSERT_TRUE(s.release(key(2)));
  expect_nothing_held(s);
}

TEST_F(SchedulerTest, SamplesEachChoice) {
  Scheduler s = make();
  PrefillRequest r = request(1, 5);
  r.request.sampling.num_choices = 3;
  r.request.sampling.first_choice = 2;
  ASSERT_TRUE(s.add(r));
  const StepBatch batch = step(s);
  EXPECT_EQ(batch.samples.size(), 3u);
  const PromptDone done = take<PromptDone>().at(0);
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(done.first_tokens.at(i).choice, i + 2);
    EXPECT_EQ(done.first_tokens[i].result.token,
              fakes::FakeEngine::reference_output(prompt_of(5), {.max_tokens = 1}, i + 2)[0]);
  }
}

TEST_F(SchedulerTest, ReportsLayersOfWhatIsHandedOff) {
  Scheduler s = make({.chunk_tokens = 8});
  for (uint64_t id = 1; id <= 2; ++id) {  // the second finds the first's blocks
    PrefillRequest r = request(id, 10);
    r.hand_off = true;
    ASSERT_TRUE(s.add(r));
    std::vector<StepBatch> batches;  // reported spans point into them
    events.clear();
    while (take<PromptDone>().empty()) batches.push_back(step(s));
    EXPECT_EQ(take<PromptDone>()[0].cached_tokens, id == 1 ? 0u : 8u);
    std::vector<uint32_t> next_block(kLayers, 0);
    for (const LayersReady& ready : take<LayersReady>()) expect_ready(ready, key(id), next_block);
    EXPECT_EQ(next_block, std::vector<uint32_t>(kLayers, 3));
    EXPECT_EQ(slots.available(), slots.size()) << "the other worker samples from here on";
    EXPECT_FALSE(s.take(key(id)));
    ASSERT_TRUE(s.release(key(id)));
  }
  expect_nothing_held(s);
}

// Few words while there is much to compute still, a layer by itself at the end.
TEST(ToldLayers, AreAtLeastSoManyBytesApartAndEndWithTheLast) {
  std::vector<uint32_t> told;
  for (uint32_t layers = 1; layers <= 130; ++layers) {
    for (const uint64_t bytes :
         {uint64_t{0}, uint64_t{1}, kLeastToldBytes / 20, kLeastToldBytes / 3, kLeastToldBytes - 1,
          kLeastToldBytes, 9 * kLeastToldBytes}) {
      tell_in_last_chunk(layers, bytes, told);
      ASSERT_FALSE(told.empty());
      EXPECT_EQ(told.back(), layers - 1);
      uint64_t before = 0;
      for (const uint32_t layer : told) {
        const uint64_t piece = (layer + 1 - before) * bytes;
        EXPECT_TRUE(piece >= kLeastToldBytes || told.size() == 1) << layers << ' ' << bytes;
        before = layer + 1;
      }
      if (bytes >= kLeastToldBytes && layers > 1) {
        EXPECT_EQ(told[told.size() - 2], layers - 2) << "one layer is left";
      }
    }
  }
}

TEST_F(SchedulerTest, TellsReadersHalfOfWhatIsLeftEachTime) {
  constexpr uint32_t kMany = 30;
  kvcache::DigestTable table(kPoolBlocks, kMany);
  SchedulerConfig config{.chunk_tokens = 8, .layer_token_bytes = kLeastToldBytes};
  config.limits = {.max_rows = 64, .max_sequences = 8, .max_slots = kSlots, .max_context = 1000};
  Scheduler s(config, {pool, hasher, table, slots});
  PrefillRequest r = request(1, 10);
  r.hand_off = true;
  ASSERT_TRUE(s.add(r));
  for (const std::vector<uint32_t>& told :
       {std::vector<uint32_t>{29}, {7, 18, 23, 26, 27, 28, 29}}) {
    StepBatch batch = plan(s);
    EXPECT_EQ(batch.told_layers, told);
    batch.sequences[0].digests.resize(kMany * 2);
    events.clear();
    for (uint32_t layer = 0; layer < kMany; ++layer) s.on_layer(batch, layer, events);
    uint32_t next = 0;
    for (const LayersReady& ready : take<LayersReady>()) {
      EXPECT_EQ(ready.layer_begin, std::exchange(next, ready.layer_end));
      EXPECT_EQ(ready.digests.size(), ready.blocks.size() * (ready.layer_end - ready.layer_begin));
    }
    EXPECT_EQ(next, kMany);
    EXPECT_EQ(take<LayersReady>().size(), told.size());
    for (auto& sample : batch.samples) sample.result.token = 1;
    s.on_step_done(batch, now, events);
  }
}

TEST_F(SchedulerTest, BlocksWithoutDigestsAreNotHandedOff) {
  Scheduler s = make();
  ASSERT_TRUE(s.add(request(1, 12)));
  step(s);
  ASSERT_TRUE(s.release(key(1)));
  PrefillRequest r = request(2, 12);
  r.hand_off = true;
  ASSERT_TRUE(s.add(r));
  EXPECT_EQ(step(s).sequences.at(0).position, 0u);
  EXPECT_EQ(take<PromptDone>().at(1).cached_tokens, 0u);
}

TEST_F(SchedulerTest, AlwaysDigestLetsThemBeHandedOffLater) {
  Scheduler s = make({.always_digest = true});
  ASSERT_TRUE(s.add(request(1, 12)));
  step(s);
  ASSERT_TRUE(s.release(key(1)));
  PrefillRequest r = request(2, 12);
  r.hand_off = true;
  ASSERT_TRUE(s.add(r));
  EXPECT_EQ(step(s).sequences.at(0).position, 8u);
}

TEST_F(SchedulerTest, DoubtfulContentIsForgotten) {
  Scheduler s = make();
  ASSERT_TRUE(s.add(request(1, 12)));
  step(s);
  ASSERT_TRUE(s.cancel_doubtful(key(1), 5));
  ASSERT_TRUE(s.add(request(2, 12)));
  EXPECT_EQ(step(s).sequences.at(0).position, 4u);
}

TEST_F(SchedulerTest, CachedContentThatIsDoubtfulIsForgottenBeforeThePromptIsDone) {
  Scheduler s = make({.chunk_tokens = 4});
  ASSERT_TRUE(s.add(request(1, 12)));
  for (int i = 0; i < 3; ++i) step(s);
  ASSERT_TRUE(s.release(key(1)));
  ASSERT_TRUE(s.add(request(2, 20)));  // finds three blocks and computes two
  StepBatch first = plan(s), second = plan(s);
  ASSERT_EQ(first.sequences.at(0).position, 12u);
  finish(s, first);
  ASSERT_TRUE(s.cancel_doubtful(key(2), 4));
  EXPECT_EQ(s.cancel_doubtful(key(2), 4).error().code, Errc::kNotFound);
  std::vector<kvcache::PrefixHash> hashes;
  hasher.block_hashes("", prompt_of(20), hashes);
  EXPECT_EQ(pool.peek_prefix(hashes), 1u);
  finish(s, second);
  EXPECT_EQ(pool.peek_prefix(hashes), 1u) << "what was in flight is not registered";
  expect_nothing_held(s);
  ASSERT_TRUE(s.add(request(3, 20)));
  EXPECT_EQ(step(s).sequences.at(0).position, 4u) << "a retry computes the doubtful blocks again";
}

TEST_F(SchedulerTest, DoubtAboutAWaitingRequestEndsIt) {
  Scheduler s = make();
  ASSERT_TRUE(s.add(request(1, 12)));
  ASSERT_TRUE(s.cancel_doubtful(key(1), 0));
  expect_nothing_held(s);
}

TEST_F(SchedulerTest, TakesAPromptOverLocally) {
  Scheduler s = make();
  PrefillRequest r = request(1, 9);
  r.request.sampling.num_choices = 2;
  ASSERT_TRUE(s.add(r));
  StepBatch batch = plan(s);
  EXPECT_FALSE(s.take(key(1))) << "not computed yet";
  finish(s, batch);
  auto over = s.take(key(1));
  ASSERT_TRUE(over);
  EXPECT_EQ(over->table.size(), 3u);
  EXPECT_EQ(over->slots.size(), 2u);
  EXPECT_EQ(over->first_tokens.size(), 2u);
  EXPECT_EQ(over->request.tokens, prompt_of(9));
  std::vector<kvcache::PrefixHash> hashes;
  hasher.block_hashes("", prompt_of(9), hashes);
  EXPECT_EQ(over->chain, hashes.back());
  EXPECT_EQ(s.snapshot().held, 0u);
  EXPECT_EQ(pool.counts().active, 3u) << "the references go along";
  EXPECT_FALSE(s.release(key(1)));
}

TEST_F(SchedulerTest, ServesByWhenTheFirstTokenIsWanted) {
  Scheduler s = make();
  const auto add = [&](uint64_t id, int arrival, std::optional<int> due) {
    PrefillRequest r = request(id, 4, static_cast<TokenId>(10 * id));
    r.request.arrival = kStart + milliseconds(arrival);
    if (due) r.request.due = kStart + milliseconds(*due);
    ASSERT_TRUE(s.add(r));
  };
  add(1, 0, 500);
  add(2, 3, 400);
  add(3, 4, std::nullopt);  // wanted when it comes
  add(4, 5, 500);           // as the first, and later
  add(5, 6, 300);
  std::vector<uint64_t> order;
  for (const auto& sequence : plan(s).sequences) order.push_back(sequence.request.value);
  EXPECT_EQ(order, (std::vector<uint64_t>{3, 5, 2, 1, 4}));
}

TEST_F(SchedulerTest, NobodyPassesAHeadThatWaitsForRoom) {
  Scheduler s = make({.chunk_tokens = 4});
  ASSERT_TRUE(s.add(request(1, 40)));       // 10 of 16 blocks
  ASSERT_TRUE(s.add(request(2, 40, 100)));  // must wait
  ASSERT_TRUE(s.add(request(3, 4, 200)));   // would fit
  for (int i = 0; i < 10; ++i) {
    const StepBatch batch = step(s);
    ASSERT_EQ(batch.sequences.size(), 1u);
    EXPECT_EQ(batch.sequences[0].request, RequestId{1});
  }
  EXPECT_TRUE(plan(s).empty()) << "the first is held";
  EXPECT_EQ(s.snapshot().waiting, 2u);
  ASSERT_TRUE(s.release(key(1)));
  EXPECT_EQ(step(s).sequences.at(0).request, RequestId{2});
}

TEST_F(SchedulerTest, StartedRequestsGoOnBehindAWaitingHead) {
  Scheduler s = make({.chunk_tokens = 4});
  ASSERT_TRUE(s.add(request(1, 40)));
  step(s);
  PrefillRequest urgent = request(2, 40, 100);
  urgent.request.due = kStart - seconds(1);
  ASSERT_TRUE(s.add(urgent));
  EXPECT_EQ(step(s).sequences.at(0).request, RequestId{1});
}

TEST_F(SchedulerTest, LeavesTheBlocksThatRunningSequencesNeed) {
  Scheduler s = make();
  ASSERT_TRUE(s.add(request(1, 40)));
  EXPECT_TRUE(plan(s, {.rows = 64, .sequences = 8, .keep_free_blocks = 7}).empty());
  EXPECT_EQ(pool.counts().active, 0u);
  EXPECT_FALSE(plan(s, {.rows = 64, .sequences = 8, .keep_free_blocks = 6}).empty());
}

TEST_F(SchedulerTest, WaitsForSlotsToo) {
  Scheduler s = make();
  std::vector<SlotId> taken;
  ASSERT_TRUE(slots.allocate(kSlots, taken));
  ASSERT_TRUE(s.add(request(1, 5)));
  EXPECT_TRUE(plan(s).empty());
  EXPECT_EQ(pool.counts().active, 0u);
  slots.release(taken);
  EXPECT_FALSE(plan(s).empty());
}

TEST_F(SchedulerTest, RefusesWhatCannotBeServed) {
  Scheduler s = make({.max_queue = 2});
  PrefillRequest r = request(1, 0);
  EXPECT_EQ(s.add(r).error().code, Errc::kInvalidArgument);
  EXPECT_THAT(s.add(request(1, 65)).error().message, HasSubstr("cache 64"));
  EXPECT_THAT(s.add(request(1, 1001)).error().message, HasSubstr("context holds 1000"));
  r = request(1, 5);
  r.request.sampling.num_choices = kSlots + 1;
  EXPECT_THAT(s.add(r).error().message, HasSubstr("choices"));
  r.request.sampling.num_choices = 1;
  r.request.prompt_tokens = 6;
  EXPECT_FALSE(s.add(r));
  ASSERT_TRUE(s.add(request(1, 5)));
  EXPECT_THAT(s.add(request(1, 5)).error().message, HasSubstr("already"));
  ASSERT_TRUE(s.add(request(2, 5)));
  EXPECT_EQ(s.add(request(3, 5)).error().code, Errc::kResourceExhausted);
  PrefillRequest resumed = request(4, 5);
  resumed.request.prompt_tokens = 4;
  EXPECT_TRUE(s.add(resumed)) << "it was admitted once";
}

TEST_F(SchedulerTest, CancelFreesAtEveryStage) {
  Scheduler s = make({.chunk_tokens = 4});
  ASSERT_TRUE(s.add(request(1, 8)));
  ASSERT_TRUE(s.cancel(key(1)));  // waiting
  expect_nothing_held(s);
  ASSERT_TRUE(s.add(request(1, 8)));
  step(s);
  ASSERT_TRUE(s.cancel(key(1)));  // between chunks
  expect_nothing_held(s);
  ASSERT_TRUE(s.add(request(1, 8)));
  step(s), step(s);
  ASSERT_TRUE(s.cancel(key(1)));  // held
  expect_nothing_held(s);
  EXPECT_EQ(s.cancel(key(1)).error().code, Errc::kNotFound);
}

TEST_F(SchedulerTest, BlocksOfACancelledStepAreHeldUntilItIsDone) {
  Scheduler s = make({.chunk_tokens = 4});
  ASSERT_TRUE(s.add(request(1, 8)));
  StepBatch a = plan(s), b = plan(s);
  ASSERT_TRUE(s.cancel(key(1)));
  EXPECT_EQ(s.snapshot().running, 0u);
  EXPECT_EQ(pool.counts().active, 2u);
  ASSERT_TRUE(s.add(request(1, 8, 50))) << "the key is free again";
  events.clear();
  finish(s, a);
  EXPECT_EQ(pool.counts().active, 2u);
  finish(s, b);
  EXPECT_EQ(pool.counts().active, 0u);
  EXPECT_TRUE(events.empty());
  EXPECT_EQ(pool.counts().cached, 0u) << "nothing of it is registered";
}

TEST_F(SchedulerTest, DeadlinesEndWhatIsNotComputed) {
  Scheduler s = make({.chunk_tokens = 4});
  for (uint64_t id = 1; id <= 3; ++id) {
    PrefillRequest r = request(id, 8, static_cast<TokenId>(100 * id));
    r.request.deadline = kStart + seconds(id);
    ASSERT_TRUE(s.add(r));
  }
  step(s), step(s);  // 1 is held
  StepBatch in_flight = plan(s);
  s.expire(kStart + seconds(2), events);
  ASSERT_EQ(take<Expired>().size(), 1u);
  EXPECT_EQ(take<Expired>()[0].key, key(2));
  finish(s, in_flight);
  s.expire(kStart + seconds(3), events);
  EXPECT_EQ(take<Expired>().at(1).key, key(3));
  ASSERT_TRUE(s.release(key(1)));
  expect_nothing_held(s);
}

TEST_F(SchedulerTest, LeavesOtherOwnersSequencesAlone) {
  Scheduler s = make();
  ASSERT_TRUE(s.add(request(1, 5)));
  StepBatch batch;
  engine::StepSequence& other = batch.add_sequence();
  other.client = engine::client_mark(engine::Owner::kDecode, 0);
  engine::StepBudget budget{.rows = 64, .sequences = 8};
  s.plan(budget, batch, now, events);
  ASSERT_EQ(batch.sequences.size(), 2u);
  EXPECT_EQ(batch.samples.at(0).sequence, 1u);
  batch.samples[0].result.token = 3;
  s.on_layer(batch, 0, events);
  s.on_step_done(batch, now, events);
  EXPECT_EQ(take<PromptDone>().at(0).first_tokens.at(0).result.token, 3);
}

}  // namespace
}  // namespace baton::prefill
