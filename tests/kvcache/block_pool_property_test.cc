// Random sequences of operations against a model that knows which chain is which.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "common/kvcache/block_pool.h"

namespace baton::kvcache {
namespace {

constexpr uint32_t kBlockTokens = 4;

class PoolModel {
 public:
  explicit PoolModel(uint32_t seed) : random_(seed), pool_(24) {}

  void step() {
    switch (below(5)) {
      case 0:
      case 1:
        start();
        break;
      case 2:
        grow();
        break;
      case 3:
        finish();
        break;
      case 4:
        quarantine_some();
        break;
    }
    check();
  }

  void finish_all() {
    while (!live_.empty()) finish();
    while (!quarantined_.empty()) pop_quarantine();
    EXPECT_EQ(pool_.counts().active, 0u);
    EXPECT_EQ(pool_.counts().quarantined, 0u);
    check();
  }

 private:
  struct Sequence {
    std::string salt;
    std::vector<TokenId> tokens;  // full blocks only
    std::vector<PrefixHash> hashes;
    std::vector<BlockId> table;
    size_t registered = 0;
  };
  // What a block holds, as the model remembers having written it.
  struct Content {
    Generation generation;
    std::string salt;
    std::vector<TokenId> prefix;
  };

  uint32_t below(uint32_t n) { return std::uniform_int_distribution<uint32_t>(0, n - 1)(random_); }

  // Few tokens, so that prefixes collide often.
  void start() {
    Sequence s;
    s.salt = below(4) == 0 ? "tenant" : "";
    const uint32_t blocks = 1 + below(5);
    for (uint32_t i = 0; i < blocks * kBlockTokens; ++i) {
      s.tokens.push_back(i % kBlockTokens == 0 ? static_cast<TokenId>(below(2)) : 7);
    }
    hasher_.block_hashes(s.salt, s.tokens, s.hashes);
    s.registered = pool_.match_prefix(s.hashes, s.table);
    for (size_t i = 0; i < s.table.size(); ++i) expect_content(s, i);
    const auto lacking = static_cast<uint32_t>(s.hashes.size() - s.table.size());
    const bool fits = lacking <= pool_.available();
    EXPECT_EQ(pool_.allocate(lacking, s.table), fits);
    if (!fits) return pool_.release(s.table);
    for (size_t i = s.registered; i < s.table.size(); ++i) write(s, i);
    live_.push_back(std::move(s));
  }

  void write(const Sequence& s, size_t i) {
    content_[s.table[i].value] = {
        pool_.generation(s.table[i]),
        s.salt,
        {s.tokens.begin(), s.tokens.begin() + static_cast<ptrdiff_t>((i + 1) * kBlockTokens)}};
  }

  void expect_content(const Sequence& s, size_t i) {
    const Content& c = content_.at(s.table[i].value);
    EXPECT_EQ(c.generation, pool_.generation(s.table[i]));
    EXPECT_EQ(c.salt, s.salt);
    ASSERT_LE(c.prefix.size(), s.tokens.size());
    EXPECT_TRUE(std::equal(c.prefix.begin(), c.prefix.end(), s.tokens.begin()));
    EXPECT_EQ(c.prefix.size(), (i + 1) * kBlockTokens);
  }

  void grow() {  // a step wrote one more block of some sequence
    if (live_.empty()) return;
    Sequence& s = live_[below(static_cast<uint32_t>(live_.size()))];
    if (s.registered == s.table.size()) return;
    pool_.register_hash(s.table[s.registered], s.hashes[s.registered]);
    ++s.registered;
  }

  void finish() {
    if (live_.empty()) return;
    const auto victim = live_.begin() + below(static_cast<uint32_t>(live_.size()));
    pool_.release(victim->table);
    live_.erase(victim);
  }

  void quarantine_some() {
    if (below(2) == 0 && !quarantined_.empty()) return pop_quarantine();
    std::vector<BlockId> block;
    if (!pool_.allocate(1, block)) return;
    pool_.quarantine(block[0]);
    quarantined_.push_back(block[0]);
  }
  void pop_quarantine() {
    pool_.release_quarantine(quarantined_.back());
    quarantined_.pop_back();
  }

  // Every reference belongs to a live table, and nothing else is active.
  void check() {
    ASSERT_TRUE(pool_.consistent());
    std::map<uint32_t, uint32_t> references;
    for (const Sequence& s : live_) {
      for (const BlockId b : s.table) ++references[b.value];
    }
    ASSERT_EQ(pool_.counts().active, references.size());
    for (const auto& [block, n] : references) ASSERT_EQ(pool_.references(BlockId{block}), n);
    ASSERT_EQ(pool_.counts().quarantined, quarantined_.size());
    check_chains();
  }

  // A cached block's parents can all be found: no prefix is broken in its middle.
  void check_chains() {
    for (const auto& [block, c] : content_) {
      const BlockId id{block};
      if (pool_.state(id) != BlockState::kCached || pool_.generation(id) != c.generation) continue;
      std::vector<PrefixHash> hashes;
      hasher_.block_hashes(c.salt, c.prefix, hashes);
      ASSERT_EQ(pool_.peek_prefix(hashes), hashes.size()) << "block " << block << " is lost";
    }
  }

  std::mt19937 random_;
  PrefixHasher hasher_{{"w", "", "t"}, kBlockTokens};
  BlockPool pool_;
  std::vector<Sequence> live_;
  std::vector<BlockId> quarantined_;
  std::map<uint32_t, Content> content_;
};

TEST(BlockPoolProperty, RandomHistoriesKeepTheInvariants) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    PoolModel model(seed);
    for (int i = 0; i < 1000 && !testing::Test::HasFatalFailure(); ++i) model.step();
    model.finish_all();
    ASSERT_FALSE(testing::Test::HasFailure()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace baton::kvcache
