// Admission as others have it, which the simulator compares with.
#include "tests/router/dispatch/dispatcher_fixture.h"

namespace baton::router {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// A pair. A decode step takes 10 ms and 1 ms for each sequence; the target is 20 ms.
class AdmitByTest : public DispatcherTest {
 protected:
  explicit AdmitByTest(AdmitBy by)
      : DispatcherTest({.admit_by = by,
                        .most_local_tokens = 0,
                        .classes = {{.name = "chat", .target = {seconds(1), milliseconds(20)}}}}) {
    for (const auto& [id, role] :
         {std::pair{kPrefill, proto::ROLE_PREFILL}, {kDecode, proto::ROLE_DECODE}}) {
      proto::WorkerHello hello = make_hello(id, role);
      hello.set_max_sequences(64);
      hello.set_total_blocks(10'000);
      hello.set_max_context(100'000);
      EXPECT_TRUE(dispatcher_.worker_joined(hello, "host:1", now_, actions_));
      load(id, 0);
    }
    actions_.clear();
  }
  void load(WorkerId id, uint32_t sequences) {
    proto::Frame frame;
    proto::Load& load = *frame.mutable_load();
    load.set_free_blocks(10'000);
    load.set_total_blocks(10'000);
    load.set_running(sequences);
    load.set_sequences(sequences);
    if (id == kDecode) load.add_paired(kPrefill.value);
    load.mutable_step_costs()->set_fixed(0.010);
    load.mutable_step_costs()->set_row(0.001);
    load.mutable_step_costs()->set_ridge_rows(1000);
    say(id, frame);
  }
  void ask() {
    RequestInput input;
    input.model = "m";
    input.prompt = {1, 2, 3};
    input.max_tokens = 100;
    input.deadline = now_ + seconds(600);
    input.slo = {.target = dispatcher_.placement().classes[0].target,
                 .received = now_,
                 .due = now_ + seconds(1)};
    ASSERT_TRUE(dispatcher_.submit(std::move(input), now_, actions_));
  }
};

class AdmitByNow : public AdmitByTest {
 protected:
  AdmitByNow() : AdmitByTest(AdmitBy::kNow) {}
};

// Nobody decodes yet, so that there is room for any number.
TEST_F(AdmitByNow, WhoWaitsForItsPromptIsNotSeen) {
  for (int i = 0; i < 15; ++i) ask();
  EXPECT_EQ(ended(), nullptr);
  EXPECT_EQ(sent().size(), 15u);
}

TEST_F(AdmitByNow, WhatDecodesIs) {
  load(kDecode, 15);
  ask();
  ASSERT_NE(ended(), nullptr);
  EXPECT_TRUE(ended()->refusal);
  EXPECT_THAT(sent(), IsEmpty());
}

class AdmitByForeseen : public AdmitByTest {
 protected:
  AdmitByForeseen() : AdmitByTest(AdmitBy::kForeseen) {}
};

TEST_F(AdmitByForeseen, WhoWaitsForItsPromptIsSeen) {
  for (int i = 0; i < 15; ++i) ask();
  EXPECT_NE(ended(), nullptr);
}

class AdmitAtDecode : public AdmitByTest {
 protected:
  AdmitAtDecode() : AdmitByTest(AdmitBy::kAtDecode) {}
};

TEST_F(AdmitAtDecode, WhatDecodesIsLookedAtWhenThePromptIsComputed) {
  load(kDecode, 15);
  ask();
  EXPECT_EQ(ended(), nullptr);
  EXPECT_THAT(sent(), ElementsAre("reserve@21"));
  take_spec();
  grant(kDecode);
  actions_.clear();
  token(kPrefill, 0, 5);
  ASSERT_NE(ended(), nullptr);
  ASSERT_TRUE(ended()->refusal);
  EXPECT_THAT(ended()->refusal->message, testing::HasSubstr("over the target of 20 ms"));
  EXPECT_THAT(delivered(), IsEmpty());
  EXPECT_THAT(sent(), testing::UnorderedElementsAre("cancel@11", "cancel@21"));
  EXPECT_TRUE(dispatcher_.idle());
}

TEST_F(AdmitAtDecode, WhoIsInGoesOn) {
  ask();
  take_spec();
  grant(kDecode);
  load(kDecode, 5);
  token(kPrefill, 0, 5);
  load(kDecode, 15);
  token(kDecode, 1, 6);
  EXPECT_EQ(ended(), nullptr);
  EXPECT_THAT(delivered(), ElementsAre(5, 6));
}

}  // namespace
}  // namespace baton::router
