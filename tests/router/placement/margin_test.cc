#include "router/placement/margin.h"

#include <gtest/gtest.h>

namespace baton::router {
namespace {

void observe(Margin& margin, int times, double predicted, double actual) {
  for (int i = 0; i < times; ++i) margin.observe(predicted, actual, /*target=*/1);
}

TEST(MarginTest, IsTheErrorThatNineOfTenDidNotExceed) {
  Margin margin;
  observe(margin, 31, 0.9, 1.1);
  EXPECT_EQ(margin.share(), 0) << "too few to say";
  for (int i = 0; i < 100; ++i) margin.observe(0.9, 0.9 + 0.001 * (i % 100), 1);
  EXPECT_NEAR(margin.share(), 0.2, 0.001);
  observe(margin, Margin::kSize, 0.9, 0.8);
  EXPECT_NEAR(margin.share(), -0.1, 1e-6) << "all came sooner";
}

// Where steps take longer than believed, many would be accepted before the first of them has ended.
TEST(MarginTest, WhatIsFarFromTheEdgeCountsUntilSomeWereThere) {
  Margin margin;
  observe(margin, 100, 0.4, 0.9);
  EXPECT_EQ(margin.share(), 0) << "less than half";
  observe(margin, 32, 0.55, 0.85);
  EXPECT_NEAR(margin.share(), 0.3, 1e-6);
  observe(margin, 31, 0.9, 1.0);
  observe(margin, 100, 0.55, 0.85);
  EXPECT_NEAR(margin.share(), 0.3, 1e-6);
  observe(margin, 33, 0.9, 1.0);
  EXPECT_NEAR(margin.share(), 0.1, 1e-6) << "those at the edge alone";
  observe(margin, Margin::kSize, 0.6, 0.9);
  EXPECT_NEAR(margin.share(), 0.1, 1e-6) << "what is far from it teaches nothing now";
}

// With it nothing above half of the target is accepted.
TEST(MarginTest, FromAsLargeAsItCanBeItBecomesSmallAgain) {
  Margin margin;
  observe(margin, 100, 0.9, 2.0);
  EXPECT_EQ(margin.share(), Margin::kMost);
  observe(margin, Margin::kSize, 0.51, 0.51);
  EXPECT_EQ(margin.share(), 0);
}

TEST(MarginTest, AtWorstIsLaterOrSoonerButNotSoonerThanAnIdleWorker) {
  Margin margin;
  EXPECT_EQ(margin.at_worst(0.7, /*target=*/1, /*idle=*/0.2), 0.7);
  observe(margin, Margin::kSize, 0.9, 1.0);
  EXPECT_NEAR(margin.at_worst(0.7, 1, 0.2), 0.8, 1e-6);
  EXPECT_NEAR(margin.at_worst(0.9, 1, 0.9), 0.95, 1e-6) << "half of the room that is left";
  EXPECT_NEAR(margin.at_worst(1.2, 1, 1.1), 1.2, 1e-6);
  observe(margin, Margin::kSize, 0.9, 0.6);
  EXPECT_NEAR(margin.at_worst(1.2, 1, 0.2), 0.9, 1e-6) << "what is foreseen is too much";
  EXPECT_NEAR(margin.at_worst(1.2, 1, 1.1), 1.1, 1e-6);
  observe(margin, Margin::kSize, 1.2, 0.1);
  EXPECT_EQ(margin.share(), -Margin::kMost);
}

}  // namespace
}  // namespace baton::router
