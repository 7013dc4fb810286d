// The dispatcher, event by event: a decode worker is lost, and another reads what prefill has.
#include "common/net/protocol.h"
#include "tests/router/dispatch/dispatcher_fixture.h"

namespace baton::router {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;

// One prefill worker and two decode workers, of which `kDecode` serves the first request.
class RetargetTest : public DispatcherTest {
 protected:
  void start(uint32_t protocol = net::kProtocolRetarget) {
    proto::WorkerHello hello = make_hello(kPrefill, proto::ROLE_PREFILL);
    hello.set_protocol_max(protocol);
    ASSERT_TRUE(dispatcher_.worker_joined(hello, "host:1", now_, actions_));
    join(kDecode, proto::ROLE_DECODE);
    pair(kDecode, {kPrefill});
    request_ = submit();
    take_spec();
    grant(kDecode);
    join(kDecode2, proto::ROLE_DECODE);
    pair(kDecode2, {kPrefill});
    actions_.clear();
  }
  void sink_lost(uint64_t generation) {
    proto::Frame frame;
    frame.mutable_sink_lost()->set_request(spec_.request());
    frame.mutable_sink_lost()->set_generation(generation);
    frame.mutable_sink_lost()->set_code(static_cast<uint32_t>(Errc::kUnavailable));
    frame.mutable_sink_lost()->set_message("the decode worker is gone");
    say(kPrefill, frame);
  }
  // The second decode worker was asked; it grants.
  proto::Retarget grant_second() {
    EXPECT_THAT(sent(), Contains("reserve@22"));
    take_spec();
    EXPECT_EQ(spec_.generation(), 2u);
    proto::Frame frame;
    frame.mutable_reserve_reply()->set_request(spec_.request());
    frame.mutable_reserve_reply()->set_generation(spec_.generation());
    frame.mutable_reserve_reply()->set_granted(true);
    say(kDecode2, frame);
    for (const Send& send : actions_.sends) {
      if (send.frame.has_retarget()) return send.frame.retarget();
    }
    ADD_FAILURE() << "no retarget";
    return {};
  }
  void expect_well_ended() {
    ASSERT_NE(ended(), nullptr);
    EXPECT_FALSE(ended()->error);
    EXPECT_EQ(dispatcher_.num_legs(), 0u);
    for (const auto& [id, worker] : dispatcher_.pool().workers()) {
      EXPECT_EQ(worker.placed_sequences + worker.reserving + worker.placed_prompt_tokens, 0u)
          << id.value;
      EXPECT_EQ(worker.placed_tokens + worker.placed_output + worker.placed_stay, 0u) << id.value;
    }
  }

  RequestId request_;
};

TEST_F(RetargetTest, DecodeLostWhilePrefillComputes) {
  start();
  dispatcher_.worker_lost(kDecode, now_, actions_);
  EXPECT_THAT(sent(), Not(Contains("cancel@11"))) << "prefill goes on";
  const proto::Retarget retarget = grant_second();
  EXPECT_EQ(retarget.generation(), 1u);
  EXPECT_EQ(retarget.next_generation(), 2u);
  EXPECT_EQ(retarget.sink(), kDecode2.value);
  EXPECT_THAT(sent(), Not(Contains("submit@11"))) << "nothing is computed twice";
  actions_.clear();
  token(kPrefill, 0, 50);
  handed_off(kDecode2);
  for (uint32_t i = 1; i < 4; ++i) token(kDecode2, i, 50 + static_cast<TokenId>(i));
  finished(kDecode2, 4);
  EXPECT_THAT(delivered(), ElementsAre(50, 51, 52, 53));
  expect_well_ended();
  EXPECT_EQ(ended()->trail.retries, 1u);
  EXPECT_EQ(ended()->trail.retargets, 1u);
}

// What prefill said before it heard of the new generation counts; what the old sink says does not.
TEST_F(RetargetTest, WordsUnderTheOldGeneration) {
  start();
  const proto::RequestSpec first = spec_;
  sink_lost(1);
  EXPECT_THAT(sent(), Contains("cancel@21"));
  token_of(first, kPrefill, 0, 50);
  EXPECT_THAT(delivered(), ElementsAre(50));
  (void)grant_second();
  token_of(first, kDecode, 1, 77);
  token_of(first, kDecode2, 1, 78);
  EXPECT_THAT(delivered(), ElementsAre(50));
  EXPECT_EQ(dispatcher_.stale_events(), 2u);
  actions_.sends.clear();
  sink_lost(1);  // said before the retarget arrived
  dispatcher_.worker_lost(kDecode, now_, actions_);
  EXPECT_THAT(sent(), IsEmpty()) << "the new sink reads on";
}

TEST_F(RetargetTest, ADecodeWorkersTroubleIsNotTheKvs) {
  start();
  failed(kDecode, Errc::kUnavailable, true);
  (void)grant_second();
}

TEST_F(RetargetTest, AReaderThatDrainsLeavesItToAnother) {
  start();
  proto::Frame drains;
  drains.mutable_load()->set_draining(true);
  drains.mutable_load()->add_paired(kPrefill.value);
  say(kDecode, drains);
  pass(milliseconds(20));
  EXPECT_THAT(sent(), Contains("cancel@21"));
  EXPECT_THAT(sent(), Not(Contains("cancel@11"))) << "prefill goes on";
  (void)grant_second();
}

TEST_F(RetargetTest, KvThatDidNotMatchIsComputedAnew) {
  start();
  failed(kDecode, Errc::kDataCorrupt, true);
  EXPECT_THAT(sent(), Contains("cancel@11"));
  (void)take_spec();
  grant(kDecode2);
  EXPECT_EQ(spec_.generation(), 2u);
  EXPECT_EQ(dispatcher_.num_legs(), 1u);
}

TEST_F(RetargetTest, WithAPrefillWorkerOfTheOldProtocolAllIsComputedAnew) {
  start(net::kProtocolMin);
  dispatcher_.worker_lost(kDecode, now_, actions_);
  EXPECT_THAT(sent(), Contains("cancel@11"));
  EXPECT_THAT(sent(), Contains("reserve@22"));
}

TEST_F(RetargetTest, KvThatNobodyReadsInTimeIsGivenUp) {
  start();
  dispatcher_.worker_lost(kDecode2, now_, actions_);
  dispatcher_.worker_lost(kDecode, now_, actions_);
  EXPECT_THAT(sent(), IsEmpty());
  pass(seconds(4));
  EXPECT_THAT(sent(), IsEmpty());
  pass(seconds(2));
  EXPECT_THAT(sent(), ElementsAre("cancel@11"));
  EXPECT_EQ(actions_.sends[0].frame.cancel().generation(), 1u) << "as prefill knows it";
  actions_.clear();
  join(kDecode2, proto::ROLE_DECODE);
  pair(kDecode2, {kPrefill});
  EXPECT_THAT(sent(), Contains("reserve@22"));
  grant(kDecode2);
}

TEST_F(RetargetTest, ARefusalKeepsTheKv) {
  start();
  sink_lost(1);
  take_spec();
  refuse(kDecode2);
  EXPECT_THAT(sent(), ElementsAre("cancel@22", "reserve@21")) << "the KV stays where it is";
  take_spec();
  EXPECT_EQ(spec_.generation(), 3u);
}

// Too much KV waits there: it was refused in the end, and is computed anew, once.
TEST_F(RetargetTest, PrefillCannotKeepTheKv) {
  start();
  dispatcher_.worker_lost(kDecode2, now_, actions_);
  dispatcher_.worker_lost(kDecode, now_, actions_);
  spec_.set_generation(1);
  failed(kPrefill, Errc::kResourceExhausted, true);
  actions_.clear();
  pass(seconds(1));
  join(kDecode2, proto::ROLE_DECODE);
  pair(kDecode2, {kPrefill});
  EXPECT_THAT(sent(), ElementsAre("peers@22", "reserve@22"));
}

TEST_F(RetargetTest, PrefillLostWhileItsKvWaits) {
  start();
  token(kPrefill, 0, 50);
  dispatcher_.worker_lost(kDecode2, now_, actions_);
  dispatcher_.worker_lost(kDecode, now_, actions_);
  actions_.clear();
  dispatcher_.worker_lost(kPrefill, now_, actions_);
  join(kMixed, proto::ROLE_MIXED);
  take_spec();
  EXPECT_THAT(spec_.tokens(), ElementsAre(1, 2, 3, 50)) << "goes on behind what was delivered";
  EXPECT_EQ(dispatcher_.num_legs(), 1u);
}

TEST_F(RetargetTest, TheClientLeavesWhileItsKvWaits) {
  start();
  dispatcher_.worker_lost(kDecode2, now_, actions_);
  dispatcher_.worker_lost(kDecode, now_, actions_);
  actions_.clear();
  ASSERT_TRUE(dispatcher_.cancel(request_, now_, actions_));
  EXPECT_THAT(sent(), ElementsAre("cancel@11"));
  EXPECT_EQ(actions_.sends[0].frame.cancel().generation(), 1u);
  actions_.clear();
  sink_lost(1);
  EXPECT_THAT(sent(), ElementsAre("cancel@11")) << "KV of nobody must not wait for its time-out";
}

TEST_F(RetargetTest, EndsWithItsFirstTokenWhileItsKvWaits) {
  start();
  sink_lost(1);
  actions_.clear();
  spec_.set_generation(1);
  token(kPrefill, 0, 99);
  finished(kPrefill, 1);
  expect_well_ended();
}

TEST_F(RetargetTest, IsBounded) {
  start();
  for (int i = 0; i < 2; ++i) {
    failed(i % 2 == 0 ? kDecode : kDecode2, Errc::kUnavailable, true);
    take_spec();
    pass(milliseconds(10));
    grant(i % 2 == 0 ? kDecode2 : kDecode);
  }
  EXPECT_THAT(sent(), Not(Contains("cancel@11")));
  failed(kDecode, Errc::kUnavailable, true);
  EXPECT_THAT(sent(), Contains("cancel@11")) << "from here on it is computed anew";
  EXPECT_EQ(ended(), nullptr);
}

// The new decode worker is asked for all choices of the leg, also those that were stopped since.
TEST_F(RetargetTest, AChoiceThatWasStoppedIsNotDecodedAgain) {
  proto::WorkerHello hello = make_hello(kPrefill, proto::ROLE_PREFILL);
  hello.set_protocol_max(net::kProtocolRetarget);
  ASSERT_TRUE(dispatcher_.worker_joined(hello, "host:1", now_, actions_));
  join(kDecode, proto::ROLE_DECODE);
  pair(kDecode, {kPrefill});
  request_ = submit(4, 2);
  take_spec();
  grant(kDecode);
  join(kDecode2, proto::ROLE_DECODE);
  pair(kDecode2, {kPrefill});
  token(kPrefill, 0, 50, 0);
  token(kPrefill, 0, 60, 1);
  dispatcher_.stop_choice(request_, 0, now_, actions_);
  actions_.clear();
  dispatcher_.worker_lost(kDecode, now_, actions_);
  std::vector<proto::Cancel> cancels;
  for (const Send& send : actions_.sends) {
    if (send.frame.has_cancel() && send.to == kDecode2) cancels.push_back(send.frame.cancel());
  }
  (void)grant_second();
  ASSERT_EQ(cancels.size(), 1u);
  EXPECT_TRUE(cancels[0].one_choice());
  EXPECT_EQ(cancels[0].choice(), 0u);
  EXPECT_EQ(cancels[0].generation(), 2u);
}

// "Its KV is not here" is free of charge only where another reader was told to prefill.
TEST_F(RetargetTest, APrefillWorkerThatNeverFindsItsKvIsNotAskedForEver) {
  start();
  int times = 0;
  for (; times < 10 && ended() == nullptr; ++times) {
    failed(kPrefill, Errc::kNotFound, true);
    take_spec();
    pass(milliseconds(10));
    for (const WorkerId decode : {kDecode, kDecode2}) grant(decode);
  }
  ASSERT_NE(ended(), nullptr);
  EXPECT_EQ(times, 3);
}

// A grant under an older generation is none: the same worker has been asked again.
TEST_F(RetargetTest, AnOldGrantOfTheSameWorkerIsNone) {
  start();
  dispatcher_.worker_lost(kDecode2, now_, actions_);
  sink_lost(1);  // the only one left is asked once more
  take_spec();
  ASSERT_EQ(spec_.generation(), 2u);
  proto::Frame frame;
  frame.mutable_reserve_reply()->set_request(spec_.request());
  frame.mutable_reserve_reply()->set_generation(1);
  frame.mutable_reserve_reply()->set_granted(true);
  say(kDecode, frame);
  EXPECT_THAT(sent(), IsEmpty());
  frame.mutable_reserve_reply()->set_generation(2);
  say(kDecode, frame);
  EXPECT_THAT(sent(), ElementsAre("retarget@11"));
}

TEST_F(RetargetTest, ALossThatIsSaidTwiceIsOne) {
  start();
  dispatcher_.worker_lost(kDecode2, now_, actions_);
  sink_lost(1);
  take_spec();
  sink_lost(1);
  EXPECT_THAT(sent(), IsEmpty()) << "it is being sought already";
  join(kDecode2, proto::ROLE_DECODE);
  pair(kDecode2, {kPrefill});
  grant(kDecode);
  failed(kDecode, Errc::kUnavailable, true);
  EXPECT_THAT(sent(), Contains("reserve@22")) << "two may be lost, and two were";
}

// Decode had it all: prefill has freed it, and there is nothing to read any more.
TEST_F(RetargetTest, DecodeLostAfterTheHandOff) {
  start();
  token(kPrefill, 0, 50);
  handed_off(kDecode);
  actions_.clear();
  dispatcher_.worker_lost(kDecode, now_, actions_);
  take_spec();
  EXPECT_THAT(spec_.tokens(), ElementsAre(1, 2, 3, 50));
  proto::Frame frame;
  frame.mutable_reserve_reply()->set_request(spec_.request());
  frame.mutable_reserve_reply()->set_generation(spec_.generation());
  frame.mutable_reserve_reply()->set_granted(true);
  say(kDecode2, frame);
  EXPECT_THAT(sent(), ElementsAre("submit@11"));
}

}  // namespace
}  // namespace baton::router
