#include "kvtransfer/read_list.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

namespace baton::kvtransfer {
namespace {

// Layers [l0, l1) of blocks [b0, b1); the digest of (layer, block) is layer * 1000 + block.
Announce announce(uint32_t l0, uint32_t l1, uint32_t b0, uint32_t b1) {
  Announce a;
  a.layer_begin = l0;
  a.layer_end = l1;
  a.first_block = b0;
  a.parts.resize(1);
  for (uint32_t b = b0; b < b1; ++b) a.parts[0].blocks.emplace_back(b + 50);
  for (uint32_t l = l0; l < l1; ++l)
    for (uint32_t b = b0; b < b1; ++b) a.parts[0].digests.push_back(l * 1000 + b);
  return a;
}

TEST(ReadList, WholeColumnsWhereTheyFit) {
  ReadList list(2, 0, 4);
  EXPECT_EQ(*list.add(announce(0, 2, 0, 4), {}), 8u);
  const std::optional<Read> read = list.next(5);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->layer_end, 2u);
  EXPECT_EQ(read->block_end, 2u);  // two columns of two layers
  EXPECT_EQ(read->digest, 0u + 1 + 1000 + 1001);
}

TEST(ReadList, AColumnThatIsTooMuchIsCutByLayers) {
  ReadList list(5, 0, 2);
  EXPECT_TRUE(list.add(announce(0, 5, 0, 2), {}));
  const auto expect = [&list](uint64_t max_cells, uint32_t l0, uint32_t l1, uint32_t block) {
    const std::optional<Read> read = list.next(max_cells);
    ASSERT_TRUE(read);
    EXPECT_EQ(read->layer_begin, l0);
    EXPECT_EQ(read->layer_end, l1);
    EXPECT_EQ(read->block_begin, block);
    EXPECT_EQ(read->block_end, block + 1);
  };
  expect(2, 0, 2, 0);
  expect(0, 2, 3, 0);   // one at least
  expect(10, 3, 5, 0);  // what is left of a column comes before another
  expect(5, 0, 5, 1);
  EXPECT_TRUE(list.empty());
}

TEST(ReadList, AnotherBlockForTheSamePlaceIsCorrupt) {
  ReadList list(2, 0, 4);
  EXPECT_TRUE(list.add(announce(0, 1, 0, 4), {}));
  Announce other = announce(1, 2, 0, 4);
  other.parts[0].blocks[2] = BlockId{7};
  EXPECT_EQ(list.add(other, {}).error().code, Errc::kDataCorrupt);
}

TEST(ReadList, AgainComesFirst) {
  ReadList list(2, 0, 4);
  EXPECT_TRUE(list.add(announce(0, 2, 0, 4), {}));
  Read read = *list.next(2);
  read.attempt = 1;
  list.add_again(read);
  EXPECT_EQ(list.next(2)->attempt, 1u);
  EXPECT_EQ(list.next(2)->attempt, 0u);
}

// Announces overlap and repeat at random: every cell is read exactly once, with its digest.
TEST(ReadList, EveryCellOnceWhateverIsRepeated) {
  for (uint32_t seed = 1; seed <= 300; ++seed) {
    std::mt19937 random(seed);
    const auto pick = [&random](uint32_t lo, uint32_t hi) { return lo + random() % (hi - lo + 1); };
    const uint32_t layers = pick(1, 6), first = pick(0, 3), end = first + pick(1, 7);
    ReadList list(layers, first, end);
    std::map<std::pair<uint32_t, uint32_t>, int> reads;
    uint64_t new_cells = 0;
    while (!list.all_announced()) {
      const uint32_t l0 = pick(0, layers - 1), b0 = pick(first, end - 1);
      const result<uint64_t> added =
          list.add(announce(l0, pick(l0 + 1, layers), b0, pick(b0 + 1, end)), {});
      ASSERT_TRUE(added);
      new_cells += *added;
      while (pick(0, 2) != 0 || list.all_announced()) {
        const std::optional<Read> read = list.next(pick(0, 9));
        if (!read) break;
        uint64_t digest = 0;
        for (uint32_t l = read->layer_begin; l < read->layer_end; ++l) {
          for (uint32_t b = read->block_begin; b < read->block_end; ++b) {
            ++reads[{l, b}];
            digest += l * 1000 + b;
          }
        }
        ASSERT_EQ(read->digest, digest);
        ASSERT_EQ(list.source_blocks(read->block_begin, read->block_end)[0].value,
                  read->block_begin + 50);
        ASSERT_FALSE(list.all_checked());
        list.checked(*read);
      }
    }
    EXPECT_TRUE(list.all_checked());
    EXPECT_EQ(new_cells, layers * (end - first));
    ASSERT_EQ(reads.size(), layers * (end - first));
    EXPECT_TRUE(std::ranges::all_of(reads, [](const auto& r) { return r.second == 1; }));
  }
}

TEST(ReadList, NothingToReadIsComplete) {
  ReadList list(4, 2, 2);
  EXPECT_TRUE(list.all_announced());
  EXPECT_TRUE(list.all_checked());
  EXPECT_TRUE(list.empty());
}

}  // namespace
}  // namespace baton::kvtransfer
