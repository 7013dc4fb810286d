#include "common/kvcache/block_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace baton::kvcache {
namespace {

PrefixHash hash_of(int n) {
  PrefixHash h;
  h.bytes[0] = std::byte(n & 255);
  h.bytes[1] = std::byte(n >> 8);
  h.bytes[31] = std::byte{1};
  return h;
}

std::vector<PrefixHash> chain(int first, int length) {
  std::vector<PrefixHash> hashes;
  for (int i = 0; i < length; ++i) hashes.push_back(hash_of(first + i));
  return hashes;
}

// Allocates a table and registers all of it.
std::vector<BlockId> hold(BlockPool& pool, const std::vector<PrefixHash>& hashes) {
  std::vector<BlockId> table;
  EXPECT_TRUE(pool.allocate(static_cast<uint32_t>(hashes.size()), table));
  for (size_t i = 0; i < hashes.size(); ++i) pool.register_hash(table[i], hashes[i]);
  return table;
}

TEST(BlockPool, AllocatesAllOrNothing) {
  BlockPool pool(4);
  std::vector<BlockId> table;
  EXPECT_TRUE(pool.allocate(3, table));
  EXPECT_FALSE(pool.allocate(2, table));
  EXPECT_EQ(table.size(), 3u);
  EXPECT_EQ(pool.counts(), (BlockCounts{.free = 1, .active = 3}));
  pool.release(table);
  EXPECT_EQ(pool.counts(), (BlockCounts{.free = 4}));
  EXPECT_TRUE(pool.consistent());
}

// After any churn: the lowest free ids, in order, so that tables are made of few runs.
TEST(BlockPool, HandsOutTheLowestIdsInOrder) {
  BlockPool pool(5000);
  std::vector<BlockId> table, again;
  ASSERT_TRUE(pool.allocate(5000, table));
  EXPECT_TRUE(std::ranges::is_sorted(table));
  EXPECT_EQ(table.back(), BlockId{4999});
  std::vector<BlockId> given;
  for (size_t i = 0; i < table.size(); i += 1 + i % 7) given.push_back(table[i]);
  std::vector<BlockId> shuffled = given;
  std::ranges::shuffle(shuffled, std::mt19937(1));
  pool.release(shuffled);
  ASSERT_TRUE(pool.allocate(static_cast<uint32_t>(given.size()), again));
  EXPECT_EQ(again, given);
}

// A chain is evicted from its leaf, and yet comes back in order.
TEST(BlockPool, EvictedBlocksAreHandedOutInOrderToo) {
  BlockPool pool(8);
  const auto chained = hold(pool, chain(1, 6));
  pool.release(chained);
  std::vector<BlockId> table;
  ASSERT_TRUE(pool.allocate(8, table));
  EXPECT_TRUE(std::ranges::is_sorted(table));
}

TEST(BlockPool, LastReferenceDecides) {
  BlockPool pool(2);
  std::vector<BlockId> table;
  ASSERT_TRUE(pool.allocate(2, table));
  pool.ref(table[0]);
  pool.register_hash(table[0], hash_of(1));
  pool.unref(table[0]);
  EXPECT_EQ(pool.state(table[0]), BlockState::kActive);
  pool.unref(table[0]);
  EXPECT_EQ(pool.state(table[0]), BlockState::kCached);
  pool.unref(table[1]);
  EXPECT_EQ(pool.state(table[1]), BlockState::kFree);
}

TEST(BlockPool, GenerationGrowsWithNewContent) {
  BlockPool pool(1);
  std::vector<BlockId> table;
  ASSERT_TRUE(pool.allocate(1, table));
  const Generation first = pool.generation(table[0]);
  pool.register_hash(table[0], hash_of(1));
  pool.release(table);
  std::vector<BlockId> again;
  ASSERT_EQ(pool.match_prefix(chain(1, 1), again), 1u);
  EXPECT_EQ(pool.generation(again[0]), first) << "the content is the same";
  pool.release(again);
  again.clear();
  ASSERT_TRUE(pool.allocate(1, again));
  EXPECT_GT(pool.generation(again[0]), first);
}

TEST(BlockPool, MatchesTheLongestRun) {
  BlockPool pool(8);
  const auto table = hold(pool, chain(1, 3));
  std::vector<BlockId> match;
  auto hashes = chain(1, 3);
  hashes.push_back(hash_of(99));
  hashes.push_back(hash_of(3));
  EXPECT_EQ(pool.peek_prefix(hashes), 3u);
  EXPECT_EQ(pool.match_prefix(hashes, match), 3u);
  EXPECT_EQ(match, table);
  EXPECT_EQ(pool.references(table[0]), 2u);
  EXPECT_EQ(pool.peek_prefix(chain(2, 2)), 2u) << "the index itself knows no parents";
  EXPECT_EQ(pool.peek_prefix(chain(50, 2)), 0u);
}

TEST(BlockPool, EvictsOldestChainFromItsLeaf) {
  BlockPool pool(4);
  const auto a = hold(pool, chain(10, 2)), b = hold(pool, chain(20, 2));
  pool.release(a);
  pool.release(b);
  std::vector<BlockId> fresh;
  ASSERT_TRUE(pool.allocate(1, fresh));
  EXPECT_EQ(pool.peek_prefix(chain(10, 2)), 1u);
  EXPECT_EQ(pool.peek_prefix(chain(20, 2)), 2u);
  ASSERT_TRUE(pool.allocate(1, fresh));
  EXPECT_EQ(pool.peek_prefix(chain(10, 2)), 0u);
  EXPECT_EQ(pool.peek_prefix(chain(20, 2)), 2u);
}

TEST(BlockPool, UsingAPrefixMakesItYoung) {
  BlockPool pool(4);
  pool.release(hold(pool, chain(10, 2)));
  pool.release(hold(pool, chain(20, 2)));
  std::vector<BlockId> match, fresh;
  pool.match_prefix(chain(10, 2), match);
  pool.release(match);
  ASSERT_TRUE(pool.allocate(2, fresh));
  EXPECT_EQ(pool.peek_prefix(chain(10, 2)), 2u);
  EXPECT_EQ(pool.peek_prefix(chain(20, 2)), 0u);
}

TEST(BlockPool, NeverEvictsWhatIsReferenced) {
  BlockPool pool(3);
  const auto table = hold(pool, chain(1, 2));
  std::vector<BlockId> fresh;
  EXPECT_FALSE(pool.allocate(2, fresh));
  EXPECT_TRUE(pool.allocate(1, fresh));
  EXPECT_NE(fresh[0], table[0]);
  EXPECT_NE(fresh[0], table[1]);
}

TEST(BlockPool, KeepsTheFirstOfEqualBlocks) {
  BlockPool pool(4);
  const auto first = hold(pool, chain(1, 2)), second = hold(pool, chain(1, 2));
  std::vector<BlockId> match;
  pool.match_prefix(chain(1, 2), match);
  EXPECT_EQ(match, first);
  pool.release(match);
  pool.release(first);
  pool.release(second);
  EXPECT_EQ(pool.counts(), (BlockCounts{.free = 2, .cached = 2})) << "one copy is kept";
  EXPECT_TRUE(pool.consistent());
}

// A sequence that computed a prefix anew goes on under it; the copy that the index knew may go.
TEST(BlockPool, AnEqualBlockTakesTheLostOnesPlace) {
  BlockPool pool(4);
  pool.release(hold(pool, chain(1, 1)));
  const auto own = hold(pool, chain(1, 2));
  std::vector<BlockId> fresh;
  ASSERT_TRUE(pool.allocate(2, fresh));  // the last free block, and the first copy
  EXPECT_EQ(pool.peek_prefix(chain(1, 2)), 0u);
  pool.release(own);
  EXPECT_EQ(pool.peek_prefix(chain(1, 2)), 2u);
  EXPECT_TRUE(pool.consistent());
}

TEST(BlockPool, ReleasingATwinMakesTheKeptOneYoung) {
  BlockPool pool(5);
  const auto kept = hold(pool, chain(1, 1));
  const auto own = hold(pool, chain(1, 2));  // [0] is a twin of kept
  const auto other = hold(pool, chain(30, 1));
  pool.release(kept);
  pool.release(other);
  pool.release(own);
  std::vector<BlockId> fresh;
  ASSERT_TRUE(pool.allocate(3, fresh));
  EXPECT_EQ(pool.peek_prefix(chain(30, 1)), 0u);
  EXPECT_EQ(pool.peek_prefix(chain(1, 2)), 2u) << "the chain outlives what was used before it";
}

TEST(BlockPool, ForgottenBlocksAreNotFound) {
  BlockPool pool(4);
  const auto used = hold(pool, chain(1, 2)), cached = hold(pool, chain(10, 2));
  pool.release(cached);
  pool.forget(used[1]);
  pool.forget(cached[0]);
  EXPECT_EQ(pool.peek_prefix(chain(1, 2)), 1u);
  EXPECT_EQ(pool.peek_prefix(chain(10, 2)), 0u);
  EXPECT_EQ(pool.state(cached[0]), BlockState::kFree);
  pool.release(used);
  EXPECT_EQ(pool.state(used[1]), BlockState::kFree);
  EXPECT_EQ(pool.counts(), (BlockCounts{.free = 2, .cached = 2}));
  EXPECT_TRUE(pool.consistent());
}

TEST(BlockPool, QuarantinedBlocksAreNobodys) {
  BlockPool pool(2);
  std::vector<BlockId> table;
  ASSERT_TRUE(pool.allocate(1, table));
  pool.quarantine(table[0]);
  EXPECT_EQ(pool.counts(), (BlockCounts{.free = 1, .quarantined = 1}));
  std::vector<BlockId> fresh;
  EXPECT_FALSE(pool.allocate(2, fresh));
  EXPECT_TRUE(pool.consistent());
  pool.release_quarantine(table[0]);
  EXPECT_TRUE(pool.allocate(2, fresh));
}

}  // namespace
}  // namespace baton::kvcache
