// A model computed by several ranks together gives the same bits as by one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <mutex>
#include <numeric>
#include <string>
#include <vector>

#include "common/kvcache/digest.h"
#include "common/model/shards.h"
#include "tests/fakes/rank_threads.h"
#include "tests/fakes/temp_dir.h"
#include "tests/fakes/tiny_model.h"
#include "tests/model/model_under_test.h"

namespace baton::model {
namespace {

using testing::HasSubstr;

constexpr uint32_t kTokens = 70;

formats::ModelConfig config_of(std::string_view architecture, uint32_t heads, uint32_t kv_heads) {
  formats::ModelConfig config = fakes::tiny_config(architecture);
  config.num_heads = heads;
  config.num_kv_heads = kv_heads;
  return config;
}

struct Case {
  std::string architecture;
  DType dtype;
  bool tied;
};

// What a forward pass leaves behind.
struct Outcome {
  std::vector<std::vector<float>> logits;  // [kTokens][vocab]
  uint64_t kv_digest = 0;                  // of all layers and heads
};

Outcome compute(const std::filesystem::path& path, DType dtype, uint32_t chunk,
                collective::Collective* ranks) {
  ModelUnderTest m(path, {.weights = dtype, .cache = dtype, .threads = 1, .collective = ranks});
  std::vector<TokenId> tokens(kTokens);
  for (uint32_t i = 0; i < kTokens; ++i) tokens[i] = static_cast<TokenId>(i * i * 7 % 311);
  const std::vector<BlockId> table = ModelUnderTest::blocks(3, 5);
  Outcome outcome;
  m.run(tokens, 0, table, chunk, [&](uint32_t, std::span<const float> row) {
    outcome.logits.emplace_back(row.begin(), row.end());
  });
  const kvcache::KvLayout& layout = m.cache().layout();
  for (uint32_t i = 0; i < layout.blocks_for(kTokens); ++i) {
    const uint32_t position = i * layout.block_tokens;
    for (uint32_t layer = 0; layer < layout.num_layers(); ++layer) {
      outcome.kv_digest += kvcache::digest_layer(layout, m.cache().at(table[i]), layer, position,
                                                 std::min(layout.block_tokens, kTokens - position));
    }
  }
  return outcome;
}

class TensorParallel : public testing::TestWithParam<Case> {
 protected:
  TensorParallel() {
    formats::ModelConfig config = config_of(GetParam().architecture, 8, 4);
    config.tie_embeddings = GetParam().tied;
    fakes::write_hf_model(dir_ / "model", fakes::make_tiny_model(config, 5));
  }
  const fakes::TempDir dir_;
};

TEST_P(TensorParallel, EveryDegreeGivesTheSameBits) {
  const Outcome alone = compute(dir_ / "model", GetParam().dtype, 33, nullptr);
  for (const uint32_t size : {2u, 3u, 4u}) {
    std::vector<Outcome> outcomes(size);
    fakes::run_ranks(size, [&](std::unique_ptr<collective::Collective> ranks) {
      Outcome& mine = outcomes[ranks->rank()];
      mine = compute(dir_ / "model", GetParam().dtype, size == 2 ? 1 : 33, ranks.get());
      ASSERT_TRUE(ranks->health());
    });
    uint64_t digest = 0;
    for (uint32_t r = 0; r < size; ++r) {
      const Outcome& mine = outcomes[r];
      digest += mine.kv_digest;
      ASSERT_EQ(mine.logits.size(), kTokens);
      for (uint32_t i = 0; i < kTokens; ++i) {
        ASSERT_EQ(mine.logits[i].size(), alone.logits[i].size());
        ASSERT_EQ(std::memcmp(mine.logits[i].data(), alone.logits[i].data(),
                              alone.logits[i].size() * sizeof(float)),
                  0)
            << "rank " << r << " of " << size << ", position " << i;
      }
    }
    EXPECT_EQ(digest, alone.kv_digest) << "KV of " << size << " ranks";
  }
}

INSTANTIATE_TEST_SUITE_P(Models, TensorParallel,
                         testing::Values(Case{"llama", DType::kF32, false},
                                         Case{"llama", DType::kBF16, true},
                                         Case{"qwen2", DType::kBF16, false},
                                         Case{"qwen3", DType::kBF16, true}),
                         [](const auto& info) {
                           return info.param.architecture + std::string(name(info.param.dtype)) +
                                  (info.param.tied ? "Tied" : "");
                         });

// Every part of every dimension belongs to one rank, and heads to the rank that has their KV head.
TEST(Shards, SplitEverythingOnce) {
  const formats::ModelConfig config = config_of("llama", 12, 6);
  for (uint32_t size = 1; size <= 6; ++size) {
    std::map<formats::TensorRole, uint64_t> end;
    for (uint32_t rank = 0; rank < size; ++rank) {
      const Shards s = Shards::create(config, rank, size).value();
      using enum formats::TensorRole;
      const std::map<formats::TensorRole, uint64_t> rows = {
          {kQ, 12 * config.head_dim},     {kK, 6 * config.head_dim},
          {kV, 6 * config.head_dim},      {kO, config.hidden},
          {kGate, config.intermediate},   {kUp, config.intermediate},
          {kDown, config.hidden},         {kLmHead, config.vocab_size},
          {kQBias, 12 * config.head_dim}, {kKBias, 6 * config.head_dim}};
      for (const auto& [role, all] : rows) {
        const Range own = s.rows_of(role, all);
        EXPECT_EQ(own.begin, end[role]);
        EXPECT_GT(own.size(), 0u);
        end[role] = own.end;
        EXPECT_TRUE(rank + 1 < size || own.end == all);
      }
      EXPECT_EQ(s.rows_of(kQ, 0).begin, s.rows_of(kK, 0).begin * 2);
      EXPECT_EQ(s.rows_of(kFinalNorm, config.hidden).size(), config.hidden);
    }
  }
}

TEST(Shards, ARankWithoutAHeadIsRefused) {
  const auto refused = Shards::create(config_of("llama", 4, 2), 0, 4);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message,
              HasSubstr("degree of 4 is more than the model's 2 KV heads"));
}

}  // namespace
}  // namespace baton::model
