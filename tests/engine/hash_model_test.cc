#include "common/engine/hash_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "common/engine/emulated_engine.h"
#include "common/kvcache/digest.h"

namespace baton::engine {
namespace {

constexpr uint32_t kBlockTokens = 16, kBlocks = 64;
const HashModel::Vocabulary kVocabulary{50'000, {2}};

class HashModelTest : public testing::Test {
 protected:
  HashModelTest()
      : layout_(EmulatedEngine::layout(kBlockTokens)),
        memory_(kBlocks * layout_.block_bytes() / 8),
        cache_(*kvcache::KvCache::create(std::as_writable_bytes(std::span(memory_)), layout_,
                                         kBlocks)),
        model_(cache_, 4, kVocabulary) {}

  // Rows [at, at + rows) of a sequence in the first blocks, and a draw.
  TokenId step(std::vector<TokenId> tokens, uint32_t at, bool open) {
    batch_.clear();
    StepSequence& s = batch_.add_sequence();
    s.position = at;
    s.num_rows = tokens.empty() ? 1 : static_cast<uint32_t>(tokens.size());
    s.last_of = SlotId{1};
    s.tokens = tokens;
    s.digest = true;
    for (uint32_t b = 0; b < 20; ++b) s.block_table.push_back(BlockId{(b * 7 + 3) % kBlocks});
    if (open) {
      batch_.opens.push_back(
          {.slot = SlotId{1}, .params = params_, .tokens = std::move(tokens), .choice = 3});
    }
    batch_.samples.push_back({.sequence = 0, .slot = SlotId{1}});
    model_.begin(batch_);
    for (uint32_t l = 0; l < model_.num_layers(); ++l) model_.write_layer(batch_, l);
    model_.finish(batch_);
    return batch_.samples[0].result.token;
  }

  std::vector<TokenId> expected(const std::vector<TokenId>& prompt, uint32_t n) const {
    Sampling sampling;
    sampling.params = params_;
    sampling.max_tokens = n;
    return HashModel::reference_output(HashModel::words_of(layout_), kVocabulary, prompt, sampling,
                                       3);
  }

  const kvcache::KvLayout layout_;
  std::vector<uint64_t> memory_;
  const kvcache::KvCache cache_;
  HashModel model_;
  const ops::SamplingParams params_{.seed = 11, .logprobs = 2, .want_logprobs = true};
  StepBatch batch_;
};

std::vector<TokenId> some_prompt(uint32_t n) {
  std::vector<TokenId> prompt(n);
  std::iota(prompt.begin(), prompt.end(), 100);
  return prompt;
}

TEST_F(HashModelTest, DrawsWhatTheReferenceSays) {
  const auto prompt = some_prompt(37);
  std::vector<TokenId> drawn = {step(prompt, 0, true)};
  for (uint32_t i = 1; i < 60; ++i) drawn.push_back(step({}, 36 + i, false));
  EXPECT_EQ(drawn, expected(prompt, 60));
  EXPECT_EQ(batch_.samples[0].result.num_top, 1u);
}

TEST_F(HashModelTest, DigestsAreThoseOfTheBytes) {
  step(some_prompt(37), 0, true);
  const StepSequence& s = batch_.sequences[0];
  ASSERT_EQ(s.digests.size(), 4u * 3);
  EXPECT_EQ(s.digests[1 * 3 + 2],
            kvcache::digest_layer(layout_, cache_.at(s.block_table[2]), 1, 32, 5));
}

// Whichever byte of whichever block, early or late: the next token is another one.
TEST_F(HashModelTest, AnyChangedByteIsAnotherToken) {
  const auto prompt = some_prompt(100);
  const auto right = expected(prompt, 3);
  for (uint32_t i = 0; i < 200; ++i) {
    ASSERT_EQ(step(prompt, 0, true), right[0]);
    ASSERT_EQ(step({}, 100, false), right[1]);
    const uint32_t position = i * 37 % 100;
    std::byte* vector = cache_.at(batch_.sequences[0].block_table[position / kBlockTokens],
                                  i % layout_.num_layers(), i % 2, 0, position % kBlockTokens);
    vector[i % 8] ^= std::byte{1};
    EXPECT_NE(step({}, 101, false), right[2]) << i;
  }
}

TEST_F(HashModelTest, NeverDrawsWhatIsNeverDrawn) {
  Sampling sampling;
  sampling.max_tokens = 500;
  const HashModel::Vocabulary few{4, {1, 3}};
  const auto output = HashModel::reference_output(8, few, some_prompt(5), sampling, 0);
  EXPECT_EQ(std::ranges::count(output, 0) + std::ranges::count(output, 2), 500);
  EXPECT_GT(std::ranges::count(output, 0), 100);
  EXPECT_GT(std::ranges::count(output, 2), 100);
}

TEST_F(HashModelTest, DependsOnTokensSeedAndChoice) {
  Sampling sampling;
  sampling.max_tokens = 12;
  const auto prompt = some_prompt(9);
  const auto one = HashModel::reference_output(8, kVocabulary, prompt, sampling, 0);
  EXPECT_NE(one, HashModel::reference_output(8, kVocabulary, prompt, sampling, 1));
  auto other = prompt;
  other[0] += 1;
  EXPECT_NE(one, HashModel::reference_output(8, kVocabulary, other, sampling, 0));
  sampling.params.seed = 1;
  EXPECT_NE(one, HashModel::reference_output(8, kVocabulary, prompt, sampling, 0));
}

}  // namespace
}  // namespace baton::engine
