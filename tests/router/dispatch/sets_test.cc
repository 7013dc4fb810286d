// Requests while two sets of workers of one model stand beside each other.
#include "tests/router/dispatch/dispatcher_fixture.h"

namespace baton::router {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr WorkerId kOld{41}, kOld2{42}, kNew{51};

class SetsTest : public DispatcherTest {
 protected:
  void join_set(WorkerId id, const std::string& weights, proto::Role role = proto::ROLE_MIXED) {
    proto::WorkerHello hello = make_hello(id, role);
    hello.set_model_key("weights=\"" + weights + "\" adapter=\"\" tokenizer=\"t\"");
    ASSERT_TRUE(dispatcher_.worker_joined(hello, "host:1", now_, actions_));
  }
  // The old set has a token of a request's answer, and its worker is lost.
  void lose_the_old_one(uint32_t choices = 1) {
    join_set(kOld, "old");
    submit(8, choices);
    take_spec();
    token(kOld, 0, 70);
    join_set(kNew, "new");
    actions_.clear();
    dispatcher_.worker_lost(kOld, now_, actions_);
  }
};

TEST_F(SetsTest, AnAnswerThatHasBegunGoesOnInItsSetOnly) {
  lose_the_old_one();
  EXPECT_THAT(sent(), Not(Contains("submit@51")));
  pass(seconds(1));
  EXPECT_THAT(sent(), Not(Contains("submit@51")));
  join_set(kOld2, "old");  // it comes back
  EXPECT_THAT(sent(), Contains("submit@42"));
  EXPECT_THAT(take_spec().tokens(), ElementsAre(1, 2, 3, 70));
}

TEST_F(SetsTest, WhatTheClientHasNothingOfMayMove) {
  join_set(kOld, "old");
  submit();
  take_spec();
  join_set(kNew, "new");
  dispatcher_.worker_lost(kOld, now_, actions_);
  EXPECT_THAT(sent(), Contains("submit@51"));
}

TEST_F(SetsTest, AllChoicesAreOfOneSet) {
  lose_the_old_one(/*choices=*/3);  // the client has a token of the first only
  EXPECT_THAT(sent(), Not(Contains("submit@51")));
  join_set(kOld2, "old");
  EXPECT_EQ(std::ranges::count(sent(), "submit@42"), 3);
}

TEST_F(SetsTest, WhoWaitsForItsSetKeepsNobodyElseWaiting) {
  lose_the_old_one();
  submit();
  EXPECT_THAT(sent(), Contains("submit@51"));
  EXPECT_EQ(dispatcher_.num_queued(), 1u);
}

TEST_F(SetsTest, ASetThatDoesNotComeBackEndsTheAnswerAndSaysSo) {
  lose_the_old_one();
  pass(seconds(61));
  ASSERT_NE(ended(), nullptr);
  ASSERT_TRUE(ended()->error);
  EXPECT_EQ(ended()->error->code, Errc::kUnavailable);
  EXPECT_THAT(ended()->error->message, HasSubstr("that gave the answer so far are gone"));
}

TEST_F(SetsTest, WithoutACompleteSetTheReasonIsTold) {
  join_set(kOld, "old", proto::ROLE_PREFILL);
  join_set(kNew, "new", proto::ROLE_DECODE);
  submit();
  pass(seconds(61));
  ASSERT_NE(ended(), nullptr);
  ASSERT_TRUE(ended()->error);
  EXPECT_EQ(ended()->error->code, Errc::kUnavailable);
  EXPECT_THAT(ended()->error->message,
              HasSubstr("there are 1 prefill and 1 decode workers, no two of them a pair"));
}

TEST_F(SetsTest, WorkersReadFromTheirOwnSetOnly) {
  join_set(kPrefill, "old", proto::ROLE_PREFILL);
  join_set(kPrefill2, "new", proto::ROLE_PREFILL);
  actions_.clear();
  join_set(kDecode2, "new", proto::ROLE_DECODE);
  ASSERT_THAT(sent(), ElementsAre("peers@22"));
  const proto::Peers& peers = actions_.sends[0].frame.peers();
  ASSERT_EQ(peers.prefill_size(), 1);
  EXPECT_EQ(peers.prefill(0).worker(), kPrefill2.value);
}

}  // namespace
}  // namespace baton::router
