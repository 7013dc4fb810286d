#include <numeric>

#include "tests/kvtransfer/source_fixture.h"

// What a source announces, when, and in what pieces.
namespace baton::kvtransfer {
namespace {

using namespace source_fixture;

TEST_F(SourceTest, AnnouncesEachLayerAsItIsDone) {
  to_streaming();
  ASSERT_TRUE(done(0, 1, 0, 2));
  EXPECT_TRUE(actions_.empty());  // others may become ready with it
  source_.announce_ready(actions_);
  ASSERT_EQ(told<Announce>().size(), 1u);
  const Announce a = told<Announce>()[0];
  EXPECT_EQ(a, (Announce{key(), 0, 1, 0, 32, {RankPart{{BlockId{10}, BlockId{11}}, {0, 1}}}}));
  actions_.clear();
  ASSERT_TRUE(done(1, 2, 0, 2));
  ASSERT_TRUE(done(2, 3, 0, 2));
  source_.announce_ready(actions_);
  EXPECT_EQ(
      told<Announce>(),
      (std::vector{Announce{
          key(), 1, 3, 0, 32, {RankPart{{BlockId{10}, BlockId{11}}, {100, 101, 200, 201}}}}}));
  actions_.clear();
  ASSERT_TRUE(done(0, 3, 2, 3));  // the last of it: at once
  ASSERT_EQ(told<Announce>().size(), 1u);
  EXPECT_EQ(told<Announce>()[0].token_end, kTokens);  // the last block is partly filled
}

TEST_F(SourceTest, ARetargetedHandoffIsAnnouncedAsItGoesOn) {
  to_streaming();
  ASSERT_TRUE(done(0, 1, 0, 2));
  ASSERT_TRUE(source_.retarget(key(), Generation{2}, kSink, at(0), actions_));
  credit(key(1, 2));
  ASSERT_EQ(told<Announce>().size(), 1u);
  ASSERT_TRUE(done(1, 2, 0, 2, key(1, 2)));
  source_.announce_ready(actions_);
  ASSERT_EQ(told<Announce>().size(), 2u);
  EXPECT_EQ(told<Announce>()[1].layer_begin, 1u);
  EXPECT_EQ(told<Announce>()[1].key, key(1, 2));
}

TEST_F(SourceTest, ALateCreditGetsEverythingInOneAnnounce) {
  ASSERT_TRUE(begin());
  ASSERT_TRUE(done(0, 1, 0, 2));
  ASSERT_TRUE(done(1, 3, 0, 2));
  ASSERT_TRUE(done(0, 2, 2, 3));
  EXPECT_TRUE(actions_.empty());
  credit();
  const std::vector<Announce> a = told<Announce>();
  ASSERT_EQ(a.size(), 2u);  // first the blocks that are whole, then the layers that are ahead
  EXPECT_EQ(std::tie(a[0].layer_begin, a[0].layer_end, a[0].first_block, a[0].token_end),
            std::tuple(0u, 3u, 0u, 32u));
  EXPECT_EQ(std::tie(a[1].layer_begin, a[1].layer_end, a[1].first_block, a[1].token_end),
            std::tuple(0u, 2u, 2u, kTokens));
  EXPECT_EQ(a[0].parts[0].digests, (std::vector<uint64_t>{0, 1, 100, 101, 200, 201}));
}

TEST_F(SourceTest, WhatTheSinkHasIsNotAnnounced) {
  ASSERT_TRUE(begin());
  credit(key(), 0, 32);
  compute_all();
  ASSERT_EQ(told<Announce>().size(), 1u);
  EXPECT_EQ(told<Announce>()[0].first_block, 2u);
  ASSERT_TRUE(finish());
  EXPECT_EQ(told<Commit>().size(), 1u);
}

TEST_F(SourceTest, AMissingAnnounceIsRepeated) {
  to_committed();
  source_.on_nack(kSink, {.key = key(), .reason = NackReason::kMissing}, at(1), actions_);
  EXPECT_EQ(told<Announce>().size(), 1u);
  EXPECT_EQ(told<Commit>().size(), 1u);
}

TEST_F(SourceTest, LongPromptsAreAnnouncedInBoundedMessages) {
  constexpr uint32_t kBlocks = 10000;
  const HandoffKey k = key(2);
  ASSERT_TRUE(source_.begin({k, kSink, kBlocks * 16, kHash, at(100)}, at(0), actions_));
  std::vector<BlockId> blocks(kBlocks);
  std::iota(reinterpret_cast<uint32_t*>(blocks.data()),
            reinterpret_cast<uint32_t*>(blocks.data() + kBlocks), 0u);
  const std::vector<uint64_t> digests(kBlocks * kLayers, 3);
  ASSERT_TRUE(source_.layers_done(k, {0, kLayers, 0, blocks, digests}, at(0), actions_));
  source_.on_credit(kSink, {k, seconds(5), 0, kBlocks * 16, kHash}, at(0), actions_);
  uint32_t next = 0;
  for (const Announce& a : told<Announce>()) {
    EXPECT_EQ(a.first_block, next);
    EXPECT_LE(a.parts[0].blocks.size(), kMaxAnnounceBlocks);
    EXPECT_LE(a.parts[0].digests.size(), kMaxDigests);
    next += static_cast<uint32_t>(a.parts[0].blocks.size());
  }
  EXPECT_EQ(next, kBlocks);
}

TEST_F(SourceTest, AnotherPromptIsNeverAnnounced) {
  ASSERT_TRUE(begin());
  compute_all();
  source_.on_credit(kSink, {key(), seconds(5), 0, kTokens, kHash + 1}, at(0), actions_);
  source_.on_credit(kSink, {key(), seconds(5), 0, kTokens - 1, kHash}, at(0), actions_);
  EXPECT_TRUE(told<Announce>().empty());
  ASSERT_EQ(told<Abort>().size(), 2u);
  EXPECT_EQ(told<Abort>()[0].reason, AbortReason::kTokenMismatch);
  EXPECT_EQ(took<SinkLost>().size(), 1u);
  EXPECT_EQ(source_.stats().token_mismatches, 2u);
}

}  // namespace
}  // namespace baton::kvtransfer
