// Reservations that stand in line for room.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/decode/scheduler_fixture.h"

namespace baton::decode {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class WaitingTest : public SchedulerTest {
 protected:
  // Room for one prompt of 10 blocks, of 16.
  DecodeRequest waiting(uint64_t id, uint32_t tokens = 40) {
    DecodeRequest r = request(id, tokens, static_cast<TokenId>(id));
    r.may_wait = true;
    return r;
  }
  void wait(Scheduler& s, const DecodeRequest& r) {
    const auto reservation = s.reserve(r);
    ASSERT_TRUE(reservation);
    ASSERT_TRUE(std::holds_alternative<Waiting>(*reservation));
    EXPECT_GT(std::get<Waiting>(*reservation).estimate, Duration::zero());
  }
  // Whose turn it is now.
  std::vector<uint64_t> admitted(Scheduler& s) {
    events.clear();
    s.admit_waiting(events);
    std::vector<uint64_t> ids;
    for (const Admitted& a : take<Admitted>()) ids.push_back(a.key.request.value);
    return ids;
  }
  void give_back(Scheduler& s, uint64_t id, const Granted& granted) {
    ASSERT_TRUE(s.cancel(key(id)));
    for (size_t b = granted.first_lacking_block; b < granted.blocks.size(); ++b) {
      pool.release_quarantine(granted.blocks[b]);
    }
  }
};

TEST_F(WaitingTest, RoomGoesToTheFirstOfTheLine) {
  Scheduler s = make();
  const Granted held = grant(s, request(1, 40));
  wait(s, waiting(2));
  wait(s, waiting(3));
  EXPECT_EQ(s.snapshot().waiting, 2u);
  EXPECT_EQ(pool.counts().active, 10u) << "those in line hold nothing";
  EXPECT_THAT(admitted(s), IsEmpty());
  give_back(s, 1, held);
  EXPECT_THAT(admitted(s), ElementsAre(2));
  ASSERT_EQ(take<Admitted>().size(), 1u);
  const Granted granted = take<Admitted>()[0].granted;
  EXPECT_EQ(granted.blocks.size(), 10u);
  EXPECT_EQ(s.snapshot().reserved, 1u);
  give_back(s, 2, granted);
  EXPECT_THAT(admitted(s), ElementsAre(3));
}

TEST_F(WaitingTest, NobodyPassesALargeOne) {
  Scheduler s = make();
  const Granted held = grant(s, request(1, 40));
  wait(s, waiting(2));
  const auto small = s.reserve(request(3, 4, 30));
  EXPECT_TRUE(std::holds_alternative<Full>(*small)) << "there is room, and one before it";
  wait(s, waiting(4, 4));
  EXPECT_THAT(admitted(s), IsEmpty());
  give_back(s, 1, held);
  EXPECT_THAT(admitted(s), ElementsAre(2, 4));
}

// Preempted ones come back with the arrival that they had.
TEST_F(WaitingTest, WhoArrivedEarlierGoesFirst) {
  Scheduler s = make();
  const Granted held = grant(s, request(1, 52));
  wait(s, waiting(5, 20));
  DecodeRequest early = waiting(2, 20);
  wait(s, early);
  DecodeRequest urgent = waiting(9, 20);
  urgent.request.priority = -1;
  wait(s, urgent);
  give_back(s, 1, held);
  EXPECT_THAT(admitted(s), ElementsAre(9, 2, 5));
}

TEST_F(WaitingTest, TheLineIsBounded) {
  Scheduler s = make({.watermark_blocks = 0, .growth_blocks = 0, .max_waiting = 2});
  grant(s, request(1, 40));
  wait(s, waiting(2));
  wait(s, waiting(3));
  EXPECT_TRUE(std::holds_alternative<Full>(*s.reserve(waiting(4))));
  EXPECT_EQ(s.reserve(waiting(3)).error().code, Errc::kInvalidArgument) << "it is here already";
  ASSERT_TRUE(s.cancel(key(2)));
  EXPECT_FALSE(s.cancel(key(2)));
  wait(s, waiting(4));
}

TEST_F(WaitingTest, ALeaverMakesWay) {
  Scheduler s = make();
  grant(s, request(1, 24));
  wait(s, waiting(2, 48));
  wait(s, waiting(3, 20));
  EXPECT_THAT(admitted(s), IsEmpty());
  ASSERT_TRUE(s.cancel(key(2)));
  EXPECT_THAT(admitted(s), ElementsAre(3));
}

TEST_F(WaitingTest, TheDeadlineEndsTheWait) {
  Scheduler s = make();
  grant(s, request(1, 40));
  DecodeRequest r = waiting(2);
  r.request.deadline = kStart + seconds(5);
  wait(s, r);
  s.expire(kStart + seconds(4), events);
  EXPECT_THAT(events, IsEmpty());
  s.expire(kStart + seconds(5), events);
  ASSERT_EQ(take<Expired>().size(), 1u);
  EXPECT_FALSE(take<Expired>()[0].reserved);
  EXPECT_EQ(s.snapshot().waiting, 0u);
}

TEST_F(WaitingTest, TheEstimateCountsThoseAhead) {
  Scheduler s = make();
  start(s, request(1, 40));
  step(s);
  step(s);
  const auto first = std::get<Waiting>(*s.reserve(waiting(2, 24))).estimate;
  const auto second = std::get<Waiting>(*s.reserve(waiting(3, 40))).estimate;
  EXPECT_GE(second, first);
}

}  // namespace
}  // namespace baton::decode
