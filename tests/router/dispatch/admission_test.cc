// What becomes of requests with and without promises: refused at once, or waiting for others.
#include "tests/router/dispatch/dispatcher_fixture.h"

namespace baton::router {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// A decode step takes 10 ms and 1 ms for each sequence; chat's target is 20 ms.
class AdmissionTest : public DispatcherTest {
 protected:
  AdmissionTest()
      : DispatcherTest({.predict = false,
                        .classes = {{.name = "chat", .target = {seconds(1), milliseconds(20)}},
                                    {.name = "batch", .target = {}, .best_effort = true}}}) {
    proto::WorkerHello hello = make_hello(kMixed, proto::ROLE_MIXED);
    hello.set_max_sequences(64);
    hello.set_total_blocks(10'000);
    hello.set_max_context(100'000);
    EXPECT_TRUE(dispatcher_.worker_joined(hello, "host:1", now_, actions_));
    load(0);
  }
  void load(uint32_t sequences) {
    proto::Frame frame;
    proto::Load& load = *frame.mutable_load();
    load.set_free_blocks(10'000);
    load.set_total_blocks(10'000);
    load.set_running(sequences);
    load.set_sequences(sequences);
    load.mutable_step_costs()->set_fixed(0.010);
    load.mutable_step_costs()->set_row(0.001);
    load.mutable_step_costs()->set_ridge_rows(1000);
    say(kMixed, frame);
  }
  void ask(uint32_t slo_class) {
    RequestInput input;
    input.model = "m";
    input.prompt = {1, 2, 3};
    input.max_tokens = 100;
    input.deadline = now_ + seconds(600);
    input.slo = {.class_index = slo_class,
                 .target = dispatcher_.placement().classes[slo_class].target,
                 .received = now_,
                 .due = now_ + (slo_class == 0 ? seconds(1) : seconds(60)),
                 .best_effort = slo_class == 1};
    ASSERT_TRUE(dispatcher_.submit(std::move(input), now_, actions_));
  }
};

TEST_F(AdmissionTest, WhatWouldMissItsTargetIsRefusedAtOnceAndTheRestServed) {
  for (int i = 0; i < 8; ++i) ask(0);
  EXPECT_EQ(sent().size(), 8u);
  EXPECT_EQ(ended(), nullptr);
  load(30);
  actions_.clear();
  ask(0);
  EXPECT_THAT(sent(), IsEmpty());
  ASSERT_NE(ended(), nullptr);
  ASSERT_TRUE(ended()->refusal);
  EXPECT_EQ(ended()->refusal->reason, Refusal::Reason::kUnattainable);
  EXPECT_THAT(ended()->refusal->message, testing::HasSubstr("over the target of 20 ms"));
  EXPECT_EQ(ended()->error->code, Errc::kResourceExhausted);
}

// TPOT of an answer of two tokens is its one gap, whatever the steps take.
TEST_F(AdmissionTest, AnswersThatAreMuchShorterThanExpectedDoNotTeachWhatStepsTake) {
  const auto answer = [&](uint32_t tokens) {
    ask(0);
    take_spec();
    for (uint32_t i = 0; i < tokens; ++i, now_ += milliseconds(100)) token(kMixed, i, 7);
    finished(kMixed, tokens);
    actions_.clear();
  };
  const auto is_refused = [&] {  // 17 ms are foreseen
    load(6);
    ask(0);
    const bool refused = ended() != nullptr;
    if (!refused) {
      take_spec();
      token(kMixed, 0, 7);
      finished(kMixed, 1);
    }
    actions_.clear();
    load(0);
    return refused;
  };
  for (int i = 0; i < 100; ++i) answer(2);
  EXPECT_FALSE(is_refused());
  for (int i = 0; i < 100; ++i) answer(20);
  EXPECT_TRUE(is_refused());
}

TEST_F(AdmissionTest, BestEffortWaitsWhileItWouldBreakAPromiseButNotForEver) {
  ask(0);
  load(9);  // one more takes the step from 19 to 20 ms, and prompts take their share
  actions_.clear();
  ask(1);
  EXPECT_THAT(sent(), IsEmpty());
  EXPECT_EQ(dispatcher_.num_queued(), 1u);
  load(5);
  EXPECT_THAT(sent(), ElementsAre("submit@31")) << "there is room beside it";
  EXPECT_EQ(actions_.sends[0].frame.submit().spec().priority(), 1);
  load(9);
  actions_.clear();
  ask(1);
  pass(seconds(59));
  EXPECT_THAT(sent(), IsEmpty());
  pass(seconds(1));
  EXPECT_THAT(sent(), ElementsAre("submit@31")) << "its time has come";
}

TEST_F(AdmissionTest, WhoIsDueFirstGoesFirst) {
  dispatcher_.worker_lost(kMixed, now_, actions_);
  ask(1);
  ask(0);
  actions_.clear();
  proto::WorkerHello hello = make_hello(kMixed, proto::ROLE_MIXED);
  EXPECT_TRUE(dispatcher_.worker_joined(hello, "host:1", now_, actions_));
  ASSERT_EQ(sent().size(), 2u);
  EXPECT_EQ(actions_.sends[0].frame.submit().spec().priority(), 0);
  EXPECT_GT(actions_.sends[0].frame.submit().spec().due_us(), 0);
  EXPECT_LT(actions_.sends[0].frame.submit().spec().due_us(),
            actions_.sends[1].frame.submit().spec().due_us());
}

}  // namespace
}  // namespace baton::router
