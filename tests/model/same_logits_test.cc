// The logits of a row are the same bits, however its sequence is cut and whatever stands beside it.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "tests/model/goldens.h"
#include "tests/model/model_under_test.h"

namespace baton::model {
namespace {

constexpr uint32_t kTokens = 300;  // more than an attention tile

struct Case {
  std::string folder;
  DType dtype;
};

class SameLogits : public testing::TestWithParam<Case> {
 protected:
  ModelUnderTest make(TestOptions options = {}) const {
    options.weights = options.cache = GetParam().dtype;
    return ModelUnderTest(data_dir() / GetParam().folder, options);
  }

  static std::vector<TokenId> tokens() {
    std::vector<TokenId> t(kTokens);
    for (uint32_t i = 0; i < kTokens; ++i) t[i] = static_cast<TokenId>(i * i * 7 % 311);
    return t;
  }

  // [kTokens][vocab]
  static std::vector<std::vector<float>> logits(ModelUnderTest& m, uint32_t chunk,
                                                uint32_t first_block = 0) {
    std::vector<std::vector<float>> rows;
    m.run(tokens(), 0, ModelUnderTest::blocks(first_block, 24), chunk,
          [&](uint32_t, std::span<const float> row) { rows.emplace_back(row.begin(), row.end()); });
    return rows;
  }

  static void expect_same(const std::vector<float>& a, std::span<const float> b,
                          const std::string& what) {
    ASSERT_EQ(a.size(), b.size());
    EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0)
        << what << ": " << a[0] << ", " << a[1] << " ... against " << b[0] << ", " << b[1];
  }
  static void expect_same(const std::vector<std::vector<float>>& a,
                          const std::vector<std::vector<float>>& b, const std::string& what) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size() && !HasFailure(); ++i) {
      expect_same(a[i], b[i], what + ", position " + std::to_string(i));
    }
  }
};

TEST_P(SameLogits, InChunksOfAnySize) {
  ModelUnderTest m = make();
  const auto whole = logits(m, kTokens);
  for (const uint32_t chunk : {1u, 5u, 7u, 16u, 33u, 64u, 256u}) {
    expect_same(whole, logits(m, chunk), "chunks of " + std::to_string(chunk));
  }
}

TEST_P(SameLogits, OnOneThreadOrThree) {
  ModelUnderTest two = make();
  const auto expected = logits(two, kTokens);
  for (const unsigned threads : {1u, 3u}) {
    ModelUnderTest m = make({.threads = threads});
    expect_same(expected, logits(m, kTokens), std::to_string(threads) + " threads");
    expect_same(expected, logits(m, 9), std::to_string(threads) + " threads, chunks of 9");
  }
}

TEST_P(SameLogits, InBlocksOfAnySizeAnywhere) {
  ModelUnderTest m = make();
  const auto expected = logits(m, kTokens);
  expect_same(expected, logits(m, kTokens, 77), "other blocks");
  for (const uint32_t block_tokens : {32u, 64u, 256u}) {
    ModelUnderTest other = make({.block_tokens = block_tokens});
    expect_same(expected, logits(other, 48), "blocks of " + std::to_string(block_tokens));
  }
}

// Three sequences in one pass: one that decodes, one in the middle of its prompt, one that starts.
TEST_P(SameLogits, BesideOtherSequences) {
  ModelUnderTest m = make();
  const auto expected = logits(m, kTokens);
  const std::vector<TokenId> all = tokens();
  const auto ignore = [](uint32_t, std::span<const float>) {};
  const auto first = ModelUnderTest::blocks(24, 24), second = ModelUnderTest::blocks(48, 24),
             third = ModelUnderTest::blocks(72, 24);
  m.run(std::span(all).first(270), 0, first, 270, ignore);
  m.run(std::span(all).first(37), 0, second, 37, ignore);

  std::vector<TokenId> rows{all[270]};
  rows.insert(rows.end(), all.begin() + 37, all.begin() + 100);
  rows.insert(rows.end(), all.begin(), all.begin() + 50);
  std::vector<uint32_t> positions{270};
  for (uint32_t p = 37; p < 100; ++p) positions.push_back(p);
  for (uint32_t p = 0; p < 50; ++p) positions.push_back(p);
  const std::vector<ops::SequenceRows> sequences = {
      {0, 1, 270, first.data()}, {1, 63, 37, second.data()}, {64, 50, 0, third.data()}};
  const std::vector<OutputRows> outputs = {
      {2, 0, 50}, {0, 0, 1}, {1, 62, 1}, {1, 0, 3}, {1, 62, 1}};
  m.model().forward(m.stream(), {rows, positions, sequences, outputs}, m.cache(), nullptr);
  std::vector<uint32_t> wanted;
  for (uint32_t p = 0; p < 50; ++p) wanted.push_back(p);
  wanted.insert(wanted.end(), {270, 99, 37, 38, 39, 99});
  const device::Tensor got = m.model().logits(m.stream(), 0, static_cast<uint32_t>(wanted.size()));
  for (size_t i = 0; i < wanted.size(); ++i) {
    expect_same(expected[wanted[i]], {got.row<float>(static_cast<int64_t>(i)), expected[0].size()},
                "output " + std::to_string(i));
  }
}

INSTANTIATE_TEST_SUITE_P(Families, SameLogits,
                         testing::Values(Case{"llama3", DType::kBF16}, Case{"llama3", DType::kF32},
                                         Case{"qwen3", DType::kBF16},
                                         Case{"llama_mha", DType::kBF16}),
                         [](const auto& info) {
                           return info.param.folder + "_" + std::string(name(info.param.dtype));
                         });

}  // namespace
}  // namespace baton::model
