#include "common/engine/step_codec.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace baton::engine {
namespace {

StepBatch random_batch(uint32_t seed) {
  std::mt19937 random(seed);
  const auto pick = [&](uint32_t below) { return static_cast<uint32_t>(random() % below); };
  const auto tokens = [&] {
    std::vector<TokenId> t(pick(20));
    for (TokenId& token : t) token = static_cast<TokenId>(random());
    return t;
  };
  const auto blocks = [&] {
    std::vector<BlockId> b(pick(9));
    for (BlockId& block : b) block = BlockId{pick(1000)};
    return b;
  };
  StepBatch batch;
  batch.step = random();
  for (uint32_t i = pick(4); i > 0; --i) {
    batch.opens.push_back({SlotId{pick(9)},
                           {.temperature = 0.5f, .top_k = pick(9), .seed = random()},
                           {{static_cast<TokenId>(pick(9)), 1.5f}},
                           tokens(),
                           tokens(),
                           pick(9),
                           pick(9)});
  }
  for (uint32_t i = pick(5); i > 0; --i) {
    StepSequence& s = batch.add_sequence();
    s.position = pick(1000);
    s.num_rows = pick(1000);
    s.tokens = tokens();
    s.last_of = SlotId{pick(9)};
    s.block_table = blocks();
    s.digest = pick(2) == 0;
    s.prompt_logprobs = static_cast<int32_t>(pick(9)) - 1;
    s.next_tokens = tokens();
  }
  for (uint32_t i = pick(4); i > 0; --i) batch.samples.push_back({pick(9), SlotId{pick(9)}, {}});
  for (uint32_t i = pick(4); i > 0; --i) {
    batch.block_copies.emplace_back(BlockId{pick(9)}, BlockId{pick(9)});
  }
  batch.arrived = blocks();
  for (uint32_t i = pick(4); i > 0; --i) batch.told_layers.push_back(pick(30));
  return batch;
}

// What a step is given arrives as it was, in a batch that had another step before: the bytes of the
// two are the same.
TEST(StepCodec, EveryStepRoundTrips) {
  StepBatch back;
  std::vector<std::byte> bytes, again;
  for (uint32_t seed = 0; seed < 500; ++seed) {
    const StepBatch batch = random_batch(seed);
    encode(batch, &bytes);
    ASSERT_TRUE(decode(bytes, &back));
    EXPECT_EQ(back.step, batch.step);
    ASSERT_EQ(back.sequences.size(), batch.sequences.size());
    for (size_t i = 0; i < batch.sequences.size(); ++i) {
      const StepSequence &a = batch.sequences[i], &b = back.sequences[i];
      EXPECT_EQ(a.tokens, b.tokens);
      EXPECT_EQ(a.block_table, b.block_table);
      EXPECT_EQ(a.prompt_logprobs, b.prompt_logprobs);
      EXPECT_EQ(a.digest, b.digest);
    }
    EXPECT_EQ(back.block_copies, batch.block_copies);
    EXPECT_EQ(back.arrived, batch.arrived);
    EXPECT_EQ(back.told_layers, batch.told_layers);
    encode(back, &again);
    EXPECT_EQ(again, bytes);
  }
}

// A rank decodes into one batch all its life.
TEST(StepCodec, ABatchKeepsTheMemoryOfEarlierStepsAndNoMore) {
  StepBatch batch, back;
  for (int i = 0; i < 3; ++i) batch.add_sequence().tokens.assign(100, 1);
  std::vector<std::byte> bytes;
  encode(batch, &bytes);
  for (int step = 0; step < 100; ++step) ASSERT_TRUE(decode(bytes, &back));
  EXPECT_EQ(back.sequences.size() + back.spare.size(), 3u);
}

TEST(StepCodec, WhatIsNoStepIsRefused) {
  StepBatch back;
  std::vector<std::byte> bytes;
  encode(random_batch(3), &bytes);
  for (size_t cut = 0; cut < bytes.size(); ++cut) {
    EXPECT_FALSE(decode(std::span(bytes).first(cut), &back));
  }
  bytes.push_back(std::byte{0});
  EXPECT_FALSE(decode(bytes, &back));
  std::mt19937 random(1);
  for (int i = 0; i < 3000; ++i) {  // whatever comes, nothing is read beyond it
    std::vector<std::byte> noise(random() % 200);
    for (std::byte& b : noise) b = std::byte(random() % 4 == 0 ? random() : 0);
    (void)decode(noise, &back);
  }
}

}  // namespace
}  // namespace baton::engine
