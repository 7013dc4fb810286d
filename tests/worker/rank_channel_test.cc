#include "worker/rank_channel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <thread>
#include <vector>

namespace baton::worker {
namespace {

using testing::HasSubstr;

constexpr milliseconds kSoon{100}, kLong{20'000};

TEST(RankChannel, CarriesMessagesOfAnyLengthInOrder) {
  auto [a, b] = RankChannel::make().value();
  // More than the sockets hold at once: the sender waits for the reader.
  const std::vector<size_t> sizes = {0, 1, 70'000, 3u << 20, 5};
  std::thread sender([&a = a, &sizes] {
    for (size_t i = 0; i < sizes.size(); ++i) {
      const std::vector<std::byte> bytes(sizes[i], std::byte(i));
      EXPECT_TRUE(a.send(RankFrame::kStep, bytes, kLong));
    }
  });
  for (size_t i = 0; i < sizes.size(); ++i) {
    const auto message = b.receive(kLong).value();
    ASSERT_TRUE(message);
    EXPECT_EQ(message->frame, RankFrame::kStep);
    ASSERT_EQ(message->bytes.size(), sizes[i]);
    EXPECT_TRUE(
        std::ranges::all_of(message->bytes, [i](std::byte x) { return x == std::byte(i); }));
  }
  sender.join();
}

TEST(RankChannel, SaysWhetherThereIsAMessage) {
  auto [a, b] = RankChannel::make().value();
  EXPECT_FALSE(b.has_message(std::chrono::microseconds(50)).value());
  ASSERT_TRUE(a.send(RankFrame::kStep, "step", kSoon));
  EXPECT_TRUE(b.has_message(std::chrono::microseconds(50)).value());
  EXPECT_EQ((*b.receive(kSoon).value()).text(), "step");
  EXPECT_FALSE(b.has_message(std::chrono::microseconds(0)).value());
  a = RankChannel(-1);
  EXPECT_TRUE(b.has_message(std::chrono::microseconds(0)).value()) << "an end";
}

TEST(RankChannel, AnEndBetweenMessagesIsNoError) {
  auto [a, b] = RankChannel::make().value();
  ASSERT_TRUE(a.send(RankFrame::kReady, "", kSoon));
  a = RankChannel(-1);
  EXPECT_TRUE(b.receive(kLong).value());
  EXPECT_FALSE(b.receive(kLong).value()) << "and for good";
  EXPECT_EQ(b.send(RankFrame::kStep, "x", kSoon).error().code, Errc::kUnavailable);
}

TEST(RankChannel, SilenceHasADeadline) {
  auto [a, b] = RankChannel::make().value();
  EXPECT_EQ(b.receive(kSoon).error().code, Errc::kDeadlineExceeded);
  const std::string much(8u << 20, 'x');
  EXPECT_EQ(a.send(RankFrame::kStep, much, kSoon).error().code, Errc::kDeadlineExceeded);
}

TEST(RankChannel, WhatIsNotDueIsNamed) {
  auto [a, b] = RankChannel::make().value();
  ASSERT_TRUE(a.send(RankFrame::kStep, "x", kSoon));
  EXPECT_THAT(b.expect(RankFrame::kReady, kSoon).error().message,
              HasSubstr("step where ready was due"));
  ASSERT_TRUE(a.send(RankFrame::kFailed, "no such model", kSoon));
  EXPECT_EQ(b.expect(RankFrame::kReady, kSoon).error().message, "no such model");
}

}  // namespace
}  // namespace baton::worker
