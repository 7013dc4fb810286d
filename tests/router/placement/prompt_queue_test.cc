#include "router/placement/prompt_queue.h"

#include <gtest/gtest.h>

namespace baton::router {
namespace {

constexpr TimePoint kStart{seconds(50)};
constexpr TimePoint kNever = TimePoint::max();

TimePoint at(int ms) { return kStart + milliseconds(ms); }

TEST(PromptQueueTest, CountsItsOwnUntilTheWorkerDoes) {
  PromptQueue queue;
  queue.add(RequestId(1), at(0), kNever, 0.5);
  EXPECT_DOUBLE_EQ(queue.total(at(0)), 0.5);
  queue.reported(1.0, at(10));
  EXPECT_DOUBLE_EQ(queue.total(at(10)), 1.5) << "it is not sent yet";
  queue.sent(RequestId(1), at(20));
  queue.reported(1.0, at(21));
  EXPECT_DOUBLE_EQ(queue.total(at(21)), 1.5) << "still on its way";
  queue.reported(1.4, at(40));
  EXPECT_DOUBLE_EQ(queue.total(at(40)), 1.4) << "counted";
  EXPECT_DOUBLE_EQ(queue.total(at(540)), 0.9) << "and worked off";
  EXPECT_DOUBLE_EQ(queue.total(at(9000)), 0.0);
  queue.remove(RequestId(1));
  queue.remove(RequestId(1));
  EXPECT_TRUE(queue.prompts().empty());
}

TEST(PromptQueueTest, TheEarlierDueGoFirst) {
  PromptQueue queue;
  queue.add(RequestId(1), at(300), kNever, 0.3);
  queue.add(RequestId(2), at(100), kNever, 0.1);
  queue.add(RequestId(3), at(200), kNever, 0.2);
  EXPECT_NEAR(queue.ahead_of(at(50), at(0)), 0.0, 1e-12);
  EXPECT_NEAR(queue.ahead_of(at(100), at(0)), 0.1, 1e-12) << "equals in the order of arrival";
  EXPECT_NEAR(queue.ahead_of(at(250), at(0)), 0.3, 1e-12);
  EXPECT_NEAR(queue.ahead_of(at(900), at(0)), 0.6, 1e-12);
  // Others' prompts, and what of ours is done: as ours are.
  for (uint64_t id = 1; id <= 3; ++id) queue.sent(RequestId(id), at(0));
  queue.reported(1.2, at(10));
  EXPECT_NEAR(queue.ahead_of(at(250), at(10)), 0.6, 1e-12);
}

TEST(PromptQueueTest, OnlyPromisesThatWereGoodCanBeBroken) {
  PromptQueue queue;
  queue.add(RequestId(1), at(100), at(100), 0.2);  // late already
  queue.add(RequestId(2), at(400), at(400), 0.1);  // 100 ms to spare
  queue.add(RequestId(3), at(500), kNever, 0.1);   // not promised
  queue.add(RequestId(4), at(900), at(900), 0.1);  // 400 ms to spare
  EXPECT_EQ(queue.made_late(at(50), 0.05, at(0)), 0u);
  EXPECT_EQ(queue.made_late(at(50), 0.15, at(0)), 1u);
  EXPECT_EQ(queue.made_late(at(50), 0.5, at(0)), 2u);
  EXPECT_EQ(queue.made_late(at(450), 0.5, at(0)), 1u) << "who goes before it is not touched";
  EXPECT_EQ(queue.made_late(at(1000), 9, at(0)), 0u);
}

}  // namespace
}  // namespace baton::router
