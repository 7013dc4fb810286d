#include "tests/kvtransfer/source_fixture.h"

namespace baton::kvtransfer {
namespace {

using namespace source_fixture;

TEST_F(SourceTest, CommitsAndIsReleasedByTheAck) {
  to_streaming();
  compute_all();
  actions_.clear();
  ASSERT_TRUE(finish());
  EXPECT_EQ(told<Commit>(), (std::vector{Commit{key(), kHash, kTokens, {5, 6}}}));
  EXPECT_TRUE(took<SourceReleased>().empty());
  source_.on_ack(kSink, {key()}, at(2), actions_);
  ASSERT_EQ(took<SourceReleased>().size(), 1u);
  EXPECT_EQ(took<SourceReleased>()[0].timings.released, at(2));
  expect_empty();
}

TEST_F(SourceTest, ACreditBeforeBeginIsKept) {
  credit();
  EXPECT_TRUE(actions_.empty());
  ASSERT_TRUE(begin());
  ASSERT_TRUE(done(0, 1, 0, 2));
  source_.announce_ready(actions_);
  EXPECT_EQ(told<Announce>().size(), 1u);
  EXPECT_EQ(source_.num_early_credits(), 0u);
}

TEST_F(SourceTest, EarlyCreditsAreBoundedInNumberAndTime) {
  for (uint64_t request = 1; request <= 5; ++request) credit(key(request));
  EXPECT_EQ(source_.num_early_credits(), 2u);
  EXPECT_EQ(source_.stats().early_credits_dropped, 3u);
  credit(key(1), 9);  // said again: lives no longer
  source_.tick(at(10.5), actions_);
  source_.tick(at(11.5), actions_);
  EXPECT_EQ(source_.num_early_credits(), 0u);
  EXPECT_EQ(source_.next_deadline(), TimePoint::max());
  EXPECT_EQ(told<Abort>(), (std::vector{Abort{key(1), true, AbortReason::kDeadline},
                                        Abort{key(2), true, AbortReason::kDeadline}}));
  actions_.clear();
  credit(key(1), 12);
  EXPECT_EQ(source_.num_early_credits(), 0u) << "its time does not begin anew";
  EXPECT_EQ(told<Abort>().size(), 1u);
  EXPECT_FALSE(begin(key(1), 13)) << "the sink has given it up";
  EXPECT_TRUE(begin(key(1, 2), 13));
}

TEST_F(SourceTest, EarlyCreditsKeepTheirSinkWaiting) {
  credit();
  source_.tick(at(1), actions_);
  EXPECT_EQ(told<Lease>(), (std::vector{Lease{true, seconds(5), {key()}}}));
}

TEST_F(SourceTest, ASinkThatHasAllGetsOnlyTheCommit) {
  ASSERT_TRUE(begin());
  credit(key(), 0, kTokens);
  compute_all();
  ASSERT_TRUE(finish());
  EXPECT_TRUE(told<Announce>().empty());
  EXPECT_EQ(told<Commit>().size(), 1u);
}

TEST_F(SourceTest, ParkedUntilTheCreditComes) {
  to_parked();
  EXPECT_EQ(source_.parked_blocks(), 3u);
  source_.on_refuse(kSink, {key(), milliseconds(300)}, at(1), actions_);
  ASSERT_EQ(took<SinkRefused>().size(), 1u);
  EXPECT_EQ(took<SinkRefused>()[0].retry_after, milliseconds(300));
  credit(key(), 2);
  EXPECT_EQ(source_.parked_blocks(), 0u);
  ASSERT_EQ(told<Announce>().size(), 1u);
  EXPECT_EQ(told<Announce>()[0].layer_end, kLayers);
  EXPECT_EQ(told<Commit>().size(), 1u);
  source_.on_ack(kSink, {key()}, at(3), actions_);
  EXPECT_EQ(took<SourceReleased>().size(), 1u);
  expect_empty();
}

TEST_F(SourceTest, ParkingEnds) {
  to_parked();
  source_.tick(at(29.9), actions_);
  EXPECT_TRUE(took<SourceFailed>().empty());
  source_.tick(at(30), actions_);
  ASSERT_EQ(took<SourceFailed>().size(), 1u);
  EXPECT_EQ(took<SourceFailed>()[0].error.code, Errc::kDeadlineExceeded);
  expect_empty();
}

// A sink that says that it stands in line keeps it parked.
TEST_F(SourceTest, ParkingLastsAsLongAsTheSinkSaysSo) {
  to_parked();
  source_.tick(at(29), actions_);
  source_.on_refuse(kSink, {key(), seconds(1)}, at(29), actions_);
  source_.tick(at(58.9), actions_);
  EXPECT_TRUE(took<SourceFailed>().empty());
  source_.tick(at(59), actions_);
  EXPECT_EQ(took<SourceFailed>().size(), 1u);
}

TEST_F(SourceTest, TheCommitTellsHowLongItWasParked) {
  to_parked();
  credit(key(), 7);
  ASSERT_EQ(told<Commit>().size(), 1u);
  EXPECT_EQ(told<Commit>()[0].parked, seconds(7));
}

TEST_F(SourceTest, WhatNobodyHasRoomForIsBoundedBeforeItIsComputed) {
  SourceConfig c = config();
  c.max_parked_blocks = 5;
  source_ = Source(c);
  ASSERT_TRUE(begin(key(1)));
  EXPECT_EQ(source_.waiting_blocks(), 3u);
  EXPECT_EQ(begin(key(2)).error().code, Errc::kResourceExhausted);
  credit(key(1));  // it waits no longer
  EXPECT_EQ(source_.waiting_blocks(), 0u);
  ASSERT_TRUE(begin(key(2)));
  // Without its sink it would wait again, and that is too much.
  source_.peer_lost(kSink, at(0), actions_);
  EXPECT_EQ(source_.waiting_blocks(), 3u);
  ASSERT_EQ(took<SourceFailed>().size(), 1u);
  EXPECT_EQ(took<SourceFailed>()[0].error.code, Errc::kResourceExhausted);
}

TEST_F(SourceTest, WhatIsGrantedIsComputedAndParkedWhateverWaits) {
  SourceConfig c = config();
  c.max_parked_blocks = 3;
  source_ = Source(c);
  for (const uint64_t request : {1, 2, 3}) {
    ASSERT_TRUE(
        source_.begin({key(request), kSink, kTokens, kHash, at(100), true}, at(0), actions_));
    compute_all(key(request));
    ASSERT_TRUE(finish(key(request)));  // the credits are late
  }
  EXPECT_TRUE(took<SourceFailed>().empty());
  EXPECT_EQ(source_.num_parked(), 3u);
  EXPECT_EQ(source_.waiting_blocks(), 0u);
}

TEST_F(SourceTest, APromptAloneMayParkWhateverItsSize) {
  SourceConfig c = config();
  c.max_parked_blocks = 2;
  source_ = Source(c);
  to_parked();
  EXPECT_EQ(source_.num_parked(), 1u);
  EXPECT_EQ(source_.parked_blocks(), 3u);
  credit();
  EXPECT_EQ(source_.num_parked(), 0u);
}

TEST_F(SourceTest, TheDeadlineEndsEveryState) {
  ASSERT_TRUE(begin(key(1), 0, 3));
  ASSERT_TRUE(begin(key(2), 0, 3));
  credit(key(2));
  ASSERT_TRUE(begin(key(3), 0, 3));
  credit(key(3));
  compute_all(key(3));
  ASSERT_TRUE(finish(key(3)));
  ASSERT_TRUE(begin(key(4), 0, 3));
  compute_all(key(4));
  ASSERT_TRUE(finish(key(4)));
  actions_.clear();
  source_.tick(at(3), actions_);
  EXPECT_EQ(took<SourceFailed>().size(), 4u);
  EXPECT_EQ(told<Abort>().size(), 4u);
  expect_empty();
}

TEST_F(SourceTest, ASilentSinkIsGivenUpWhenItsLeaseEnds) {
  to_committed();
  source_.tick(at(4.9), actions_);
  EXPECT_TRUE(took<SourceFailed>().empty());
  source_.tick(at(5), actions_);
  ASSERT_EQ(took<SourceFailed>().size(), 1u);
  EXPECT_EQ(took<SourceFailed>()[0].error.code, Errc::kDeadlineExceeded);
  EXPECT_EQ(source_.stats().leases_ended, 1u);
  expect_empty();
}

TEST_F(SourceTest, LeasesExtend) {
  to_committed();
  for (int t = 1; t <= 20; ++t) {
    source_.on_lease(kSink, {false, seconds(5), {key()}}, at(t), actions_);
    source_.tick(at(t + 0.5), actions_);
  }
  EXPECT_TRUE(took<SourceFailed>().empty());
  EXPECT_EQ(source_.num_handoffs(), 1u);
}

TEST_F(SourceTest, ASinkSilentWhileComputingIsLostAndTheKvKept) {
  to_streaming();
  source_.tick(at(5), actions_);
  EXPECT_EQ(took<SinkLost>().size(), 1u);
  EXPECT_EQ(told<Abort>().size(), 1u);
  EXPECT_EQ(source_.num_handoffs(), 1u);
  compute_all();
  ASSERT_TRUE(finish());
  EXPECT_EQ(source_.parked_blocks(), 3u);
}

TEST_F(SourceTest, CommitIsRepeatedUntilAcknowledged) {
  to_committed();
  source_.tick(at(1), actions_);
  source_.on_lease(kSink, {false, seconds(5), {key()}}, at(1.5), actions_);
  source_.tick(at(2), actions_);
  EXPECT_EQ(told<Commit>().size(), 2u);
}

TEST_F(SourceTest, LeasesGoOutWhileStreaming) {
  to_streaming();
  source_.tick(at(1), actions_);
  EXPECT_EQ(told<Lease>(), (std::vector{Lease{true, seconds(5), {key()}}}));
}

TEST_F(SourceTest, ADeadSinkLeavesTheKvParkedForAnother) {
  to_committed();
  source_.peer_lost(kSink, at(1), actions_);
  ASSERT_EQ(took<SinkLost>().size(), 1u);
  EXPECT_EQ(took<SinkLost>()[0].error.code, Errc::kUnavailable);
  EXPECT_EQ(source_.parked_blocks(), 3u);
  actions_.clear();
  ASSERT_TRUE(source_.retarget(key(), Generation{2}, kOther, at(2), actions_));
  const HandoffKey next = key(1, 2);
  source_.on_credit(kOther, {next, seconds(5), 0, kTokens, kHash}, at(2), actions_);
  EXPECT_EQ(told<Announce>(kOther).size(), 1u);
  EXPECT_EQ(told<Commit>(kOther).size(), 1u);
  source_.on_ack(kOther, {next}, at(3), actions_);
  ASSERT_EQ(took<SourceReleased>().size(), 1u);
  EXPECT_EQ(took<SourceReleased>()[0].key, next);
  expect_empty();
}

TEST_F(SourceTest, RetargetTakesACreditThatCameFirst) {
  to_streaming();
  const HandoffKey next = key(1, 2);
  source_.on_credit(kOther, {next, seconds(5), 0, kTokens, kHash}, at(1), actions_);
  ASSERT_TRUE(source_.retarget(key(), Generation{2}, kOther, at(1), actions_));
  EXPECT_EQ(told<Abort>(kSink).size(), 1u);  // the old one need not wait
  compute_all(next);
  EXPECT_EQ(told<Announce>(kOther).size(), 1u);
  EXPECT_EQ(done(0, 1, 0, 1).error().code, Errc::kNotFound);  // the old key is gone
}

// Its sink may say it for a while after the hand-off has ended under its newer name.
TEST_F(SourceTest, ARetargetedNameIsNeverServedAgain) {
  to_committed();
  ASSERT_TRUE(source_.retarget(key(), Generation{2}, kOther, at(1), actions_));
  source_.on_credit(kOther, {key(1, 2), seconds(5), 0, kTokens, kHash}, at(1), actions_);
  source_.on_ack(kOther, {key(1, 2)}, at(2), actions_);
  expect_empty();
  actions_.clear();
  credit(key(), 3);
  EXPECT_EQ(told<Abort>().size(), 1u);
  EXPECT_EQ(source_.num_early_credits(), 0u);
}

TEST_F(SourceTest, AnEarlyCreditOfAnotherWorkerIsNone) {
  source_.on_credit(kOther, {key(), seconds(5), 0, kTokens, kHash}, at(0), actions_);
  ASSERT_TRUE(begin());
  EXPECT_EQ(told<Abort>(kOther).size(), 1u);
  compute_all();
  EXPECT_TRUE(told<Announce>(kOther).empty());
  EXPECT_TRUE(told<Announce>().empty());
  credit();
  EXPECT_EQ(told<Announce>().size(), 1u);
}

TEST_F(SourceTest, EarlyCreditsOfTheDeadAreForgotten) {
  credit();
  ASSERT_EQ(source_.num_early_credits(), 1u);
  source_.peer_lost(kSink, at(1), actions_);
  EXPECT_EQ(source_.num_early_credits(), 0u);
}

TEST_F(SourceTest, RetargetBeginsTheParkingTimeAnew) {
  to_parked();  // at 0, for 30 s
  ASSERT_TRUE(source_.retarget(key(), Generation{2}, kOther, at(20), actions_));
  source_.tick(at(49), actions_);
  EXPECT_EQ(source_.num_handoffs(), 1u);
  source_.tick(at(51), actions_);
  expect_empty();
}

TEST_F(SourceTest, EachSinkThatIsLostIsTold) {
  to_streaming();
  source_.peer_lost(kSink, at(1), actions_);
  ASSERT_TRUE(source_.retarget(key(), Generation{2}, kOther, at(1), actions_));
  actions_.clear();
  source_.peer_lost(kOther, at(2), actions_);  // before it has credited anything
  ASSERT_EQ(took<SinkLost>().size(), 1u);
  EXPECT_EQ(took<SinkLost>()[0].key, key(1, 2));
  source_.peer_lost(kOther, at(3), actions_);
  EXPECT_EQ(took<SinkLost>().size(), 1u) << "once";
}

TEST_F(SourceTest, RetargetNeedsANewerGeneration) {
  to_streaming();
  EXPECT_FALSE(source_.retarget(key(), Generation{1}, kOther, at(1), actions_));
  EXPECT_FALSE(source_.retarget(key(2), Generation{9}, kOther, at(1), actions_));
}

TEST_F(SourceTest, ACreditSaidAgainMeansNothingWasHeard) {
  to_committed();
  credit(key(), 1);
  EXPECT_EQ(told<Announce>().size(), 1u);
  EXPECT_EQ(told<Commit>().size(), 1u);
}

// What was announced to it stands where it first said that it lacks something.
TEST_F(SourceTest, ACreditFromElsewhereIsIgnored) {
  to_streaming();
  compute_all();
  actions_.clear();
  credit(key(), 1, 16);
  EXPECT_TRUE(actions_.empty());
  EXPECT_EQ(source_.stats().ignored_messages, 1u);
}

TEST_F(SourceTest, KvThatDoesNotMatchIsReportedAsSuspect) {
  to_committed();
  source_.on_nack(kSink, {key(), NackReason::kMismatch, 1, 2, 16, 32, 7, 8}, at(1), actions_);
  ASSERT_EQ(took<SourceFailed>().size(), 1u);
  const SourceFailed failed = took<SourceFailed>()[0];
  EXPECT_EQ(failed.error.code, Errc::kDataCorrupt);
  EXPECT_EQ(failed.suspect, (KvRange{1, 2, 16, 32}));
  expect_empty();
}

TEST_F(SourceTest, ASinkThatGaveUpIsLost) {
  to_committed();
  source_.on_abort(kSink, {key(), false, AbortReason::kReadFailed}, at(1), actions_);
  EXPECT_EQ(took<SinkLost>().size(), 1u);
  EXPECT_EQ(source_.parked_blocks(), 3u);
  source_.on_nack(kSink, {.key = key(), .reason = NackReason::kUnknown}, at(1), actions_);
  EXPECT_EQ(took<SinkLost>().size(), 1u);  // once
}

TEST_F(SourceTest, AbortEndsEveryStateAndTellsTheSink) {
  ASSERT_TRUE(begin());
  ASSERT_TRUE(source_.abort(key(), AbortReason::kNotNeeded, at(0), actions_));
  EXPECT_EQ(told<Abort>(), (std::vector{Abort{key(), true, AbortReason::kNotNeeded}}));
  ASSERT_EQ(took<SourceFailed>().size(), 1u);
  EXPECT_EQ(took<SourceFailed>()[0].error.code, Errc::kCancelled);
  expect_empty();
  EXPECT_EQ(source_.abort(key(), AbortReason::kCancelled, at(0), actions_).error().code,
            Errc::kNotFound);
  // The credit that was under way is answered, not kept.
  actions_.clear();
  credit();
  EXPECT_EQ(told<Abort>().size(), 1u);
  EXPECT_EQ(source_.num_early_credits(), 0u);
}

TEST_F(SourceTest, ACreditWithinABlockIsAProtocolError) {
  ASSERT_TRUE(begin());
  credit(key(), 0, 17);
  ASSERT_EQ(told<Abort>().size(), 1u);
  EXPECT_EQ(told<Abort>()[0].reason, AbortReason::kProtocol);
}

TEST_F(SourceTest, MessagesFromTheWrongWorkerAreIgnored) {
  to_committed();
  source_.on_credit(kOther, {key(), seconds(5), 0, kTokens, kHash}, at(1), actions_);
  source_.on_ack(kOther, {key()}, at(1), actions_);
  source_.on_nack(kOther, {.key = key(), .reason = NackReason::kMismatch}, at(1), actions_);
  source_.on_abort(kOther, {key(), false, AbortReason::kFailed}, at(1), actions_);
  source_.on_refuse(kOther, {key(), seconds(1)}, at(1), actions_);
  EXPECT_TRUE(actions_.empty());
  EXPECT_EQ(source_.stats().ignored_messages, 5u);
  EXPECT_EQ(source_.num_handoffs(), 1u);
}

TEST_F(SourceTest, AnAckBeforeTheCommitFreesNothing) {
  to_streaming();
  source_.on_ack(kSink, {key()}, at(1), actions_);
  EXPECT_TRUE(actions_.empty());
  EXPECT_EQ(source_.num_handoffs(), 1u);
}

TEST_F(SourceTest, StaleGenerationsAreFenced) {
  ASSERT_TRUE(begin(key(1, 5)));
  EXPECT_FALSE(begin(key(1, 5)));
  EXPECT_FALSE(begin(key(1, 4)));
  credit(key(1, 4));
  ASSERT_EQ(told<Abort>().size(), 1u);
  EXPECT_EQ(told<Abort>()[0].reason, AbortReason::kSuperseded);
  ASSERT_TRUE(begin(key(1, 6)));
  ASSERT_EQ(took<SourceFailed>().size(), 1u);
  EXPECT_EQ(took<SourceFailed>()[0].key, key(1, 5));
  EXPECT_EQ(took<SourceFailed>()[0].error.code, Errc::kAborted);
  EXPECT_EQ(source_.num_handoffs(), 1u);
}

TEST_F(SourceTest, LeasesForUnknownHandoffsAreAnswered) {
  source_.on_lease(kSink, {false, seconds(5), {key(3)}}, at(0), actions_);
  EXPECT_EQ(told<Abort>(), (std::vector{Abort{key(3), true, AbortReason::kUnknown}}));
}

TEST_F(SourceTest, HandoffsAreBounded) {
  for (uint64_t request = 1; request <= 4; ++request) ASSERT_TRUE(begin(key(request)));
  EXPECT_EQ(begin(key(5)).error().code, Errc::kResourceExhausted);
}

TEST_F(SourceTest, WrongCallsChangeNothing) {
  to_streaming();
  EXPECT_FALSE(done(0, 4, 0, 1));  // no such layer
  EXPECT_FALSE(done(0, 1, 1, 2));  // a gap
  EXPECT_FALSE(done(0, 1, 0, 4));  // beyond the prompt
  EXPECT_FALSE(finish());          // too early
  ASSERT_TRUE(done(0, 1, 0, 2));
  EXPECT_FALSE(done(0, 1, 0, 2));  // twice
  const BlockId other[] = {BlockId{99}};
  const uint64_t digest[] = {1};
  EXPECT_FALSE(source_.layers_done(key(), {1, 2, 0, other, digest}, at(0), actions_));
  source_.announce_ready(actions_);
  EXPECT_EQ(told<Announce>().size(), 1u);
}

}  // namespace
}  // namespace baton::kvtransfer
