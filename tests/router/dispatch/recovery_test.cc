// The dispatcher, event by event: what fails is served anew or goes on.
#include "tests/router/dispatch/dispatcher_fixture.h"

namespace baton::router {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST_F(DispatcherTest, LostBeforeATokenIsServedAnewFromScratch) {
  join_pair();
  submit(3, 2);
  take_spec();
  grant(kDecode);
  const proto::RequestSpec first = spec_;
  join(kPrefill2, proto::ROLE_PREFILL);
  pair(kDecode, {kPrefill, kPrefill2});
  actions_.clear();
  dispatcher_.worker_lost(kPrefill, now_, actions_);
  EXPECT_THAT(sent(), testing::Contains("cancel@21"));
  EXPECT_THAT(sent(), testing::Contains("reserve@21"));
  take_spec();
  EXPECT_EQ(spec_.request(), first.request());
  EXPECT_EQ(spec_.generation(), first.generation() + 1);
  EXPECT_EQ(spec_.choices(), 2u);
  EXPECT_EQ(spec_.tokens_size(), 3);
  grant(kDecode);
  token_of(first, kDecode, 0, 77);  // of the old generation
  EXPECT_THAT(delivered(), IsEmpty());
  EXPECT_EQ(dispatcher_.stale_events(), 1u);
}

TEST_F(DispatcherTest, WhatRunsOnADrainingWorkerGoesOnElsewhere) {
  join_pair();
  submit(5);
  take_spec();
  grant(kDecode);
  const proto::RequestSpec first = spec_;
  token(kPrefill, 0, 50);
  handed_off(kDecode);
  token(kDecode, 1, 51);
  actions_.sends.clear();
  proto::Frame drains;
  drains.mutable_load()->set_draining(true);
  drains.mutable_load()->add_paired(kPrefill.value);
  say(kDecode, drains);
  pass(milliseconds(20));
  EXPECT_THAT(sent(), IsEmpty()) << "nobody else is there: it stays";
  token(kDecode, 2, 52);
  join(kDecode2, proto::ROLE_DECODE);
  pair(kDecode2, {kPrefill});
  actions_.sends.clear();
  pass(milliseconds(20));
  EXPECT_THAT(sent(), ElementsAre("cancel@21", "reserve@22"));
  take_spec();
  EXPECT_THAT(spec_.tokens(), ElementsAre(1, 2, 3, 50, 51, 52));
  token_of(first, kDecode, 3, 77);
  grant(kDecode2);
  token(kPrefill, 3, 53);
  handed_off(kDecode2);
  token(kDecode2, 4, 54);
  finished(kDecode2, 5);
  EXPECT_THAT(delivered(), ElementsAre(50, 51, 52, 53, 54));
  ASSERT_NE(ended(), nullptr);
  EXPECT_FALSE(ended()->error);
  EXPECT_EQ(ended()->trail.retries, 0u);
  EXPECT_EQ(ended()->trail.resumes, 1u);
}

TEST_F(DispatcherTest, LostInMidAnswerGoesOnBehindWhatWasDelivered) {
  join(kMixed, proto::ROLE_MIXED);
  submit(4, 2);
  take_spec();
  const proto::RequestSpec first = spec_;
  token(kMixed, 0, 50, 0);
  token(kMixed, 1, 51, 0);
  token(kMixed, 3, 53, 0);  // not delivered: 2 is missing
  actions_.clear();
  dispatcher_.worker_lost(kMixed, now_, actions_);
  EXPECT_EQ(dispatcher_.num_legs(), 2u);
  join(WorkerId{32}, proto::ROLE_MIXED);
  std::vector<proto::RequestSpec> specs;
  for (const Send& send : actions_.sends) specs.push_back(send.frame.submit().spec());
  ASSERT_EQ(specs.size(), 2u);
  EXPECT_THAT(specs[0].tokens(), ElementsAre(1, 2, 3, 50, 51));
  EXPECT_EQ(specs[0].prompt_tokens(), 3u);
  EXPECT_EQ(specs[0].choices(), 1u);
  EXPECT_EQ(specs[0].first_choice(), 0u);
  EXPECT_THAT(specs[1].tokens(), ElementsAre(1, 2, 3));
  EXPECT_EQ(specs[1].first_choice(), 1u);
  EXPECT_NE(specs[0].request(), specs[1].request());
  actions_.clear();
  token_of(specs[0], WorkerId{32}, 2, 52, 0);
  EXPECT_THAT(delivered(0), ElementsAre(52));  // the lost worker's 3 is forgotten
  token_of(specs[0], WorkerId{32}, 3, 53, 0);
  EXPECT_THAT(delivered(0), ElementsAre(52, 53));
}

TEST_F(DispatcherTest, PrefillMayGoOnceDecodeHasItAll) {
  join_pair();
  submit(3);
  take_spec();
  grant(kDecode);
  token(kPrefill, 0, 50);
  handed_off(kDecode);
  actions_.clear();
  dispatcher_.worker_lost(kPrefill, now_, actions_);
  for (const std::string& frame : sent()) EXPECT_EQ(frame, "peers@21");
  token(kDecode, 1, 51);
  token(kDecode, 2, 52);
  finished(kDecode, 3);
  ASSERT_TRUE(ended());
  EXPECT_FALSE(ended()->error);
  EXPECT_EQ(ended()->trail.retries, 0u);
  EXPECT_EQ(ended()->trail.kv_bytes, 640u);
  EXPECT_EQ(ended()->trail.kv_transport, "posix");
}

TEST_F(DispatcherTest, AWorkerLostBetweenTheLastTokenAndItsEndCostsNothing) {
  join(kMixed, proto::ROLE_MIXED);
  submit(4);
  take_spec();
  token(kMixed, 0, 50);
  token(kMixed, 1, 99);  // an end token
  dispatcher_.worker_lost(kMixed, now_, actions_);
  ASSERT_TRUE(ended());
  EXPECT_FALSE(ended()->error);

  actions_.clear();
  join(kMixed, proto::ROLE_MIXED);
  submit(2);
  take_spec();
  token(kMixed, 0, 50);
  token(kMixed, 1, 51);  // max_tokens
  dispatcher_.worker_lost(kMixed, now_, actions_);
  ASSERT_TRUE(ended());
  EXPECT_FALSE(ended()->error);
}

TEST_F(DispatcherTest, RetriesAreBounded) {
  join(kMixed, proto::ROLE_MIXED);
  submit();
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(ended());
    take_spec();
    failed(kMixed, Errc::kInternal, true);
  }
  ASSERT_TRUE(ended());
  EXPECT_EQ(ended()->error->code, Errc::kUnavailable);
  EXPECT_THAT(ended()->error->message, HasSubstr("3 times, at last because it broke"));
  EXPECT_EQ(ended()->trail.retries, 2u);
}

TEST_F(DispatcherTest, AFailureThatIsNotRetryableEndsTheRequest) {
  join(kMixed, proto::ROLE_MIXED);
  submit();
  take_spec();
  failed(kMixed, Errc::kInvalidArgument, false);
  ASSERT_TRUE(ended());
  EXPECT_EQ(ended()->error->code, Errc::kInvalidArgument);
}

TEST_F(DispatcherTest, AFailureAvoidsTheWorkerThatMadeIt) {
  join(kMixed, proto::ROLE_MIXED);
  join(WorkerId{32}, proto::ROLE_MIXED);
  actions_.clear();
  submit();
  const WorkerId first = actions_.sends[0].to;
  take_spec();
  failed(first, Errc::kInternal, true);
  EXPECT_NE(actions_.sends.back().to, first);
}

TEST_F(DispatcherTest, WantOfRoomAtPrefillIsNoFailure) {
  join_pair();
  submit();
  for (int i = 0; i < 5; ++i) {
    take_spec();
    grant(kDecode);
    failed(kPrefill, Errc::kResourceExhausted, true);
    EXPECT_FALSE(ended());
    EXPECT_THAT(sent(), testing::Contains("cancel@21"));
    pass(milliseconds(20));
  }
  EXPECT_EQ(dispatcher_.refusals(), 5u);
}

TEST_F(DispatcherTest, APreemptedChoiceGoesOnWithoutTheOthersNoticing) {
  join_pair();
  submit(4, 2);
  take_spec();
  grant(kDecode);
  const proto::RequestSpec whole = spec_;
  token(kPrefill, 0, 50, 0);
  token(kPrefill, 0, 60, 1);
  token(kDecode, 1, 61, 1);
  preempted(kDecode, 2, 1);
  EXPECT_THAT(sent(), ElementsAre("reserve@21"));
  take_spec();
  EXPECT_NE(spec_.request(), whole.request());
  EXPECT_THAT(spec_.tokens(), ElementsAre(1, 2, 3, 60, 61));
  EXPECT_EQ(spec_.first_choice(), 1u);
  grant(kDecode);
  actions_.clear();
  token_of(whole, kDecode, 1, 51, 0);
  token_of(whole, kDecode, 2, 98, 1);  // no longer its to say
  token_of(spec_, kPrefill, 2, 62, 1);
  EXPECT_THAT(delivered(0), ElementsAre(51));
  EXPECT_THAT(delivered(1), ElementsAre(62));
}

// The time in the queue is that of a placement. A leg that was served for longer than that, and
// comes back for want of room, has not waited at all.
TEST_F(DispatcherTest, WantOfRoomAfterALongPrefillIsNotTheQueuesTimeOut) {
  join_pair();
  submit();
  take_spec();
  grant(kDecode);
  pass(seconds(70));  // prefill has much to do
  EXPECT_FALSE(ended());
  failed(kPrefill, Errc::kResourceExhausted, true);  // its sink went, and too much KV waits there
  pass(milliseconds(20));
  EXPECT_FALSE(ended()) << ended()->error->message;
}

// The same workers serve it again: what is said about the attempt before changes nothing.
TEST_F(DispatcherTest, AnAttemptFailsOnce) {
  join_pair();
  submit();
  take_spec();
  grant(kDecode);
  const proto::RequestSpec first = spec_;
  failed(kPrefill, Errc::kInternal, true);
  take_spec();
  const proto::RequestSpec second = spec_;
  ASSERT_EQ(second.generation(), first.generation() + 1);
  spec_ = first;
  failed(kPrefill, Errc::kInternal, true);  // while decode is asked
  EXPECT_THAT(sent(), IsEmpty());
  spec_ = second;
  grant(kDecode);
  spec_ = first;
  failed(kPrefill, Errc::kInternal, true);  // while prefill computes
  failed(kDecode, Errc::kInternal, true);
  EXPECT_THAT(sent(), IsEmpty());
  EXPECT_EQ(dispatcher_.stale_events(), 3u);
}

TEST_F(DispatcherTest, AGrantThatIsSaidTwiceIsOne) {
  join_pair();
  submit();
  take_spec();
  const proto::RequestSpec spec = spec_;
  grant(kDecode);
  proto::Frame frame;
  frame.mutable_reserve_reply()->set_request(spec.request());
  frame.mutable_reserve_reply()->set_generation(spec.generation());
  frame.mutable_reserve_reply()->set_granted(true);
  say(kDecode, frame);
  EXPECT_THAT(sent(), IsEmpty());
}

// The two connections do not wait for each other: decode's word may come first.
TEST_F(DispatcherTest, PrefillLostWithItsFirstTokenUnsaidIsServedAnew) {
  join_pair();
  submit(3);
  take_spec();
  grant(kDecode);
  handed_off(kDecode);
  token(kDecode, 1, 51);
  actions_.clear();
  dispatcher_.worker_lost(kPrefill, now_, actions_);
  EXPECT_THAT(sent(), testing::Contains("cancel@21"));
  join(kMixed, proto::ROLE_MIXED);
  take_spec();
  EXPECT_EQ(spec_.generation(), 2u);
  EXPECT_THAT(spec_.tokens(), ElementsAre(1, 2, 3));
}

}  // namespace
}  // namespace baton::router
