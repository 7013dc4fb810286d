#include "kvtransfer/link_watch.h"

#include <gtest/gtest.h>

namespace baton::kvtransfer {
namespace {

constexpr latency::LinkCosts kPrior{1e-4, 1e-9};
constexpr latency::LinkCosts kTruth{5e-5, 1e-10};

class LinkWatchTest : public testing::Test {
 protected:
  void expect_truth() const {
    EXPECT_NEAR(watch_.model().costs().byte / kTruth.byte, 1, 0.05);
    EXPECT_NEAR(watch_.model().costs().latency / kTruth.latency, 1, 0.2);
  }

  LinkWatch watch_{kPrior};
  TimePoint now_{seconds(1)};
  uint64_t cookie_ = 0;
};

TEST_F(LinkWatchTest, LearnsFromReadsThatFollowEachOther) {
  for (int i = 0; i < 300; ++i) {
    const uint64_t bytes = uint64_t{1} << (12 + i % 14);
    watch_.wanted(++cookie_, bytes, now_);
    now_ += transfer_time(kTruth, bytes);
    watch_.done(cookie_, now_);
  }
  expect_truth();
  EXPECT_EQ(watch_.model().error().count(), 300u);
}

TEST_F(LinkWatchTest, WhatReadsWaitForEachOtherIsNotTheirLinks) {
  for (int i = 0; i < 300; ++i) {
    // Four of one size at once: they end together.
    const uint64_t bytes = uint64_t{1} << (12 + i % 14);
    for (int k = 0; k < 4; ++k) watch_.wanted(++cookie_, bytes, now_);
    now_ += transfer_time(kTruth, 4 * bytes);
    for (uint64_t k = 0; k < 4; ++k) watch_.done(cookie_ - k, now_);
  }
  // What comes after a read began is not foreseen: the first of the four is taken to be slow.
  EXPECT_NEAR(watch_.model().costs().byte / kTruth.byte, 1.5, 0.5);
}

TEST_F(LinkWatchTest, AReadThatFailsTeachesNothingAndIsOffTheLink) {
  watch_.wanted(1, 1 << 30, now_);
  watch_.failed(1);
  watch_.done(1, now_ + seconds(1));  // it has ended
  watch_.failed(2);                   // never wanted
  EXPECT_EQ(watch_.model().error().count(), 0u);
  EXPECT_EQ(watch_.model().costs(), kPrior);
  for (int i = 0; i < 300; ++i) {
    const uint64_t bytes = uint64_t{1} << (12 + i % 14);
    watch_.wanted(++cookie_, bytes, now_);
    watch_.done(cookie_, now_ += transfer_time(kTruth, bytes));
  }
  expect_truth();
}

}  // namespace
}  // namespace baton::kvtransfer
