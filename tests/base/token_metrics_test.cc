#include "common/base/token_metrics.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

const std::vector<double> kBounds = {0.25, 0.5, 1};

TEST(TokenMetrics, TellWhatTheHistogramItselfWouldHave) {
  Metrics one_by_one, together;
  auto& counter = one_by_one.counter("tokens", "T.");
  auto& gaps = one_by_one.histogram("gaps", "G.", kBounds);
  TokenMetrics tokens(together.counter("tokens", "T."), together.histogram("gaps", "G.", kBounds),
                      kBounds);
  for (const double gap : {0.0, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5, 64.0}) {
    counter.Increment();
    gaps.Observe(gap);
    tokens.add_token();
    tokens.add_gap(gap);
    if (gap == 0.5) tokens.publish();
  }
  tokens.publish();
  EXPECT_EQ(together.serialize(), one_by_one.serialize());
  tokens.publish();  // nothing is told twice
  EXPECT_EQ(together.serialize(), one_by_one.serialize());
}

TEST(TokenMetrics, TellNothingBeforeTheyArePublished) {
  Metrics metrics;
  const auto& counter = metrics.counter("tokens", "T.");
  TokenMetrics tokens(metrics.counter("tokens", "T."), metrics.histogram("gaps", "G.", kBounds),
                      kBounds);
  tokens.add_token();
  EXPECT_EQ(counter.Value(), 0);
  EXPECT_EQ(tokens.tokens(), 1u);
  tokens.publish();
  EXPECT_EQ(counter.Value(), 1);
  EXPECT_EQ(tokens.tokens(), 1u);
}

}  // namespace
}  // namespace baton
