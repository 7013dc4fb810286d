#include "common/engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <set>
#include <thread>
#include <vector>

#include "common/kvcache/digest.h"
#include "tests/engine/driver.h"
#include "tests/model/goldens.h"

namespace baton::engine {
namespace {

using testing::ElementsAre;

class EngineTest : public testing::Test {
 protected:
  EngineTest() : d(model::data_dir() / "llama3", {}) {}

  // `rows` tokens of a sequence from `position` on.
  StepSequence& add(StepBatch& batch, uint32_t position, uint32_t rows,
                    const std::vector<BlockId>& table) {
    StepSequence& s = batch.add_sequence();
    s.position = position;
    s.num_rows = rows;
    for (uint32_t i = 0; i < rows; ++i) s.tokens.push_back((position + i) * 37 % 300);
    s.block_table = table;
    return s;
  }

  uint64_t digest(const StepSequence& s, uint32_t layer, uint32_t block, uint32_t tokens) {
    return kvcache::digest_layer(d.layout(),
                                 d.model().host_cache().block(s.block_table[block]).data(), layer,
                                 block * d.layout().block_tokens, tokens);
  }

  Driver d;
};

TEST_F(EngineTest, RefusesMoreThanItsDepthUntilAStepDoneIsPolled) {
  std::array<StepBatch, 3> batches;
  for (StepBatch& b : batches) add(b, 0, 4, d.allocate(1));
  EXPECT_TRUE(d.engine().submit(&batches[0]));
  EXPECT_TRUE(d.engine().submit(&batches[1]));
  EXPECT_FALSE(d.engine().submit(&batches[2]));
  EXPECT_EQ(d.wait().batch, &batches[0]);
  EXPECT_TRUE(d.engine().submit(&batches[2]));
  EXPECT_EQ(d.wait().batch, &batches[1]);
  EXPECT_EQ(d.wait().batch, &batches[2]);
  EXPECT_EQ(d.engine().steps_done(), 3u);
  EXPECT_GT(batches[2].duration, Duration::zero());
}

TEST_F(EngineTest, TellsNoLayerWhereNobodyReads) {
  StepBatch batch;
  add(batch, 0, 20, d.allocate(2));
  EXPECT_THAT(d.run(batch), ElementsAre());
}

// A layer is read while the engine computes the next ones.
TEST_F(EngineTest, TellsEachLayerOnceWithItsDigests) {
  StepBatch batch;
  add(batch, 0, 40, d.allocate(3)).digest = true;
  add(batch, 0, 5, d.allocate(1));
  ASSERT_TRUE(d.engine().submit(&batch));
  for (uint32_t layer = 0; layer < 2; ++layer) {
    const EngineEvent event = d.wait();
    ASSERT_EQ(event.kind, EngineEvent::Kind::kLayerDone);
    EXPECT_EQ(event.batch, &batch);
    EXPECT_EQ(event.layer, layer);
    const StepSequence& s = batch.sequences[0];
    ASSERT_EQ(s.digests.size(), 2u * 3u);
    EXPECT_EQ(s.digests[layer * 3 + 0], digest(s, layer, 0, 16));
    EXPECT_EQ(s.digests[layer * 3 + 1], digest(s, layer, 1, 16));
    EXPECT_EQ(s.digests[layer * 3 + 2], digest(s, layer, 2, 8));
  }
  EXPECT_EQ(d.wait().kind, EngineEvent::Kind::kStepDone);
  EXPECT_TRUE(batch.sequences[1].digests.empty());
}

TEST_F(EngineTest, TellsOnlyTheLayersAskedForWithTheDigestsOfAll) {
  StepBatch batch;
  add(batch, 0, 40, d.allocate(3)).digest = true;
  batch.told_layers = {1};
  ASSERT_TRUE(d.engine().submit(&batch));
  const EngineEvent event = d.wait();
  ASSERT_EQ(event.kind, EngineEvent::Kind::kLayerDone);
  EXPECT_EQ(event.layer, 1u);
  const StepSequence& s = batch.sequences[0];
  for (uint32_t layer = 0; layer < 2; ++layer) {
    EXPECT_EQ(s.digests[layer * 3], digest(s, layer, 0, 16));
  }
  EXPECT_EQ(d.wait().kind, EngineEvent::Kind::kStepDone);
}

// What the digest of a block is does not depend on the chunks it was written in.
TEST_F(EngineTest, ALaterChunkDigestsTheBlocksItTouches) {
  const auto table = d.allocate(3);
  StepBatch whole, first, second;
  add(whole, 0, 40, d.allocate(3)).digest = true;
  add(first, 0, 24, table).digest = true;
  add(second, 24, 16, table).digest = true;
  d.run(whole);
  d.run(first);
  d.run(second);
  const auto& all = whole.sequences[0].digests;
  const auto& then = second.sequences[0].digests;  // blocks 1 and 2
  EXPECT_EQ(first.sequences[0].digests[0], all[0]);
  EXPECT_THAT(then, ElementsAre(all[1], all[2], all[4], all[5]));
}

TEST_F(EngineTest, CopiesBlocksBeforeTheStepComputes) {
  if (!d.model().device().info().host_addressable) GTEST_SKIP() << "reads the device's memory";
  const auto table = d.allocate(2);
  StepBatch prompt;
  add(prompt, 0, 20, table);
  d.run(prompt);
  const BlockId copy = d.allocate(1)[0];
  StepBatch batch;
  batch.block_copies.push_back({table[1], copy});
  add(batch, 20, 1, {table[0], copy});
  d.run(batch);
  StepBatch straight;
  add(straight, 20, 1, table);
  d.run(straight);
  const auto a = d.model().cache().block(table[1]), b = d.model().cache().block(copy);
  EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin()));
}

TEST_F(EngineTest, ABatchMayHoldCopiesOnly) {
  if (!d.model().device().info().host_addressable) GTEST_SKIP() << "reads the device's memory";
  StepBatch batch;
  const auto blocks = d.allocate(2);
  const auto from = d.model().cache().block(blocks[0]), to = d.model().cache().block(blocks[1]);
  std::fill(from.begin(), from.end(), std::byte{7});
  batch.block_copies.push_back({blocks[0], blocks[1]});
  d.run(batch);
  EXPECT_EQ(to[0], std::byte{7});
  EXPECT_EQ(to.back(), std::byte{7});
}

// The choices of one prompt draw from the same row, each with its own numbers; also where the row
// is scored. A bias that were applied twice would show.
TEST_F(EngineTest, ChoicesOfOneRowDrawForThemselves) {
  std::vector<ops::LogitBias> bias;
  for (TokenId t = 0; t < 160; ++t) bias.push_back({t, -4.0f});
  const auto draw = [&](bool scored, uint32_t choices, uint32_t first_choice) {
    StepBatch batch;
    StepSequence& s = add(batch, 0, 30, d.allocate(2));
    if (scored) {
      s.prompt_logprobs = 0;
      s.next_tokens = s.tokens;
    }
    for (uint32_t c = 0; c < choices; ++c) {
      batch.opens.push_back({.slot = SlotId{c},
                             .params = {.temperature = 4, .seed = 99},
                             .logit_bias = bias,
                             .tokens = s.tokens,
                             .prompt_tokens = 30,
                             .choice = first_choice + c});
      batch.samples.push_back({.sequence = 0, .slot = SlotId{c}});
    }
    d.run(batch);
    std::vector<TokenId> tokens;
    for (const StepSample& sample : batch.samples) tokens.push_back(sample.result.token);
    return tokens;
  };
  const std::vector<TokenId> together = draw(false, 16, 0);
  EXPECT_GT(std::set<TokenId>(together.begin(), together.end()).size(), 3u);
  EXPECT_EQ(draw(true, 16, 0), together);
  for (uint32_t c = 0; c < 16; ++c) EXPECT_THAT(draw(false, 1, c), ElementsAre(together[c]));
}

TEST_F(EngineTest, StopFinishesTheStepThatRunsAndTakesNoMore) {
  std::array<StepBatch, 2> batches;
  for (StepBatch& b : batches) add(b, 0, 200, d.allocate(13));
  ASSERT_TRUE(d.engine().submit(&batches[0]));
  ASSERT_TRUE(d.engine().submit(&batches[1]));
  d.engine().stop();
  const uint64_t done = d.engine().steps_done();
  EXPECT_LE(done, 2u);
  EngineEvent event;
  for (uint64_t i = 0; i < done; ++i) {
    ASSERT_TRUE(d.engine().poll(event));
    EXPECT_EQ(event.batch, &batches[i]);
  }
  EXPECT_FALSE(d.engine().poll(event));
  StepBatch late;
  add(late, 0, 1, d.allocate(1));
  EXPECT_FALSE(d.engine().submit(&late));
  EXPECT_EQ(d.engine().running_for(Clock::now()), std::nullopt);
}

TEST_F(EngineTest, SleepsWhenIdle) {
  const std::clock_t before = std::clock();  // of all threads
  EngineEvent event;
  std::this_thread::sleep_for(milliseconds(300));
  EXPECT_FALSE(d.engine().poll(event));
  EXPECT_LT(std::clock() - before, CLOCKS_PER_SEC / 10);
}

TEST_F(EngineTest, CreateRefusesWhatTheModelIsTooSmallFor) {
  model::ModelUnderTest& m = d.model();
  const auto create = [&](StepLimits limits) {
    return Engine::create(m.model(), {m.cache(), m.cache()}, m.device(), m.ops(), limits);
  };
  const StepLimits fits = {256, 16, 16, 1024};
  EXPECT_TRUE(create(fits));
  for (const StepLimits& limits : {StepLimits{257, 16, 16, 1024}, StepLimits{256, 17, 16, 1024},
                                   StepLimits{256, 16, 17, 1024}, StepLimits{256, 16, 16, 1025}}) {
    const auto engine = create(limits);
    ASSERT_FALSE(engine);
    EXPECT_EQ(engine.error().code, Errc::kInvalidArgument);
  }
}

TEST_F(EngineTest, CreateRefusesACacheOfAnotherLayout) {
  model::ModelUnderTest& m = d.model();
  kvcache::KvLayout layout = m.cache().layout();
  layout.rope += "?";
  const auto cache = kvcache::KvCache::create(m.cache().memory(), layout, 4).value();
  const auto engine =
      Engine::create(m.model(), {cache, cache}, m.device(), m.ops(), {16, 1, 1, 100});
  ASSERT_FALSE(engine);
  EXPECT_THAT(engine.error().message, testing::HasSubstr("laid out"));
}

}  // namespace
}  // namespace baton::engine
