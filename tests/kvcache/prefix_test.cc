#include "common/kvcache/prefix.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <set>

#include "common/kvcache/prefix_index.h"

namespace baton::kvcache {
namespace {

const ModelKey kModel{"w", "a", "t"};

class PrefixHasherTest : public testing::TestWithParam<PrefixHashKind> {
 protected:
  static std::vector<PrefixHash> hashes(const ModelKey& model, std::string_view salt,
                                        const std::vector<TokenId>& tokens,
                                        uint32_t block_tokens = 4) {
    PrefixHasher hasher(model, block_tokens, GetParam());
    std::vector<PrefixHash> out;
    hasher.block_hashes(salt, tokens, out);
    return out;
  }
};
INSTANTIATE_TEST_SUITE_P(Kinds, PrefixHasherTest,
                         testing::Values(PrefixHashKind::kSha256, PrefixHashKind::kFast));

TEST(Sha256, MatchesTheStandardsExample) {
  Sha256 sha;
  const std::string abc = "abc";
  for (int i = 0; i < 2; ++i) {  // finish() starts anew
    sha.update(std::as_bytes(std::span(abc)));
    EXPECT_EQ(to_hex(sha.finish()),
              "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  }
}

TEST_P(PrefixHasherTest, HashesFullBlocksOnly) {
  std::vector<TokenId> tokens(11);
  std::iota(tokens.begin(), tokens.end(), 0);
  EXPECT_EQ(hashes(kModel, "", tokens).size(), 2u);
  EXPECT_EQ(hashes(kModel, "", {1, 2, 3}).size(), 0u);
}

TEST_P(PrefixHasherTest, EqualPrefixesHaveEqualHashes) {
  const auto a = hashes(kModel, "s", {1, 2, 3, 4, 5, 6, 7, 8});
  const auto b = hashes(kModel, "s", {1, 2, 3, 4, 5, 6, 7, 9});
  EXPECT_EQ(a[0], b[0]);
  EXPECT_FALSE(a[1] == b[1]);
}

TEST_P(PrefixHasherTest, ABlockDependsOnEverythingBeforeIt) {
  const auto a = hashes(kModel, "", {1, 2, 3, 4, 9, 9, 9, 9});
  const auto b = hashes(kModel, "", {1, 2, 3, 5, 9, 9, 9, 9});
  EXPECT_FALSE(a[1] == b[1]);
}

TEST_P(PrefixHasherTest, SaltsModelsAndBlockSizesNeverMix) {
  const std::vector<TokenId> tokens{1, 2, 3, 4};
  const auto base = hashes(kModel, "", tokens)[0];
  EXPECT_FALSE(base == hashes(kModel, "x", tokens)[0]);
  EXPECT_FALSE(base == hashes({"w", "a", "u"}, "", tokens)[0]);
  EXPECT_FALSE(base == hashes({"w", "b", "t"}, "", tokens)[0]);
  EXPECT_FALSE(base == hashes({"v", "a", "t"}, "", tokens)[0]);
  EXPECT_FALSE(base == hashes({"wa", "", "t"}, "", tokens)[0]);
  EXPECT_FALSE(base == hashes(kModel, "", tokens, 2)[0]);
}

TEST(PrefixHasher, IsCryptographicUnlessToldOtherwise) {
  PrefixHasher plain(kModel, 4), sha(kModel, 4, PrefixHashKind::kSha256);
  const std::vector<TokenId> tokens{1, 2, 3, 4};
  EXPECT_EQ(plain.next(plain.root(""), tokens), sha.next(sha.root(""), tokens));
}

TEST(ModelKey, TextTellsKeysApart) {
  EXPECT_NE((ModelKey{"a", "b", ""}).to_string(), (ModelKey{"a", "", "b"}).to_string());
  EXPECT_NE((ModelKey{"a\" adapter=\"", "", ""}).to_string(), (ModelKey{"a", "", ""}).to_string());
}

TEST(PrefixIndex, SurvivesRandomInsertsAndErases) {
  PrefixIndex index(64);
  std::mt19937 random(1);
  std::vector<std::optional<BlockId>> expected(200);
  const auto key = [](uint32_t i) {  // few distinct homes: long runs
    PrefixHash h;
    h.bytes[0] = std::byte(i % 5 * 40);
    h.bytes[8] = std::byte(i);
    return h;
  };
  for (int step = 0; step < 20000; ++step) {
    const uint32_t i = random() % expected.size();
    if (expected[i]) {
      index.erase(key(i));
      expected[i].reset();
    } else if (index.size() < 64) {
      index.insert(key(i), BlockId{i});
      expected[i] = BlockId{i};
    }
    const uint32_t j = random() % expected.size();
    ASSERT_EQ(index.find(key(j)), expected[j]);
  }
}

}  // namespace
}  // namespace baton::kvcache
