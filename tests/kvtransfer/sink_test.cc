#include "kvtransfer/sink.h"

#include <gtest/gtest.h>

#include "tests/kvtransfer/sink_fixture.h"

namespace baton::kvtransfer {
namespace {

TEST_F(SinkTest, AReservationIsACredit) {
  ASSERT_TRUE(reserve(key(), 0, 16));
  EXPECT_EQ(told<Credit>(), (std::vector{Credit{key(), seconds(5), 16, kTokens, kHash}}));
  EXPECT_EQ(sink_.held_blocks(), 2u);
}

TEST_F(SinkTest, ReadsWhatIsAnnouncedAndJoinsAfterTheCommit) {
  ASSERT_TRUE(reserve());
  announce(0, 1, 0, 2);
  ASSERT_EQ(took<StartRead>().size(), 1u);
  const StartRead read = took<StartRead>()[0];
  EXPECT_EQ(read.range, (KvRange{0, 1, 0, 32}));
  EXPECT_EQ(read.blocks, (std::vector{BlockId{10}, BlockId{11}}));
  EXPECT_EQ(read.announced_digest, 1u);
  const auto layout = config().layout;
  const uint64_t block = layout.block_bytes();
  EXPECT_EQ(read.segments,
            (std::vector{Segment{70 * block, 10 * block, layout.layer_bytes(), 2, block, block}}));
  announce(1, 3, 0, 2);
  announce(0, 3, 2, 3);
  read_all();
  EXPECT_TRUE(took<Joined>().empty());
  commit(key(), 2);
  ASSERT_EQ(took<Joined>().size(), 1u);
  EXPECT_EQ(took<Joined>()[0].first_tokens, (std::vector<TokenId>{5}));
  EXPECT_EQ(took<Joined>()[0].timings.bytes, 9 * layout.layer_bytes());
  EXPECT_EQ(told<Ack>().size(), 1u);
  EXPECT_TRUE(took<SinkReleased>().empty());
  expect_empty();
}

TEST_F(SinkTest, ACommitThatComesEarlyWaitsForTheLastCheck) {
  ASSERT_TRUE(reserve());
  announce(0, 3, 0, 3);
  commit(key(), 1);
  EXPECT_TRUE(took<Joined>().empty());
  read_all(1.5);
  ASSERT_EQ(took<Joined>().size(), 1u);
  EXPECT_EQ(took<Joined>()[0].timings.exposed, milliseconds(500));
}

TEST_F(SinkTest, AWholePrefixNeedsOnlyTheCommit) {
  SinkReserve r{key(), kSource, {}, 32, 32, kHash, at(100)};
  ASSERT_TRUE(sink_.reserve(r, at(0), actions_));
  sink_.on_commit(kSource, {key(), kHash, 32, {5}}, at(1), actions_);
  EXPECT_EQ(took<Joined>().size(), 1u);
  expect_empty();
}

TEST_F(SinkTest, NotBelievedUntilEveryCellIsChecked) {
  ASSERT_TRUE(reserve());
  announce(0, 3, 0, 2);
  announce(0, 2, 2, 3);  // the last layer of the last block never comes
  read_all();
  commit();
  EXPECT_TRUE(took<Joined>().empty());
  EXPECT_EQ(told<Nack>(), (std::vector{Nack{.key = key(), .reason = NackReason::kMissing}}));
  announce(0, 3, 0, 3);  // all of it again: only what is new is read
  const size_t before = took<StartRead>().size();
  read_all();
  EXPECT_EQ(took<StartRead>().size(), before);
  EXPECT_EQ(took<StartRead>().back().range, (KvRange{2, 3, 32, kTokens}));
  EXPECT_EQ(took<Joined>().size(), 1u);
}

TEST_F(SinkTest, AMismatchIsReadAgainOnce) {
  ASSERT_TRUE(reserve());
  announce(0, 1, 0, 2);
  const StartRead first = took<StartRead>()[0];
  clear();
  sink_.read_done(first.cookie, 999, at(0), actions_);
  ASSERT_EQ(took<DigestMismatch>().size(), 1u);
  EXPECT_EQ(took<DigestMismatch>()[0].announced, 1u);
  EXPECT_EQ(took<DigestMismatch>()[0].read, 999u);
  EXPECT_TRUE(took<DigestMismatch>()[0].again);
  ASSERT_EQ(took<StartRead>().size(), 1u);
  EXPECT_EQ(took<StartRead>()[0].range, first.range);
  announce(1, 3, 0, 2);
  announce(0, 3, 2, 3);
  read_all();
  commit();
  ASSERT_EQ(took<Joined>().size(), 1u);
  EXPECT_EQ(took<Joined>()[0].timings.rereads, 1u);
}

TEST_F(SinkTest, ASecondMismatchEndsItAndSaysSo) {
  ASSERT_TRUE(reserve());
  announce(0, 1, 0, 2);
  const StartRead first = took<StartRead>()[0];
  clear();
  sink_.read_done(first.cookie, 999, at(0), actions_);
  const StartRead second = took<StartRead>()[0];
  clear();
  sink_.read_done(second.cookie, 998, at(0), actions_);
  EXPECT_EQ(told<Nack>(), (std::vector{Nack{key(), NackReason::kMismatch, 0, 1, 0, 32, 1, 998}}));
  ASSERT_EQ(took<SinkFailed>().size(), 1u);
  EXPECT_EQ(took<SinkFailed>()[0].error.code, Errc::kDataCorrupt);
  EXPECT_FALSE(took<DigestMismatch>()[0].again);
  EXPECT_EQ(took<SinkReleased>().size(), 1u);
  expect_empty();
}

TEST_F(SinkTest, AFailedReadIsDoneAgainOnce) {
  ASSERT_TRUE(reserve());
  announce(0, 1, 0, 2);
  sink_.read_failed(took<StartRead>()[0].cookie, error(Errc::kIo, "x"), at(0), actions_);
  ASSERT_EQ(took<StartRead>().size(), 2u);
  EXPECT_TRUE(took<SinkFailed>().empty());
  sink_.read_failed(took<StartRead>()[1].cookie, error(Errc::kIo, "x"), at(0), actions_);
  ASSERT_EQ(took<SinkFailed>().size(), 1u);
  EXPECT_EQ(told<Abort>()[0].reason, AbortReason::kReadFailed);
  expect_empty();
}

TEST_F(SinkTest, BlocksStayInQuarantineWhileAReadIsInFlight) {
  ASSERT_TRUE(reserve());
  announce(0, 3, 0, 3);
  const std::vector<StartRead> reads = took<StartRead>();
  ASSERT_EQ(reads.size(), 3u);
  clear();
  ASSERT_TRUE(sink_.cancel(key(), at(1), actions_));
  EXPECT_EQ(took<SinkFailed>().size(), 1u);
  EXPECT_TRUE(took<SinkReleased>().empty());
  EXPECT_EQ(sink_.held_blocks(), 3u);
  EXPECT_FALSE(reserve(key(1, 1)));  // its blocks cannot be reserved again
  sink_.read_done(reads[0].cookie, 0, at(2), actions_);
  sink_.read_failed(reads[1].cookie, error(Errc::kIo, "x"), at(2), actions_);
  EXPECT_TRUE(took<SinkReleased>().empty());
  sink_.read_done(reads[2].cookie, 0, at(2), actions_);
  ASSERT_EQ(took<SinkReleased>().size(), 1u);
  EXPECT_EQ(took<SinkReleased>()[0].blocks.size(), 3u);
  EXPECT_EQ(took<SinkFailed>().size(), 1u);
  EXPECT_TRUE(took<StartRead>().empty());
  expect_empty();
}

TEST_F(SinkTest, ASilentSourceIsGivenUpWhenItsLeaseEnds) {
  ASSERT_TRUE(reserve());
  announce(0, 1, 0, 2, key(), 1);
  read_all();
  sink_.tick(at(5.9), actions_);
  EXPECT_TRUE(took<SinkFailed>().empty());
  sink_.tick(at(6), actions_);
  ASSERT_EQ(took<SinkFailed>().size(), 1u);
  EXPECT_EQ(took<SinkFailed>()[0].error.code, Errc::kDeadlineExceeded);
  EXPECT_EQ(told<Abort>().size(), 1u);
  EXPECT_EQ(sink_.stats().leases_ended, 1u);
  expect_empty();
}

TEST_F(SinkTest, LeasesExtendAndTheDeadlineEndsIt) {
  ASSERT_TRUE(reserve(key(), 0, 0, 20));
  for (int t = 1; t < 20; ++t) {
    sink_.on_lease(kSource, {true, seconds(5), {key()}}, at(t), actions_);
    sink_.tick(at(t + 0.5), actions_);
  }
  EXPECT_TRUE(took<SinkFailed>().empty());
  sink_.tick(at(20), actions_);
  EXPECT_EQ(took<SinkFailed>().size(), 1u);
}

TEST_F(SinkTest, ACreditIsRepeatedUntilSomethingIsHeard) {
  ASSERT_TRUE(reserve());
  sink_.tick(at(1), actions_);
  sink_.tick(at(2), actions_);
  EXPECT_EQ(told<Credit>().size(), 3u);
  announce(0, 1, 0, 2, key(), 2.5);
  sink_.tick(at(3), actions_);
  EXPECT_EQ(told<Credit>().size(), 3u);
  EXPECT_EQ(told<Lease>(), (std::vector{Lease{false, seconds(5), {key()}}}));
}

TEST_F(SinkTest, ADeadSourceEndsItsHandoffsOnly) {
  sink_.add_source(kOther, config().layout, 100);
  ASSERT_TRUE(reserve(key(1)));
  ASSERT_TRUE(reserve(key(2)));
  announce(0, 3, 0, 3, key(1));
  clear();
  sink_.peer_lost(kSource, at(1), actions_);
  ASSERT_EQ(took<SinkFailed>().size(), 2u);
  EXPECT_EQ(took<SinkFailed>()[0].error.code, Errc::kUnavailable);
  EXPECT_EQ(took<SinkReleased>().size(), 1u);  // the other has reads in flight
  EXPECT_EQ(reserve(key(3)).error().code, Errc::kUnavailable);
  // It comes back while reads of its former life are still under way.
  sink_.add_source(kSource, config().layout, 100);
  ASSERT_TRUE(reserve(key(3)));
  for (uint64_t cookie = 1; cookie <= 3; ++cookie) {
    sink_.read_failed(cookie, error(Errc::kUnavailable, "x"), at(1), actions_);
  }
  EXPECT_EQ(took<SinkReleased>().size(), 2u);
  clear();
  announce(0, 3, 0, 3, key(3));
  read_all();
  commit(key(3));
  EXPECT_EQ(took<Joined>().size(), 1u);
}

TEST_F(SinkTest, TheSourcesAbortEndsIt) {
  ASSERT_TRUE(reserve());
  clear();
  sink_.on_abort(kSource, {key(), true, AbortReason::kNotNeeded}, at(1), actions_);
  ASSERT_EQ(took<SinkFailed>().size(), 1u);
  EXPECT_EQ(took<SinkFailed>()[0].error.code, Errc::kCancelled);
  EXPECT_TRUE(told<Abort>().empty());  // it knows
  expect_empty();
}

TEST_F(SinkTest, ARepeatedCommitAfterTheJoinIsAcknowledgedAgain) {
  ASSERT_TRUE(reserve());
  announce(0, 3, 0, 3);
  commit();
  read_all();
  ASSERT_EQ(took<Joined>().size(), 1u);
  clear();
  commit();
  announce(0, 3, 0, 3);
  EXPECT_EQ(told<Ack>().size(), 1u);
  EXPECT_EQ(actions_.size(), 1u);  // and joins nothing, reads nothing
}

TEST_F(SinkTest, AnotherPromptIsRefused) {
  ASSERT_TRUE(reserve());
  announce(0, 3, 0, 3);
  read_all();
  sink_.on_commit(kSource, {key(), kHash + 1, kTokens, {5}}, at(0), actions_);
  EXPECT_TRUE(took<Joined>().empty());
  ASSERT_EQ(took<SinkFailed>().size(), 1u);
  EXPECT_EQ(took<SinkFailed>()[0].error.code, Errc::kDataCorrupt);
  EXPECT_EQ(told<Abort>()[0].reason, AbortReason::kTokenMismatch);
}

TEST_F(SinkTest, MessagesFromTheWrongWorkerChangeNothing) {
  sink_.add_source(kOther, config().layout, 100);
  ASSERT_TRUE(reserve());
  clear();
  sink_.on_announce(kOther, announcement(0, 3, 0, 3), at(0), actions_);
  sink_.on_commit(kOther, {key(), kHash, kTokens, {5}}, at(0), actions_);
  sink_.on_abort(kOther, {key(), true, AbortReason::kFailed}, at(0), actions_);
  sink_.on_lease(kOther, {true, seconds(5), {key()}}, at(0), actions_);
  EXPECT_EQ(told<Nack>(kOther).size(), 2u);
  EXPECT_EQ(told<Abort>(kOther).size(), 1u);
  EXPECT_EQ(actions_.size(), 3u);
  EXPECT_EQ(sink_.stats().ignored_messages, 4u);
  EXPECT_EQ(sink_.num_handoffs(), 1u);
}

TEST_F(SinkTest, UnknownHandoffsAreAnswered) {
  announce(0, 3, 0, 3, key(7));
  commit(key(7));
  ASSERT_EQ(told<Nack>().size(), 2u);
  EXPECT_EQ(told<Nack>()[0].reason, NackReason::kUnknown);
}

TEST_F(SinkTest, ImpossibleAnnouncesEndIt) {
  const auto spoiled = [](auto spoil) {
    Announce a = announcement(0, 3, 0, 3);
    spoil(a);
    return a;
  };
  const Announce bad[] = {
      spoiled([](Announce& a) { a.layer_end = 4; }),
      spoiled([](Announce& a) { a.first_block = 1; }),
      spoiled([](Announce& a) { a.token_end = 48; }),
      spoiled([](Announce& a) { a.parts[0].blocks[1] = BlockId{100}; }),
      spoiled([](Announce& a) { a.parts[0].digests.pop_back(); }),
      spoiled([](Announce& a) { a.parts.emplace_back(); }),
      spoiled([](Announce& a) { a.parts[0].blocks.clear(); }),
  };
  uint64_t generation = 1;
  for (const Announce& a : bad) {
    const HandoffKey k = key(1, generation++);
    ASSERT_TRUE(reserve(k));
    clear();
    Announce mine = a;
    mine.key = k;
    sink_.on_announce(kSource, mine, at(0), actions_);
    ASSERT_EQ(took<SinkFailed>().size(), 1u);
    EXPECT_EQ(told<Abort>()[0].reason, AbortReason::kProtocol);
    EXPECT_TRUE(took<StartRead>().empty());
  }
  EXPECT_EQ(sink_.stats().protocol_errors, std::size(bad));
  expect_empty();
}

TEST_F(SinkTest, ANewGenerationReplacesTheOld) {
  ASSERT_TRUE(reserve(key(1, 2)));
  EXPECT_FALSE(reserve(key(1, 2)));
  EXPECT_FALSE(reserve(key(1, 1)));
  clear();
  ASSERT_TRUE(reserve(key(1, 3)));
  ASSERT_EQ(took<SinkFailed>().size(), 1u);
  EXPECT_EQ(took<SinkFailed>()[0].key, key(1, 2));
  clear();
  announce(0, 3, 0, 3, key(1, 2));
  EXPECT_TRUE(took<StartRead>().empty());
}

TEST_F(SinkTest, WrongReservationsChangeNothing) {
  SinkReserve good{key(), kSource, {BlockId{1}, BlockId{2}, BlockId{3}}, 0, kTokens, kHash, at(9)};
  const auto refused = [&](auto spoil) {
    SinkReserve r = good;
    spoil(r);
    return !sink_.reserve(r, at(0), actions_);
  };
  EXPECT_TRUE(refused([](SinkReserve& r) { r.blocks.pop_back(); }));
  EXPECT_TRUE(refused([](SinkReserve& r) { r.blocks[0] = BlockId{64}; }));
  EXPECT_TRUE(refused([](SinkReserve& r) { r.blocks[0] = r.blocks[1]; }));
  EXPECT_TRUE(refused([](SinkReserve& r) { r.first_token = 8; }));
  EXPECT_TRUE(refused([](SinkReserve& r) { r.num_tokens = 0; }));
  EXPECT_TRUE(refused([](SinkReserve& r) { r.source = kOther; }));
  EXPECT_TRUE(actions_.empty());
  expect_empty();
}

TEST_F(SinkTest, HandoffsAreBounded) {
  for (uint64_t request = 1; request <= 4; ++request) ASSERT_TRUE(reserve(key(request)));
  EXPECT_EQ(reserve(key(5)).error().code, Errc::kResourceExhausted);
}

TEST_F(SinkTest, RefusalIsSaidAndForgotten) {
  sink_.refuse(key(), kSource, milliseconds(20), actions_);
  EXPECT_EQ(told<Refuse>(), (std::vector{Refuse{key(), milliseconds(20)}}));
  expect_empty();
}

TEST_F(SinkTest, UnequalBlocksAreReadIntoTheirPlaces) {
  sink_.add_source(kOther, kvcache::KvLayout::full_kv(kLayers, 1, 4, DType::kBF16, 8), 200);
  SinkReserve r{key(), kOther, {BlockId{1}, BlockId{2}, BlockId{3}}, 0, kTokens, kHash, at(9)};
  ASSERT_TRUE(sink_.reserve(r, at(0), actions_));
  // One block of 8 in the middle of the second of 16.
  sink_.on_announce(kOther, {key(), 0, 1, 3, 32, {RankPart{{BlockId{150}}, {77}}}}, at(0),
                    actions_);
  ASSERT_EQ(took<StartRead>().size(), 1u);
  EXPECT_EQ(took<StartRead>()[0].range, (KvRange{0, 1, 24, 32}));
  EXPECT_EQ(took<StartRead>()[0].blocks, std::vector{BlockId{2}});
  EXPECT_EQ(took<StartRead>()[0].first_token, 16u);
}

}  // namespace
}  // namespace baton::kvtransfer
