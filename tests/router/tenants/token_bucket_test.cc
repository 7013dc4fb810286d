#include "router/tenants/token_bucket.h"

#include <gtest/gtest.h>

#include <random>

namespace baton::router {
namespace {

constexpr TimePoint kStart{seconds(1000)};

TEST(TokenBucketTest, AMinutesWorthIsThereAtOnceAndThenItComesEvenly) {
  TokenBucket bucket(60, kStart);
  EXPECT_EQ(bucket.wait(60, kStart), Duration::zero());
  bucket.take(60, kStart);
  EXPECT_EQ(bucket.wait(1, kStart), seconds(1));
  EXPECT_EQ(bucket.wait(1, kStart + milliseconds(400)), milliseconds(600));
  EXPECT_EQ(bucket.wait(1, kStart + seconds(1)), Duration::zero());
  EXPECT_DOUBLE_EQ(bucket.level(kStart + seconds(30)), 30);
  EXPECT_DOUBLE_EQ(bucket.level(kStart + seconds(3600)), 60);
}

TEST(TokenBucketTest, WhatIsOverdrawnIsMadeUpFor) {
  TokenBucket bucket(600, kStart);
  bucket.take(1600, kStart);
  EXPECT_DOUBLE_EQ(bucket.level(kStart), -1000);
  EXPECT_EQ(bucket.wait(1, kStart), milliseconds(100'100));
  bucket.take(-1000, kStart);  // given back
  EXPECT_EQ(bucket.wait(1, kStart), milliseconds(100));
}

TEST(TokenBucketTest, NeverFullerThanItsSize) {
  TokenBucket bucket(10, kStart);
  bucket.take(-100, kStart);
  EXPECT_DOUBLE_EQ(bucket.level(kStart), 10);
  EXPECT_EQ(bucket.wait(1000, kStart), Duration::zero());  // more than ever will be there
}

TEST(TokenBucketTest, WithoutARateThereIsNoBound) {
  TokenBucket bucket(0, kStart);
  bucket.take(1e18, kStart);
  EXPECT_EQ(bucket.wait(1e9, kStart), Duration::zero());
}

TEST(TokenBucketTest, AnotherRateKeepsWhatIsOwedAndNoMoreThanFits) {
  TokenBucket bucket(100, kStart);
  bucket.take(150, kStart);
  bucket.set_rate(1000, kStart);
  EXPECT_DOUBLE_EQ(bucket.level(kStart), -50);
  bucket.take(-1000, kStart);
  bucket.set_rate(10, kStart);
  EXPECT_DOUBLE_EQ(bucket.level(kStart), 10);
  bucket.set_rate(0, kStart);
  EXPECT_EQ(bucket.wait(1, kStart), Duration::zero());
  bucket.set_rate(20, kStart);  // it was not bound: full
  EXPECT_DOUBLE_EQ(bucket.level(kStart), 20);
}

TEST(TokenBucketTest, AClockThatStandsStillOrGoesBackGivesNothing) {
  TokenBucket bucket(60, kStart);
  bucket.take(60, kStart);
  EXPECT_DOUBLE_EQ(bucket.level(kStart - seconds(100)), 0);
  bucket.take(0, kStart - seconds(100));
  EXPECT_DOUBLE_EQ(bucket.level(kStart + seconds(1)), 1);
}

// Whatever is asked for and when: over any time no more is used than the rate, a minute's worth and
// the last one's overdraft.
TEST(TokenBucketTest, TheMeanHolds) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    std::mt19937_64 random(seed);
    constexpr double kRate = 6000, kMost = 3000;
    TokenBucket bucket(static_cast<uint64_t>(kRate), kStart);
    TimePoint now = kStart;
    double used = 0;
    for (int i = 0; i < 2000; ++i) {
      now += milliseconds(random() % 300);
      if (bucket.wait(1, now) > Duration::zero()) continue;
      const auto amount = static_cast<double>(random() % static_cast<uint64_t>(kMost));
      bucket.take(amount, now);
      used += amount;
      const double may = kRate * (1 + to_seconds(now - kStart) / 60) + kMost;
      ASSERT_LE(used, may) << "seed " << seed;
    }
  }
}

}  // namespace
}  // namespace baton::router
