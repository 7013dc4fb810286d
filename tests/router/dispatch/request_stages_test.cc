#include "router/dispatch/request_stages.h"

#include <gtest/gtest.h>

#include "tests/router/dispatch/dispatcher_fixture.h"

namespace baton::router {
namespace {

const TimePoint kReceived{seconds(100)};
TimePoint after(int ms) { return kReceived + milliseconds(ms); }

// A request that was handed over: 20 ms to the first token, 30 ms more to the second.
RequestTrail handed_over() {
  RequestTrail t;
  t.submitted = after(1);
  t.placed = after(3);
  t.granted = after(6);
  t.prefill_queue_us = 4000;
  t.prefill_compute_us = 7000;
  t.first_token = after(19);
  t.second_token = after(49);
  t.kv_bytes = 640;
  t.parked_us = 10'000;
  t.exposed_transfer_us = 5000;
  t.decode_queue_us = 6000;
  t.first_step_us = 7000;
  return t;
}
const WrittenTokens kWritten{after(20), after(50)};

Duration first_sum(const RequestStages& s) {
  return *s.parse + *s.admission + *s.reserve + *s.prefill_queue + *s.prefill + *s.relay;
}
Duration second_sum(const RequestStages& s) {
  return *s.parked + *s.exposed_transfer + s.decode_queue.value_or(Duration::zero()) +
         s.first_step.value_or(Duration::zero()) + *s.handover_relay + *s.handover_rest;
}

TEST(RequestStagesTest, BothSumsAreWhatTheSocketSaw) {
  const RequestStages s = stages_of(handed_over(), kReceived, kWritten);
  EXPECT_EQ(first_sum(s), milliseconds(20));
  EXPECT_EQ(*s.relay, milliseconds(3));
  EXPECT_EQ(second_sum(s), milliseconds(30));
  EXPECT_EQ(*s.handover, milliseconds(30));
  EXPECT_EQ(*s.handover_relay, milliseconds(1));
  EXPECT_EQ(*s.decode_queue, milliseconds(6));
  EXPECT_EQ(*s.first_step, milliseconds(7));
  EXPECT_EQ(*s.handover_rest, milliseconds(1));
}

TEST(RequestStagesTest, WithoutAStreamTokensCountWhenTheyAreHere) {
  const RequestStages s = stages_of(handed_over(), kReceived, {});
  EXPECT_EQ(first_sum(s), milliseconds(19));
  EXPECT_EQ(second_sum(s), milliseconds(30));
  EXPECT_EQ(*s.handover_relay, Duration::zero());
}

TEST(RequestStagesTest, WhatAnOldDecodeWorkerDoesNotTellIsInTheRest) {
  RequestTrail trail = handed_over();
  trail.decode_queue_us.reset();
  trail.first_step_us.reset();
  const RequestStages s = stages_of(trail, kReceived, kWritten);
  EXPECT_FALSE(s.decode_queue || s.first_step);
  EXPECT_EQ(*s.handover_rest, milliseconds(14));
  EXPECT_EQ(second_sum(s), milliseconds(30));
}

TEST(RequestStagesTest, OnlyOneHandoverIsTakenApart) {
  for (uint32_t RequestTrail::*again : {&RequestTrail::retries, &RequestTrail::resumes}) {
    RequestTrail trail = handed_over();
    trail.*again = 1;
    const RequestStages s = stages_of(trail, kReceived, kWritten);
    EXPECT_TRUE(s.relay && s.parked && s.exposed_transfer);
    EXPECT_FALSE(s.decode_queue || s.first_step || s.handover_rest || s.handover);
  }
  RequestTrail here = handed_over();
  here.kv_bytes = 0;  // served by one worker
  EXPECT_FALSE(stages_of(here, kReceived, kWritten).handover_rest);
}

TEST(RequestStagesTest, NoStageIsNegativeOrEndlessWhateverWorkersSay) {
  RequestTrail trail = handed_over();
  trail.prefill_compute_us = trail.parked_us = UINT64_MAX;
  trail.first_step_us = UINT64_MAX;
  const RequestStages s = stages_of(trail, kReceived, kWritten);
  EXPECT_EQ(*s.relay, Duration::zero());
  EXPECT_EQ(*s.handover_rest, Duration::zero());
  EXPECT_LE(*s.first_step, std::chrono::hours(24));
}

// A second token without a text is in no event: it counts from when the router had it.
TEST(RequestStagesTest, AFirstTokenThatIsWrittenAfterTheSecondCameLeavesNothingNegative) {
  RequestTrail trail = handed_over();
  trail.second_token = after(21);
  const RequestStages s = stages_of(trail, kReceived, {after(30), std::nullopt});
  EXPECT_EQ(*s.handover, Duration::zero());
  EXPECT_EQ(*s.handover_rest, Duration::zero());
}

TEST(RequestStagesTest, OneThatEndedEarlyHasWhatItCameTo) {
  RequestTrail trail;
  trail.submitted = after(1);
  RequestStages s = stages_of(trail, kReceived, {});
  EXPECT_EQ(*s.parse, milliseconds(1));
  EXPECT_FALSE(s.admission || s.reserve || s.prefill || s.relay || s.parked);
  trail.placed = after(2);
  s = stages_of(trail, kReceived, {});
  EXPECT_EQ(*s.admission, milliseconds(1));
  EXPECT_FALSE(s.reserve);
}

// --- how they come to the trail ------------------------------------------------------------------

class FirstStepTest : public DispatcherTest {
 protected:
  // With its token, as decode sends it.
  void first_step(WorkerId from, uint32_t index, uint64_t queue_us) {
    proto::Frame frame;
    auto& step = *frame.mutable_tokens()->add_first_steps();
    step.set_request(spec_.request());
    step.set_generation(spec_.generation());
    step.set_queue_us(queue_us);
    step.set_step_us(7);
    auto& event = *frame.mutable_tokens()->add_tokens();
    event.set_request(spec_.request());
    event.set_generation(spec_.generation());
    event.set_index(index);
    event.set_token(50);
    say(from, frame);
  }
  const RequestTrail* ended() const {
    for (const Output& output : actions_.outputs) {
      if (const auto* e = std::get_if<RequestEnded>(&output)) return &e->trail;
    }
    return nullptr;
  }
};

TEST_F(FirstStepTest, DecodesStagesComeWithTheSecondTokenEvenIfItIsTheLast) {
  join_pair();
  submit(2);
  take_spec();
  grant(kDecode);
  token(kPrefill, 0, 50);
  first_step(kPrefill, 5, 99);  // not its to say
  handed_off(kDecode);
  first_step(kDecode, 1, 30);
  finished(kDecode, 2);
  ASSERT_NE(ended(), nullptr);
  EXPECT_EQ(ended()->decode_queue_us, 30u);
  EXPECT_EQ(ended()->first_step_us, 7u);
  EXPECT_EQ(dispatcher_.stale_events(), 1u) << "the token of which there is no place";
}

TEST_F(FirstStepTest, OfALegThatGoesOnInMidAnswerNothingIsTaken) {
  join_pair();
  submit(4);
  take_spec();
  grant(kDecode);
  token(kPrefill, 0, 50);
  first_step(kDecode, 1, 30);
  first_step(kDecode, 2, 1000);
  first_step(kDecode, 3, 1000);
  finished(kDecode, 4);
  ASSERT_NE(ended(), nullptr);
  EXPECT_EQ(ended()->decode_queue_us, 30u);
}

// What computes an answer's beginning again is not on the way to the first token.
TEST_F(FirstStepTest, APromptOfALegThatGoesOnInMidAnswerIsNotCounted) {
  const auto prefill_done = [&](uint64_t compute_us) {
    proto::Frame frame;
    auto& done = *frame.mutable_tokens()->add_prefill_done();
    done.set_request(spec_.request());
    done.set_generation(spec_.generation());
    done.set_queue_us(1);
    done.set_compute_us(compute_us);
    say(kPrefill, frame);
  };
  join_pair();
  submit(4);
  take_spec();
  grant(kDecode);
  prefill_done(10);
  token(kPrefill, 0, 50);
  handed_off(kDecode);
  token(kDecode, 1, 51);
  join(kDecode2, proto::ROLE_DECODE);
  pair(kDecode2, {kPrefill});
  dispatcher_.worker_lost(kDecode, now_, actions_);
  pass(milliseconds(20));
  take_spec();
  grant(kDecode2);
  prefill_done(5000);
  token(kPrefill, 2, 52);
  handed_off(kDecode2);
  token(kDecode2, 3, 53);
  finished(kDecode2, 4);
  ASSERT_NE(ended(), nullptr);
  EXPECT_EQ(ended()->resumes, 1u);
  EXPECT_EQ(ended()->prefill_compute_us, 10u);
  EXPECT_EQ(ended()->prefill_queue_us, 1u);
}

// As every worker sent its tokens before first steps were told of, byte for byte.
TEST_F(FirstStepTest, AnOldWorkersFrameIsWhatItWas) {
  const std::string golden("\x52\x0a\x0a\x08\x08\x01\x10\x01\x20\x01\x28\x32", 12);
  proto::Frame frame;
  ASSERT_TRUE(frame.ParseFromString(golden));
  ASSERT_EQ(frame.tokens().tokens_size(), 1);
  EXPECT_EQ(frame.tokens().tokens(0).token(), 50);
  EXPECT_EQ(frame.SerializeAsString(), golden);
  join_pair();
  submit(2);
  take_spec();
  grant(kDecode);
  token(kPrefill, 0, 50);
  say(kDecode, frame);
  finished(kDecode, 2);
  ASSERT_NE(ended(), nullptr);
  EXPECT_TRUE(ended()->second_token);
  EXPECT_FALSE(ended()->decode_queue_us || ended()->first_step_us);
}

}  // namespace
}  // namespace baton::router
