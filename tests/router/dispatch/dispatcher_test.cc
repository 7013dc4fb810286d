// The dispatcher, event by event, on a clock of its own.
#include "router/dispatch/dispatcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace baton::router {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr WorkerId kPrefill{11}, kPrefill2{12}, kDecode{21}, kDecode2{22}, kMixed{31};

proto::WorkerHello make_hello(WorkerId id, proto::Role role) {
  proto::WorkerHello hello;
  hello.set_protocol_min(1);
  hello.set_protocol_max(1);
  hello.set_worker(id.value);
  hello.set_name("worker-" + std::to_string(id.value));
  hello.set_role(role);
  hello.set_model("m");
  hello.set_model_key("key");
  hello.set_numerics("numerics");
  hello.set_block_tokens(16);
  hello.set_total_blocks(100);
  hello.set_max_context(1000);
  hello.set_max_sequences(4);
  hello.set_vocab_size(320);
  return hello;
}

class DispatcherTest : public testing::Test {
 protected:
  void join(WorkerId id, proto::Role role) {
    ASSERT_TRUE(dispatcher_.worker_joined(make_hello(id, role), "host:1", now_, actions_));
  }
  void pair(WorkerId decode, std::vector<WorkerId> prefill) {
    proto::Frame frame;
    frame.mutable_load()->set_free_blocks(100);
    frame.mutable_load()->set_total_blocks(100);
    for (const WorkerId id : prefill) frame.mutable_load()->add_paired(id.value);
    say(decode, frame);
  }
  void join_pair() {
    join(kPrefill, proto::ROLE_PREFILL);
    join(kDecode, proto::ROLE_DECODE);
    pair(kDecode, {kPrefill});
    actions_.clear();
  }
  void say(WorkerId from, proto::Frame frame) {
    dispatcher_.on_frame(from, std::move(frame), now_, actions_);
  }
  RequestId submit(uint32_t max_tokens = 4, uint32_t choices = 1) {
    RequestInput input;
    input.model = "m";
    input.prompt = {1, 2, 3};
    input.max_tokens = max_tokens;
    input.choices = choices;
    input.end_tokens = {99};
    input.deadline = now_ + seconds(600);
    const auto id = dispatcher_.submit(std::move(input), now_, actions_);
    EXPECT_TRUE(id);
    return *id;
  }

  // What is said about the newest leg.
  void grant(WorkerId from) {
    proto::Frame frame;
    auto& reply = *frame.mutable_reserve_reply();
    reply.set_request(spec_.request());
    reply.set_generation(spec_.generation());
    reply.set_granted(true);
    say(from, frame);
    take_spec();
  }
  void refuse(WorkerId from, uint64_t retry_after_us = 20'000) {
    proto::Frame frame;
    auto& reply = *frame.mutable_reserve_reply();
    reply.set_request(spec_.request());
    reply.set_generation(spec_.generation());
    reply.set_retry_after_us(retry_after_us);
    say(from, frame);
  }
  void token(WorkerId from, uint32_t index, TokenId token, uint32_t choice = 0) {
    token_of(spec_, from, index, token, choice);
  }
  void token_of(const proto::RequestSpec& spec, WorkerId from, uint32_t index, TokenId token,
                uint32_t choice = 0) {
    proto::Frame frame;
    auto& event = *frame.mutable_tokens()->add_tokens();
    event.set_request(spec.request());
    event.set_generation(spec.generation());
    event.set_choice(choice);
    event.set_index(index);
    event.set_token(token);
    say(from, frame);
  }
  void finished(WorkerId from, uint32_t output_tokens, uint32_t choice = 0) {
    proto::Frame frame;
    auto& f = *frame.mutable_finished();
    f.set_request(spec_.request());
    f.set_generation(spec_.generation());
    f.set_choice(choice);
    f.set_reason(proto::FINISH_LENGTH);
    f.set_stop_token(-1);
    f.set_output_tokens(output_tokens);
    say(from, frame);
  }
  void failed(WorkerId from, Errc code, bool retryable) {
    proto::Frame frame;
    auto& f = *frame.mutable_failed();
    f.set_request(spec_.request());
    f.set_generation(spec_.generation());
    f.set_code(static_cast<uint32_t>(code));
    f.set_message("it broke");
    f.set_retryable(retryable);
    say(from, frame);
  }
  void handed_off(WorkerId from) {
    proto::Frame frame;
    auto& h = *frame.mutable_handed_off();
    h.set_request(spec_.request());
    h.set_generation(spec_.generation());
    h.set_bytes(640);
    h.set_transport("posix");
    say(from, frame);
  }
  void preempted(WorkerId from, uint32_t output_tokens, uint32_t choice = 0) {
    proto::Frame frame;
    auto& p = *frame.mutable_preempted();
    p.set_request(spec_.request());
    p.set_generation(spec_.generation());
    p.set_choice(choice);
    p.set_output_tokens(output_tokens);
    say(from, frame);
  }

  // Remembers the newest spec that went out, and drops the frames.
  const proto::RequestSpec& take_spec() {
    for (const Send& send : actions_.sends) {
      if (send.frame.has_reserve()) spec_ = send.frame.reserve().spec();
      if (send.frame.has_submit()) spec_ = send.frame.submit().spec();
    }
    actions_.sends.clear();
    return spec_;
  }
  // "reserve@21", "submit@11", "cancel@21", in order.
  std::vector<std::string> sent() const {
    std::vector<std::string> out;
    for (const Send& send : actions_.sends) {
      const auto* field = proto::Frame::descriptor()->FindFieldByNumber(send.frame.body_case());
      out.push_back(field->name() + "@" + std::to_string(send.to.value));
    }
    return out;
  }
  std::vector<TokenId> delivered(uint32_t choice = 0) const {
    std::vector<TokenId> tokens;
    for (const Output& output : actions_.outputs) {
      const auto* token = std::get_if<TokenOut>(&output);
      if (token && token->choice == choice) tokens.push_back(token->event.token());
    }
    return tokens;
  }
  const RequestEnded* ended() const {
    for (const Output& output : actions_.outputs) {
      if (const auto* end = std::get_if<RequestEnded>(&output)) return end;
    }
    return nullptr;
  }
  void pass(Duration time) {
    now_ += time;
    dispatcher_.tick(now_, actions_);
  }

  TimePoint now_{seconds(1000)};
  Dispatcher dispatcher_{RequestId(1), DispatchLimits{.max_queued = 3}};
  Actions actions_;
  proto::RequestSpec spec_;
};

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

TEST_F(DispatcherTest, AnEndAtTheFirstTokenFreesTheReservation) {
  join_pair();
  submit(1);
  take_spec();
  grant(kDecode);
  token(kPrefill, 0, 50);
  finished(kPrefill, 1);
  EXPECT_THAT(sent(), testing::Contains("cancel@21"));
  ASSERT_TRUE(ended());
  EXPECT_FALSE(ended()->error);
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
  EXPECT_EQ(ended()->error->code, Errc::kResourceExhausted);
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
  token_of(spec_, kPrefill, 2, 62, 1);
  token_of(whole, kDecode, 2, 99, 1);  // no longer its to say
  EXPECT_THAT(delivered(0), ElementsAre(51));
  EXPECT_THAT(delivered(1), ElementsAre(62));
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

TEST_F(DispatcherTest, WorkersOfOneModelMustAgree) {
  join_pair();
  proto::WorkerHello hello = make_hello(kDecode2, proto::ROLE_DECODE);
  hello.set_numerics("other");
  const status refused = dispatcher_.worker_joined(hello, "host:2", now_, actions_);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, testing::AllOf(HasSubstr("numerics"), HasSubstr("other")));
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
