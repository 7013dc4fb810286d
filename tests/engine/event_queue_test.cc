#include "common/engine/event_queue.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <thread>

namespace baton::engine {
namespace {

bool readable(int fd, int timeout_ms) {
  pollfd p = {.fd = fd, .events = POLLIN, .revents = 0};
  return poll(&p, 1, timeout_ms) == 1;
}

TEST(EventQueue, IsEmptyAndQuietAtFirst) {
  const auto queue = EventQueue::create(4).value();
  EngineEvent event;
  EXPECT_FALSE(queue->pop(event));
  EXPECT_FALSE(readable(queue->fd(), 0));
}

TEST(EventQueue, DescriptorIsReadableUntilAllIsTaken) {
  const auto queue = EventQueue::create(4).value();
  for (uint32_t layer = 0; layer < 3; ++layer) queue->push({.layer = layer});
  EngineEvent event;
  for (uint32_t layer = 0; layer < 3; ++layer) {
    EXPECT_TRUE(readable(queue->fd(), 0));
    ASSERT_TRUE(queue->pop(event));
    EXPECT_EQ(event.layer, layer);
  }
  EXPECT_FALSE(queue->pop(event));
  EXPECT_FALSE(readable(queue->fd(), 0));
  queue->push({.layer = 9});
  EXPECT_TRUE(readable(queue->fd(), 0));
  ASSERT_TRUE(queue->pop(event));
  EXPECT_EQ(event.layer, 9u);
}

// Neither an event nor a wake-up is lost between two threads.
TEST(EventQueue, CarriesAllInOrderBetweenThreads) {
  constexpr uint32_t kEvents = 20000, kCapacity = 64;
  const auto queue = EventQueue::create(kCapacity).value();
  std::atomic<uint32_t> taken{0};
  std::thread writer([&] {
    for (uint32_t i = 0; i < kEvents; ++i) {
      while (i - taken.load() >= kCapacity) std::this_thread::yield();
      queue->push({.layer = i});
    }
  });
  EngineEvent event;
  for (uint32_t i = 0; i < kEvents; ++i) {
    while (!queue->pop(event)) ASSERT_TRUE(readable(queue->fd(), 30'000));
    ASSERT_EQ(event.layer, i);
    taken.store(i + 1);
  }
  writer.join();
  EXPECT_FALSE(queue->pop(event));
}

}  // namespace
}  // namespace baton::engine
