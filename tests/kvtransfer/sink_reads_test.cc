#include <gtest/gtest.h>

#include <vector>

#include "tests/kvtransfer/sink_fixture.h"

// How a sink reads: how much at once, and in which order.
namespace baton::kvtransfer {
namespace {

TEST_F(SinkTest, TheWindowBoundsWhatIsInFlight) {
  ASSERT_TRUE(reserve());
  for (uint32_t layer = 0; layer < kLayers; ++layer) announce(layer, layer + 1, 0, 3);
  EXPECT_EQ(took<StartRead>().size(), 3u);  // window_reads
  sink_.read_done(1, took<StartRead>()[0].announced_digest, at(0), actions_);
  EXPECT_EQ(took<StartRead>().size(), 4u);
}

// What the reader copies itself is not cut, and no hand-off has two reads.
TEST_F(SinkTest, ADirectReadIsAsLargeAsTheAnnounce) {
  sink_.add_source(kSource, config().layout, 100, ReadAs::kCopied);
  ASSERT_TRUE(reserve(key(1)));
  ASSERT_TRUE(reserve(key(2)));
  announce(0, 3, 0, 3, key(1));
  announce(0, 1, 0, 3, key(2));
  announce(1, 2, 0, 3, key(2));
  const std::vector<StartRead> reads = took<StartRead>();
  ASSERT_EQ(reads.size(), 2u);
  EXPECT_EQ(reads[0].range, (KvRange{0, 3, 0, kTokens}));
  EXPECT_EQ(reads[0].segments.size(), 1u);
  EXPECT_EQ(reads[1].range, (KvRange{0, 1, 0, kTokens}));
  EXPECT_EQ(reads[1].segments.size(), 1u);
  clear();
  sink_.read_done(reads[1].cookie, reads[1].announced_digest, at(0), actions_);
  ASSERT_EQ(took<StartRead>().size(), 1u);
  EXPECT_EQ(took<StartRead>()[0].range, (KvRange{1, 2, 0, kTokens}));
  read_all();
  announce(2, 3, 0, 3, key(2));
  read_all();
  commit(key(2));
  ASSERT_EQ(took<Joined>().size(), 1u);
  EXPECT_EQ(took<Joined>()[0].timings.segments, kLayers);
}

// So is one that the owner answers in turns; a hand-off has two, or as many small ones as fit.
TEST_F(SinkTest, AReadInTurnsIsAsLargeAsTheAnnounce) {
  sink_.add_source(kSource, config().layout, 100, ReadAs::kTurns);
  ASSERT_TRUE(reserve(key(1)));
  ASSERT_TRUE(reserve(key(2)));
  announce(0, 1, 0, 3, key(1));
  announce(1, 2, 0, 3, key(1));
  announce(2, 3, 0, 3, key(1));
  announce(0, 1, 0, 1, key(2));
  announce(1, 2, 0, 1, key(2));
  announce(0, 2, 1, 2, key(2));
  const std::vector<StartRead> reads = took<StartRead>();
  ASSERT_EQ(reads.size(), 4u);
  EXPECT_EQ(reads[0].range, (KvRange{0, 1, 0, kTokens}));
  EXPECT_EQ(reads[1].range, (KvRange{1, 2, 0, kTokens}));
  EXPECT_EQ(reads[2].key, key(2));
  EXPECT_EQ(reads[3].key, key(2));
  clear();
  sink_.read_done(reads[0].cookie, reads[0].announced_digest, at(0), actions_);
  ASSERT_EQ(took<StartRead>().size(), 1u);
  EXPECT_EQ(took<StartRead>()[0].range, (KvRange{2, 3, 0, kTokens}));
  EXPECT_EQ(took<StartRead>()[0].segments.size(), 1u);
}

TEST_F(SinkTest, ReadsInTurnsAreBounded) {
  SinkConfig c = config();
  c.turns_window_reads = 3;
  Sink sink(c);
  sink.add_source(kSource, c.layout, 100, ReadAs::kTurns);
  for (uint64_t request = 1; request <= 3; ++request) {
    SinkReserve r{key(request), kSource, {}, 0, kTokens, kHash, at(100)};
    for (uint32_t b = 0; b < 3; ++b) r.blocks.emplace_back(10 * request + b);
    ASSERT_TRUE(sink.reserve(r, at(0), actions_));
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      sink.on_announce(kSource, announcement(layer, layer + 1, 0, 3, key(request)), at(0),
                       actions_);
    }
  }
  const std::vector<StartRead> reads = took<StartRead>();
  ASSERT_EQ(reads.size(), 3u);
  EXPECT_EQ(reads[2].key, key(2));
  clear();
  for (int i = 0; i < 2; ++i) {
    sink.read_done(reads[i].cookie, reads[i].announced_digest, at(0), actions_);
  }
  ASSERT_EQ(took<StartRead>().size(), 2u);
  EXPECT_EQ(took<StartRead>()[0].key, key(3));
  EXPECT_EQ(took<StartRead>()[1].key, key(1));
}

// Beyond half of the window nobody has a second read: there is room for the first of others.
TEST_F(SinkTest, SecondReadsDoNotShutOutFirstOnes) {
  SinkConfig c = config();
  c.turns_window_reads = 8;
  c.max_handoffs = 8;
  Sink sink(c);
  sink.add_source(kSource, c.layout, 100, ReadAs::kTurns);
  for (uint64_t request = 0; request < 8; ++request) {
    SinkReserve r{key(request), kSource, {}, 0, kTokens, kHash, at(100)};
    for (uint32_t b = 0; b < 3; ++b) r.blocks.emplace_back(3 * request + b);
    ASSERT_TRUE(sink.reserve(r, at(0), actions_));
  }
  clear();
  const auto announce_two = [&](uint64_t request) {
    for (uint32_t layer : {0u, 1u}) {
      sink.on_announce(kSource, announcement(layer, layer + 1, 0, 3, key(request)), at(0),
                       actions_);
    }
  };
  for (uint64_t request = 0; request < 6; ++request) announce_two(request);
  const std::vector<StartRead> reads = took<StartRead>();
  ASSERT_EQ(reads.size(), 8u);  // two of each of the first two, then one
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(reads[i].key, key(i < 4 ? i / 2 : i - 2));
  clear();
  sink.read_done(reads[0].cookie, reads[0].announced_digest, at(0), actions_);
  EXPECT_TRUE(took<StartRead>().empty());  // nobody waits that has none
  announce_two(6);
  ASSERT_EQ(took<StartRead>().size(), 1u);
  EXPECT_EQ(took<StartRead>()[0].key, key(6));
  // And every read is begun in the end.
  std::vector<StartRead> open(reads.begin() + 1, reads.end());
  open.push_back(took<StartRead>()[0]);
  for (size_t i = 0; i < open.size(); ++i) {
    clear();
    sink.read_done(open[i].cookie, open[i].announced_digest, at(0), actions_);
    for (const StartRead& next : took<StartRead>()) open.push_back(next);
  }
  EXPECT_EQ(open.size() + 1, 14u);
}

// The window in descriptors: an announce of blocks that stand alone is cut by it, too.
TEST_F(SinkTest, ReadsInTurnsHaveSoManyDescriptors) {
  SinkConfig c = config();
  c.turns_window_segments = 2;
  Sink sink(c);
  sink.add_source(kSource, c.layout, 100, ReadAs::kTurns);
  SinkReserve r{key(), kSource, {BlockId{5}, BlockId{3}, BlockId{1}}, 0, kTokens, kHash, at(100)};
  ASSERT_TRUE(sink.reserve(r, at(0), actions_));
  sink.on_announce(kSource, announcement(0, 3, 0, 3), at(0), actions_);
  const std::vector<StartRead> reads = took<StartRead>();
  ASSERT_EQ(reads.size(), 1u);
  EXPECT_EQ(reads[0].range, (KvRange{0, 3, 0, 32}));
  sink.read_done(reads[0].cookie, reads[0].announced_digest, at(0), actions_);
  EXPECT_EQ(took<StartRead>().size(), 2u);
}

// Blocks of other sizes, and many heads: a source's block with all its layers would be more
// descriptors than a request may have, and far more bytes than a read.
TEST_F(SinkTest, APieceIsNoMoreThanItMayBe) {
  for (const uint32_t head_dim : {4u, 128u}) {
    SinkConfig c = config();
    c.layout = kvcache::KvLayout::full_kv(40, 40, head_dim, DType::kBF16, 16);
    c.num_blocks = 1000;
    c.read_bytes = 1u << 20;
    const kvcache::KvLayout theirs =
        kvcache::KvLayout::full_kv(40, 40, head_dim, DType::kBF16, 256);
    Sink sink(c);
    sink.add_source(kSource, theirs, 100, ReadAs::kPieces);
    SinkReserve r{key(), kSource, {}, 0, 512, kHash, at(100)};
    for (uint32_t b = 0; b < 32; ++b) r.blocks.emplace_back(b * 3 / 2);  // in pairs, with gaps
    ASSERT_TRUE(sink.reserve(r, at(0), actions_));
    Announce a{key(), 0, 40, 0, 512, {RankPart{}}};
    a.parts[0].blocks = {BlockId{7}, BlockId{5}};
    a.parts[0].digests.assign(80, 1);
    clear();
    sink.on_announce(kSource, a, at(0), actions_);
    uint64_t bytes = 0;
    for (size_t i = 0; i < actions_.size(); ++i) {
      const auto* read = std::get_if<StartRead>(&actions_[i]);
      if (read == nullptr) continue;
      uint64_t n = 0;
      for (const Segment& s : read->segments) n += s.total_bytes();
      EXPECT_LE(read->segments.size(), 16384u);
      EXPECT_LE(n, std::max<uint64_t>(c.read_bytes, theirs.layer_bytes()));
      bytes += n;
      const uint64_t cookie = read->cookie, digest = read->announced_digest;
      sink.read_done(cookie, digest, at(0), actions_);
    }
    EXPECT_EQ(bytes, 2 * theirs.block_bytes());
  }
}

TEST_F(SinkTest, ReadsOfWhatHasFailedAreGivenUp) {
  ASSERT_TRUE(reserve(key(1)));
  ASSERT_TRUE(reserve(key(2)));
  announce(0, 2, 0, 2, key(1));
  announce(0, 1, 0, 1, key(2));
  const std::vector<StartRead> reads = took<StartRead>();
  ASSERT_EQ(reads.size(), 3u);
  ASSERT_TRUE(sink_.cancel(key(1), at(1), actions_));
  ASSERT_EQ(took<GiveUpRead>().size(), 2u);
  EXPECT_EQ(took<GiveUpRead>()[0].cookie, reads[0].cookie);
  EXPECT_EQ(took<GiveUpRead>()[1].cookie, reads[1].cookie);
  EXPECT_EQ(took<GiveUpRead>()[0].source, kSource);
  EXPECT_TRUE(took<SinkReleased>().empty());
}

TEST_F(SinkTest, ADirectReadThatDoesNotMatchIsReadAgainOnce) {
  sink_.add_source(kSource, config().layout, 100, ReadAs::kCopied);
  ASSERT_TRUE(reserve());
  announce(0, 3, 0, 3);
  sink_.read_done(1, 1, at(0), actions_);
  ASSERT_EQ(took<StartRead>().size(), 2u);
  sink_.read_done(2, 1, at(0), actions_);
  ASSERT_EQ(took<SinkFailed>().size(), 1u);
  EXPECT_EQ(took<SinkFailed>()[0].error.code, Errc::kDataCorrupt);
  expect_empty();
}

TEST_F(SinkTest, ALongTransferLeavesAShortOneItsTurn) {
  ASSERT_TRUE(reserve(key(1)));
  ASSERT_TRUE(reserve(key(2)));
  // Fills the window, and three more reads wait.
  for (uint32_t layer = 0; layer < kLayers; ++layer) announce(layer, layer + 1, 0, 3, key(1));
  announce(0, 1, 0, 1, key(2));
  clear();
  sink_.read_done(1, 0, at(0), actions_);  // a mismatch: its repetition waits its turn too
  sink_.read_done(2, 1000, at(0), actions_);
  const std::vector<StartRead> reads = took<StartRead>();
  ASSERT_EQ(reads.size(), 2u);
  EXPECT_EQ(reads[0].key, key(1));
  EXPECT_EQ(reads[1].key, key(2));
}

}  // namespace
}  // namespace baton::kvtransfer
