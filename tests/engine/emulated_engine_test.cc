#include "common/engine/emulated_engine.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <vector>

#include "common/engine/batch_work.h"
#include "common/engine/client_mark.h"

namespace baton::engine {
namespace {

constexpr uint32_t kBlocks = 32;
const HashModel::Vocabulary kVocabulary{1000, {}};

class EmulatedEngineTest : public testing::Test {
 protected:
  EmulatedEngineTest()
      : layout_(EmulatedEngine::layout(16)),
        memory_(kBlocks * layout_.block_bytes() / 8),
        cache_(*kvcache::KvCache::create(std::as_writable_bytes(std::span(memory_)), layout_,
                                         kBlocks)) {}

  void start(Duration step, uint32_t depth = 2) {
    engine_ = EmulatedEngine::create(cache_, {64, 4, 4, 256}, {.fixed = to_seconds(step)},
                                     kVocabulary, depth)
                  .value();
  }

  EngineEvent wait() {
    EngineEvent event;
    while (!engine_->poll(event)) {
      pollfd fd{engine_->event_fd(), POLLIN, 0};
      EXPECT_EQ(::poll(&fd, 1, 10'000), 1) << "no event";
    }
    return event;
  }

  // A prompt of so many tokens, to be digested, or (0) the next row of it.
  void fill(StepBatch& batch, uint32_t position, uint32_t rows) {
    batch.clear();
    StepSequence& s = batch.add_sequence();
    s.position = position;
    s.num_rows = std::max(rows, 1u);
    for (uint32_t i = 0; i < rows; ++i) s.tokens.push_back(static_cast<TokenId>(i));
    s.last_of = SlotId{0};
    s.digest = rows > 0;
    s.client = client_mark(rows > 0 ? Owner::kPrefill : Owner::kDecode, 0);
    for (uint32_t b = 0; b < 8; ++b) s.block_table.push_back(BlockId{b});
    if (rows > 0) batch.opens.push_back({.slot = SlotId{0}, .params = {.seed = 3}});
    batch.samples.push_back({.sequence = 0, .slot = SlotId{0}});
  }

  const kvcache::KvLayout layout_;
  std::vector<uint64_t> memory_;
  const kvcache::KvCache cache_;
  std::unique_ptr<EmulatedEngine> engine_;
};

TEST_F(EmulatedEngineTest, RunsStepsInOrderAheadOfTheirTokens) {
  start(microseconds(100));
  StepBatch batches[2];
  std::vector<TokenId> drawn;
  fill(batches[0], 0, 40);
  ASSERT_TRUE(engine_->submit(&batches[0]));
  for (uint32_t i = 1; i <= 30; ++i) {  // each is planned before the token of the last is known
    fill(batches[i % 2], 39 + i, 0);
    ASSERT_TRUE(engine_->submit(&batches[i % 2]));
    StepBatch third;
    EXPECT_FALSE(engine_->submit(&third));  // two are in flight
    for (;;) {
      const EngineEvent event = wait();
      if (event.kind == EngineEvent::Kind::kLayerDone) continue;
      EXPECT_EQ(event.batch, &batches[(i + 1) % 2]);
      drawn.push_back(event.batch->samples[0].result.token);
      break;
    }
  }
  drawn.push_back(wait().batch->samples[0].result.token);
  std::vector<TokenId> prompt;
  for (TokenId t = 0; t < 40; ++t) prompt.push_back(t);
  Sampling sampling;
  sampling.params.seed = 3;
  sampling.max_tokens = 31;
  EXPECT_EQ(drawn, HashModel::reference_output(HashModel::words_of(layout_), kVocabulary, prompt,
                                               sampling, 0));
  EXPECT_EQ(engine_->steps_done(), 31u);
  EXPECT_FALSE(engine_->running_for(Clock::now()));
}

TEST_F(EmulatedEngineTest, TakesNoLessThanItsProfileSays) {
  start(milliseconds(5));
  StepBatch batch;
  fill(batch, 0, 20);
  const TimePoint before = Clock::now();
  ASSERT_TRUE(engine_->submit(&batch));
  while (wait().kind != EngineEvent::Kind::kStepDone) {
  }
  EXPECT_GE(Clock::now() - before, milliseconds(5));
  EXPECT_GE(batch.duration, milliseconds(5));
}

TEST_F(EmulatedEngineTest, TellsTheLayersThatAreAskedFor) {
  start(microseconds(400));
  for (const std::vector<uint32_t>& told : {std::vector<uint32_t>{}, {3}, {1, 3}}) {
    StepBatch batch;
    fill(batch, 0, 20);
    batch.told_layers = told;
    ASSERT_TRUE(engine_->submit(&batch));
    std::vector<uint32_t> heard;
    for (;;) {
      const EngineEvent event = wait();
      if (event.kind == EngineEvent::Kind::kStepDone) break;
      heard.push_back(event.layer);
      for (uint32_t b = 0; b < 2; ++b) {  // both blocks' digests are there by now
        EXPECT_NE(batch.sequences[0].digests[event.layer * 2 + b], 0u);
      }
    }
    EXPECT_EQ(heard, told.empty() ? (std::vector<uint32_t>{0, 1, 2, 3}) : told);
  }
}

TEST_F(EmulatedEngineTest, StopsAfterTheStepThatRuns) {
  start(milliseconds(20));
  StepBatch first, second, third;
  fill(first, 0, 4);
  fill(second, 4, 0);
  ASSERT_TRUE(engine_->submit(&first));
  while (!engine_->running_for(Clock::now())) {
  }
  ASSERT_TRUE(engine_->submit(&second));
  engine_->stop();
  EXPECT_EQ(engine_->steps_done(), 1u);
  EXPECT_FALSE(engine_->submit(&third));
  EngineEvent event;
  uint32_t done = 0;
  while (engine_->poll(event)) done += event.kind == EngineEvent::Kind::kStepDone;
  EXPECT_EQ(done, 1u);
}

TEST(WorkOf, CountsABatch) {
  StepBatch batch;
  StepSequence& chunk = batch.add_sequence();
  chunk.position = 100;
  chunk.num_rows = 20;
  chunk.client = client_mark(Owner::kPrefill, 1);
  StepSequence& row = batch.add_sequence();
  row.position = 499;
  row.num_rows = 1;
  row.client = client_mark(Owner::kDecode, 1);
  batch.samples.push_back({.sequence = 1});
  const latency::StepWork work = work_of(batch);
  const latency::StepWork expected =
      latency::StepWork::prefill(20, 100, 0) + latency::StepWork::decode(1, 500);
  EXPECT_EQ(work.rows, expected.rows);
  EXPECT_EQ(work.decode_rows, 1u);
  EXPECT_EQ(work.context, expected.context);
  EXPECT_EQ(work.attended, expected.attended);
  EXPECT_EQ(work.outputs, 1u);
  EXPECT_EQ(work.kind(), latency::StepKind::kMixed);
}

}  // namespace
}  // namespace baton::engine
