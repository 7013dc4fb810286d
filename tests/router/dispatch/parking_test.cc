// The dispatcher, event by event: decode is full, and prefill computes and parks all the same.
#include "common/net/protocol.h"
#include "tests/router/dispatch/dispatcher_fixture.h"

namespace baton::router {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::Not;

class ParkingTest : public DispatcherTest {
 protected:
  void start(uint32_t protocol = net::kProtocolPark) {
    for (const auto& [id, role] :
         {std::pair(kPrefill, proto::ROLE_PREFILL), std::pair(kDecode, proto::ROLE_DECODE)}) {
      proto::WorkerHello hello = make_hello(id, role);
      hello.set_protocol_max(protocol);
      ASSERT_TRUE(dispatcher_.worker_joined(hello, "host:1", now_, actions_));
    }
    pair(kDecode, {kPrefill});
    parked(0);
    actions_.clear();
  }
  void parked(uint32_t blocks) {
    proto::Frame frame;
    frame.mutable_load()->set_waiting_blocks(blocks);
    frame.mutable_load()->set_most_waiting_blocks(50);
    say(kPrefill, frame);
  }
  void reply(bool granted, bool waiting) {
    proto::Frame frame;
    auto& r = *frame.mutable_reserve_reply();
    r.set_request(spec_.request());
    r.set_generation(spec_.generation());
    r.set_granted(granted);
    r.set_waiting(waiting);
    r.set_retry_after_us(300'000);
    say(kDecode, frame);
  }
  // Decode is full, and asked for a place in its line.
  void ask_for_a_place() {
    id_ = submit();
    EXPECT_FALSE(actions_.sends.back().frame.reserve().may_wait());
    take_spec();
    actions_.clear();
    refuse(kDecode);
    ASSERT_EQ(sent().back(), "reserve@21");
    ASSERT_TRUE(actions_.sends.back().frame.reserve().may_wait());
    take_spec();
    actions_.clear();
  }
  void wait_in_line() {
    ask_for_a_place();
    reply(false, true);
  }

  RequestId id_;
};

TEST_F(ParkingTest, TheFirstTokenIsOutBeforeDecodeHasRoom) {
  start();
  wait_in_line();
  ASSERT_THAT(sent(), ElementsAre("submit@11"));
  EXPECT_TRUE(actions_.sends[0].frame.submit().sink_waits());
  token(kPrefill, 0, 50);
  EXPECT_THAT(delivered(), ElementsAre(50));
  pass(seconds(30));
  EXPECT_EQ(ended(), nullptr) << "no queue's time-out";
  reply(true, false);
  handed_off(kDecode);
  for (uint32_t i = 1; i < 4; ++i) token(kDecode, i, 50 + static_cast<TokenId>(i));
  finished(kDecode, 4);
  EXPECT_THAT(delivered(), ElementsAre(50, 51, 52, 53));
  ASSERT_NE(ended(), nullptr);
  EXPECT_FALSE(ended()->error);
  EXPECT_EQ(ended()->trail.retries, 0u);
}

TEST_F(ParkingTest, ItsStageIsParked) {
  start();
  wait_in_line();
  token(kPrefill, 0, 50);
  const auto trail = dispatcher_.cancel(id_, now_, actions_);
  EXPECT_EQ(trail->stage, "parked");
  EXPECT_THAT(sent(), Contains("cancel@21")) << "its place in line";
}

TEST_F(ParkingTest, RoomAtOnceIsAGrant) {
  start();
  ask_for_a_place();
  reply(true, false);
  ASSERT_THAT(sent(), ElementsAre("submit@11"));
  EXPECT_FALSE(actions_.sends[0].frame.submit().sink_waits());
}

TEST_F(ParkingTest, AFullLineIsNotAskedAgainAndAgain) {
  start();
  ask_for_a_place();
  refuse(kDecode, 1'000'000);
  EXPECT_THAT(sent(), ElementsAre("cancel@21"));
  EXPECT_EQ(dispatcher_.num_queued(), 1u);
}

TEST_F(ParkingTest, PrefillParksNoMoreThanItMay) {
  start();
  parked(50);
  (void)submit();
  take_spec();
  actions_.clear();
  refuse(kDecode, 1'000'000);
  EXPECT_THAT(sent(), ElementsAre("cancel@21"));
  parked(50 - 1);  // three tokens are one block
  EXPECT_EQ(sent().back(), "reserve@21");
}

// Its view was old: the worker itself says so.
TEST_F(ParkingTest, RefusedAtTheCapItLeavesTheLine) {
  start();
  wait_in_line();
  actions_.clear();
  failed(kPrefill, Errc::kResourceExhausted, true);
  EXPECT_THAT(sent(), Contains("cancel@21"));
  EXPECT_EQ(dispatcher_.num_queued(), 1u);
  EXPECT_THAT(sent(), Not(Contains("submit@11")));
}

TEST_F(ParkingTest, AnOldWorkerIsNotAskedForAPlaceInLine) {
  start(net::kProtocolRetarget);
  (void)submit();
  take_spec();
  actions_.clear();
  refuse(kDecode, 1'000'000);
  EXPECT_THAT(sent(), ElementsAre("cancel@21"));
}

// Decode gives the place up after all: what is computed goes to another.
TEST_F(ParkingTest, ALostPlaceInLineSeeksAnotherSink) {
  start();
  wait_in_line();
  token(kPrefill, 0, 50);
  join(kDecode2, proto::ROLE_DECODE);
  pair(kDecode2, {kPrefill});
  actions_.clear();
  reply(false, false);
  EXPECT_THAT(sent(), Contains("reserve@22"));
  EXPECT_THAT(sent(), Not(Contains("cancel@11")));
}

}  // namespace
}  // namespace baton::router
