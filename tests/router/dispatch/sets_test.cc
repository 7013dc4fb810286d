// Requests while two sets of workers of one model stand beside each other.
#include "common/net/protocol.h"
#include "tests/router/dispatch/dispatcher_fixture.h"

namespace baton::router {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr WorkerId kOld{41}, kOld2{42}, kNew{51}, kNew2{52};

class SetsTest : public DispatcherTest {
 protected:
  void join_set(WorkerId id, const std::string& weights, proto::Role role = proto::ROLE_MIXED) {
    proto::WorkerHello hello = make_hello(id, role);
    hello.set_protocol_max(net::kProtocolRetarget);
    hello.set_model_key("weights=\"" + weights + "\" adapter=\"\" tokenizer=\"t\"");
    ASSERT_TRUE(dispatcher_.worker_joined(hello, "host:1", now_, actions_));
  }
  void join_decode(WorkerId id, const std::string& weights, WorkerId prefill) {
    join_set(id, weights, proto::ROLE_DECODE);
    pair(id, {prefill});
  }
  void drain(WorkerId id) {
    proto::Frame drains;
    drains.mutable_load()->set_draining(true);
    say(id, drains);
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
  EXPECT_EQ(dispatcher_.num_queued(), 0u);  // nor does it take a place in the queue
}

TEST_F(SetsTest, WhatItsLastWorkerCannotGiveAwayKeepsNobodyAtAnother) {
  join_set(kOld, "old");
  submit();
  take_spec();
  token(kOld, 0, 70);
  drain(kOld);  // which another set may not go on with
  join_set(kNew, "new");
  submit();
  take_spec();
  token(kNew, 0, 71);
  join_set(kNew2, "new");
  drain(kNew);
  pass(milliseconds(20));
  EXPECT_THAT(sent(),
              AllOf(Contains("cancel@51"), Contains("submit@52"), Not(Contains("cancel@41"))));
}

TEST_F(SetsTest, KvThatWaitsIsReadInItsSetThoughItIsNotComplete) {
  join_set(kPrefill, "old", proto::ROLE_PREFILL);
  join_decode(kDecode, "old", kPrefill);
  submit();
  take_spec();
  grant(kDecode);
  join_decode(kDecode2, "old", kPrefill);
  join_set(kNew, "new");
  drain(kPrefill);
  actions_.clear();
  dispatcher_.worker_lost(kDecode, now_, actions_);
  EXPECT_THAT(sent(), Contains("reserve@22"));
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
