#include "common/text/bpe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "tests/text/random_text.h"

namespace baton::text {
namespace {

// Merges by looking through the whole piece for the best pair, again and again.
std::vector<TokenId> slow_encode(std::vector<TokenId> ids, const std::vector<Merge>& merges) {
  std::map<std::pair<TokenId, TokenId>, std::pair<uint32_t, TokenId>> table;
  for (const Merge& m : merges) table[{m.left, m.right}] = {m.rank, m.merged};
  while (true) {
    size_t best = ids.size();
    uint32_t best_rank = UINT32_MAX;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = table.find({ids[i], ids[i + 1]});
      if (found == table.end() || found->second.first >= best_rank) continue;
      best = i;
      best_rank = found->second.first;
    }
    if (best == ids.size()) return ids;
    ids[best] = table.at({ids[best], ids[best + 1]}).second;
    ids.erase(ids.begin() + static_cast<long>(best) + 1);
  }
}

struct Vocabulary {
  std::vector<std::string> texts;
  std::vector<Merge> merges;
  std::array<TokenId, 256> bytes{};

  Bpe bpe(Bpe::Options options = {}) const {
    return Bpe(options, std::vector<std::string_view>(texts.begin(), texts.end()), bytes, merges);
  }
};

// Letters a, b, c and random tokens of them. With `equal_ranks`, as SentencePiece's scores: all
// pairs that make one token share a rank.
Vocabulary random_vocabulary(Random& random, bool equal_ranks) {
  Vocabulary out;
  out.texts = {"a", "b", "c"};
  out.bytes.fill(-1);
  for (TokenId id = 0; id < 3; ++id) out.bytes[static_cast<uint8_t>('a' + id)] = id;
  for (int i = 0; i < 25; ++i) {
    const std::string text =
        out.texts[random.below(out.texts.size())] + out.texts[random.below(out.texts.size())];
    if (std::ranges::find(out.texts, text) == out.texts.end()) out.texts.push_back(text);
  }
  for (size_t id = 3; id < out.texts.size(); ++id) {
    const std::string& text = out.texts[id];
    for (size_t cut = 1; cut < text.size(); ++cut) {
      const auto left = std::ranges::find(out.texts, text.substr(0, cut));
      const auto right = std::ranges::find(out.texts, text.substr(cut));
      if (left == out.texts.end() || right == out.texts.end()) continue;
      out.merges.push_back({static_cast<TokenId>(left - out.texts.begin()),
                            static_cast<TokenId>(right - out.texts.begin()),
                            static_cast<TokenId>(id), static_cast<uint32_t>(id)});
    }
  }
  if (equal_ranks) return out;
  for (size_t i = 0; i < out.merges.size(); ++i) out.merges[i].rank = static_cast<uint32_t>(i);
  return out;
}

TEST(Bpe, EqualsThePlainSearchForTheBestPair) {
  Random random(3);
  for (int round = 0; round < 600; ++round) {
    const Vocabulary vocabulary = random_vocabulary(random, round % 2 == 0);
    const Bpe bpe = vocabulary.bpe();
    Bpe::Scratch scratch;
    std::string text;
    std::vector<TokenId> letters, got;
    for (uint64_t n = random.below(60); n > 0; --n) {
      letters.push_back(static_cast<TokenId>(random.below(3)));
      text += static_cast<char>('a' + letters.back());
    }
    bpe.encode(text, scratch, got);
    ASSERT_EQ(got, slow_encode(letters, vocabulary.merges)) << text;
  }
}

Vocabulary characters() {
  Vocabulary out;
  out.texts = {"?", "a", "é", "<0xE6>", "<0x97>", "<0xA5>", "aé"};
  out.bytes.fill(-1);
  out.bytes[0xe6] = 3, out.bytes[0x97] = 4, out.bytes[0xa5] = 5;
  out.merges = {{1, 2, 6, 0}};
  return out;
}

std::vector<TokenId> encode(const Bpe& bpe, std::string_view text) {
  Bpe::Scratch scratch;
  std::vector<TokenId> out;
  bpe.encode(text, scratch, out);
  return out;
}

TEST(Bpe, CharactersFallBackToBytesThenToUnknown) {
  using Ids = std::vector<TokenId>;
  const Bpe::Options fallback{.byte_level = false, .byte_fallback = true, .unknown = 0};
  EXPECT_EQ(encode(characters().bpe(fallback), "aé日"), (Ids{6, 3, 4, 5}));
  EXPECT_EQ(encode(characters().bpe(fallback), "aöö"), (Ids{1, 0, 0}));
  Bpe::Options fused = fallback;
  fused.fuse_unknown = true;
  EXPECT_EQ(encode(characters().bpe(fused), "aööaö"), (Ids{1, 0, 1, 0}));
  Bpe::Options dropping = fallback;
  dropping.unknown.reset();
  EXPECT_EQ(encode(characters().bpe(dropping), "aöé"), (Ids{6}));
}

TEST(Bpe, WholePiecesWinWhereMergesAreIgnored) {
  Vocabulary vocabulary = characters();
  vocabulary.merges.clear();
  using Ids = std::vector<TokenId>;
  EXPECT_EQ(encode(vocabulary.bpe({.byte_level = false}), "aé"), (Ids{1, 2}));
  EXPECT_EQ(encode(vocabulary.bpe({.byte_level = false, .ignore_merges = true}), "aé"), (Ids{6}));
}

TEST(Bpe, OfTwoMergesOfAPairTheLaterCounts) {
  Vocabulary vocabulary = characters();
  vocabulary.merges.push_back({1, 2, 0, 1});
  EXPECT_EQ(encode(vocabulary.bpe({.byte_level = false}), "aé"), std::vector<TokenId>{0});
}

TEST(Bpe, NothingGivesNothing) { EXPECT_TRUE(encode(characters().bpe(), "").empty()); }

}  // namespace
}  // namespace baton::text
