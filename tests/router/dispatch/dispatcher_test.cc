// The dispatcher, event by event: placing, merging, ending.
#include "tests/router/dispatch/dispatcher_fixture.h"

namespace baton::router {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST_F(DispatcherTest, ReservesThenSubmitsThenMergesBothStreams) {
  join_pair();
  submit(3);
  EXPECT_THAT(sent(), ElementsAre("reserve@21"));
  EXPECT_EQ(actions_.sends[0].frame.reserve().source(), kPrefill.value);
  take_spec();
  proto::Frame grant_frame;
  grant_frame.mutable_reserve_reply()->set_request(spec_.request());
  grant_frame.mutable_reserve_reply()->set_generation(spec_.generation());
  grant_frame.mutable_reserve_reply()->set_granted(true);
  say(kDecode, grant_frame);
  EXPECT_THAT(sent(), ElementsAre("submit@11"));
  EXPECT_EQ(actions_.sends[0].frame.submit().sink(), kDecode.value);

  token(kDecode, 1, 51);  // overtakes the first one
  EXPECT_THAT(delivered(), IsEmpty());
  token(kPrefill, 0, 50);
  EXPECT_THAT(delivered(), ElementsAre(50, 51));
  token(kPrefill, 0, 50);  // a double
  finished(kDecode, 3);    // before the last token
  EXPECT_FALSE(ended());
  token(kDecode, 2, 52);
  EXPECT_THAT(delivered(), ElementsAre(50, 51, 52));
  ASSERT_TRUE(ended());
  EXPECT_FALSE(ended()->error);
  EXPECT_TRUE(dispatcher_.idle());
  EXPECT_EQ(dispatcher_.num_legs(), 0u);
}

TEST_F(DispatcherTest, MixedWorkerGetsSubmitAlone) {
  join(kMixed, proto::ROLE_MIXED);
  submit();
  EXPECT_THAT(sent(), ElementsAre("submit@31"));
  EXPECT_EQ(actions_.sends[0].frame.submit().sink(), 0u);
}

TEST_F(DispatcherTest, TheFirstTwoTokensAreTimed) {
  join_pair();
  submit(3);
  take_spec();
  grant(kDecode);
  const TimePoint granted = now_;
  token(kPrefill, 0, 50);
  now_ += milliseconds(30);
  token(kDecode, 1, 51);
  now_ += milliseconds(5);
  token(kDecode, 2, 52);
  finished(kDecode, 3);
  ASSERT_TRUE(ended());
  EXPECT_EQ(ended()->trail.first_token, granted);
  EXPECT_EQ(ended()->trail.second_token, granted + milliseconds(30));
}

TEST_F(DispatcherTest, AnEndAtTheFirstTokenFreesTheReservation) {
  join_pair();
  submit();
  take_spec();
  grant(kDecode);
  token(kPrefill, 0, 99);
  finished(kPrefill, 1);
  EXPECT_THAT(sent(), testing::Contains("cancel@21"));
  ASSERT_TRUE(ended());
  EXPECT_FALSE(ended()->error);
}

// Known before: nobody reserves, and nothing is read that may be gone already.
TEST_F(DispatcherTest, AnOnlyTokenIsDrawnWhereThePromptIsComputed) {
  join_pair();
  submit(1);
  EXPECT_THAT(sent(), ElementsAre("submit@11"));
  EXPECT_EQ(actions_.sends[0].frame.submit().sink(), 0u);
  take_spec();
  actions_.clear();
  token(kPrefill, 0, 50);
  finished(kPrefill, 1);
  EXPECT_THAT(delivered(), ElementsAre(50));
  EXPECT_THAT(sent(), IsEmpty());
  ASSERT_TRUE(ended());
  EXPECT_FALSE(ended()->error);
  EXPECT_TRUE(dispatcher_.idle());
}

TEST_F(DispatcherTest, RefusalGoesToTheNextWorkerAndThenWaits) {
  join_pair();
  join(kDecode2, proto::ROLE_DECODE);
  pair(kDecode2, {kPrefill});
  actions_.clear();
  submit();
  const std::string first = sent()[0];
  take_spec();
  refuse(first == "reserve@21" ? kDecode : kDecode2);
  const std::string second = sent().back();
  EXPECT_NE(first, second);
  take_spec();
  actions_.clear();
  refuse(second == "reserve@21" ? kDecode : kDecode2);
  EXPECT_EQ(dispatcher_.num_queued(), 1u);
  EXPECT_EQ(dispatcher_.refusals(), 2u);
  actions_.clear();
  pass(milliseconds(19));
  EXPECT_THAT(sent(), IsEmpty());
  pass(milliseconds(2));
  EXPECT_EQ(sent().size(), 1u);
}

TEST_F(DispatcherTest, RoomThatALoadShowsEndsTheWait) {
  join_pair();
  submit();
  take_spec();
  proto::Frame load;
  load.mutable_load()->set_free_blocks(2);
  load.mutable_load()->set_total_blocks(100);
  load.mutable_load()->add_paired(kPrefill.value);
  say(kDecode, load);
  refuse(kDecode, 1'000'000);
  actions_.clear();
  load.mutable_load()->set_free_blocks(3);
  say(kDecode, load);
  EXPECT_THAT(sent(), ElementsAre("reserve@21"));
}

TEST_F(DispatcherTest, QueueIsBoundedInLengthAndTime) {
  join(kMixed, proto::ROLE_MIXED);
  dispatcher_.worker_lost(kMixed, now_, actions_);
  for (int i = 0; i < 3; ++i) submit();
  RequestInput input;
  input.model = "m";
  input.prompt = {1};
  const auto refused = dispatcher_.submit(std::move(input), now_, actions_);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::kResourceExhausted);
  pass(seconds(61));
  EXPECT_TRUE(dispatcher_.idle());
  ASSERT_TRUE(ended());
  EXPECT_EQ(ended()->error->code, Errc::kUnavailable);  // no pair is there
  EXPECT_THAT(ended()->error->message, HasSubstr("60 s"));
}

TEST_F(DispatcherTest, UnknownModelIsUnavailable) {
  RequestInput input;
  input.model = "other";
  input.prompt = {1};
  const auto refused = dispatcher_.submit(std::move(input), now_, actions_);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::kUnavailable);
}

TEST_F(DispatcherTest, CancelReachesBothSides) {
  join_pair();
  const RequestId id = submit();
  take_spec();
  grant(kDecode);
  ASSERT_TRUE(dispatcher_.cancel(id, now_, actions_));
  EXPECT_THAT(sent(), testing::UnorderedElementsAre("cancel@21", "cancel@11"));
  EXPECT_TRUE(dispatcher_.idle());
  EXPECT_FALSE(ended());
  EXPECT_FALSE(dispatcher_.cancel(id, now_, actions_));
}

TEST_F(DispatcherTest, ACancelledRequestTellsHowFarItWas) {
  join_pair();
  // Of a request that was granted, and after what more.
  const auto stage = [&](auto... events) {
    const RequestId id = submit();
    take_spec();
    grant(kDecode);
    (events(), ...);
    return dispatcher_.cancel(id, now_, actions_)->stage;
  };
  EXPECT_EQ(dispatcher_.cancel(submit(), now_, actions_)->stage, "reserve");
  EXPECT_EQ(stage(), "prefill");
  EXPECT_EQ(stage([&] { token(kPrefill, 0, 50); }), "transfer");
  EXPECT_EQ(stage([&] { token(kPrefill, 0, 50); }, [&] { handed_off(kDecode); }), "decode");
  EXPECT_EQ(stage([&] { token(kDecode, 1, 51); }), "decode");

  const RequestId id = submit();
  take_spec();
  refuse(kDecode);
  EXPECT_EQ(dispatcher_.cancel(id, now_, actions_)->stage, "queue");
}

TEST_F(DispatcherTest, StoppingOneChoiceLeavesTheOther) {
  join(kMixed, proto::ROLE_MIXED);
  const RequestId id = submit(4, 2);
  take_spec();
  token(kMixed, 0, 50, 0);
  token(kMixed, 0, 60, 1);
  dispatcher_.stop_choice(id, 0, now_, actions_);
  ASSERT_THAT(sent(), ElementsAre("cancel@31"));
  EXPECT_TRUE(actions_.sends[0].frame.cancel().one_choice());
  EXPECT_FALSE(ended());
  actions_.clear();
  dispatcher_.stop_choice(id, 1, now_, actions_);
  EXPECT_FALSE(actions_.sends[0].frame.cancel().one_choice());
  ASSERT_TRUE(ended());
  EXPECT_FALSE(ended()->error);
}

TEST_F(DispatcherTest, DeadlineEndsWhatRuns) {
  join_pair();
  submit();
  take_spec();
  grant(kDecode);
  actions_.clear();
  pass(seconds(601));
  ASSERT_TRUE(ended());
  EXPECT_EQ(ended()->error->code, Errc::kDeadlineExceeded);
  EXPECT_THAT(sent(), testing::UnorderedElementsAre("cancel@21", "cancel@11"));
}

TEST_F(DispatcherTest, ASilentReservationIsGivenUp) {
  join_pair();
  submit();
  take_spec();
  pass(seconds(3));
  EXPECT_THAT(sent(), ElementsAre("cancel@21", "reserve@21"));
}

TEST_F(DispatcherTest, PromptScoresComeOnceAndWithTheRightCount) {
  join(kMixed, proto::ROLE_MIXED);
  RequestInput input;
  input.model = "m";
  input.prompt = {1, 2, 3};
  input.prompt_logprobs = 2;
  input.deadline = now_ + seconds(600);
  ASSERT_TRUE(dispatcher_.submit(std::move(input), now_, actions_));
  EXPECT_EQ(actions_.sends.back().frame.submit().prompt_logprobs(), 2);
  take_spec();
  token(kMixed, 0, 50);
  finished(kMixed, 1);
  EXPECT_FALSE(ended());  // the scores are still to come
  proto::Frame done;
  done.mutable_prefill_done()->set_request(spec_.request());
  done.mutable_prefill_done()->set_generation(spec_.generation());
  done.mutable_prefill_done()->add_prompt_scores();
  done.mutable_prefill_done()->add_prompt_scores();
  say(kMixed, done);
  ASSERT_TRUE(ended());
  EXPECT_FALSE(ended()->error);
}

TEST_F(DispatcherTest, PeersAreToldWhenTheyChange) {
  join(kDecode, proto::ROLE_DECODE);
  EXPECT_THAT(sent(), IsEmpty());
  join(kPrefill, proto::ROLE_PREFILL);
  ASSERT_THAT(sent(), ElementsAre("peers@21"));
  EXPECT_EQ(actions_.sends[0].frame.peers().prefill(0).worker(), kPrefill.value);
  EXPECT_EQ(actions_.sends[0].frame.peers().prefill(0).address(), "host:1");
  actions_.clear();
  dispatcher_.worker_lost(kPrefill, now_, actions_);
  ASSERT_THAT(sent(), ElementsAre("peers@21"));
  EXPECT_EQ(actions_.sends[0].frame.peers().prefill_size(), 0);
}

TEST_F(DispatcherTest, WorkersOfOneModelMustAgreeOnItsTokenizer) {
  join_pair();
  proto::WorkerHello hello = make_hello(kDecode2, proto::ROLE_DECODE);
  hello.set_model_key("weights=\"w\" adapter=\"\" tokenizer=\"other\"");
  const status refused = dispatcher_.worker_joined(hello, "host:2", now_, actions_);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, testing::AllOf(HasSubstr("tokenizer"), HasSubstr("other")));
  hello.set_model("another");
  EXPECT_TRUE(dispatcher_.worker_joined(hello, "host:2", now_, actions_));
}

TEST_F(DispatcherTest, UnpairedWorkersAreNoPair) {
  join(kPrefill, proto::ROLE_PREFILL);
  join(kDecode, proto::ROLE_DECODE);
  actions_.clear();
  EXPECT_FALSE(dispatcher_.pool().servable("m"));
  submit();
  EXPECT_THAT(sent(), IsEmpty());
  pair(kDecode, {kPrefill});
  EXPECT_THAT(sent(), ElementsAre("reserve@21"));
  EXPECT_TRUE(dispatcher_.pool().servable("m"));
}

}  // namespace
}  // namespace baton::router
