#include "sim/cluster/swing.h"

#include <cmath>
#include <numbers>

#include "sim/cluster/sweep.h"
#include "tests/sim/cluster_fixture.h"

namespace baton::sim {
namespace {

TEST(Swing, AWaveHasItsPeriodAndItsHeight) {
  std::vector<double> values;
  for (int i = 0; i < 400; ++i)
    values.push_back(100 + 20 * std::sin(2 * std::numbers::pi * i / 25));
  const Swing s = swing_of(values, milliseconds(200));
  EXPECT_NEAR(s.mean, 100, 0.1);
  EXPECT_NEAR(s.variation, 0.2 / std::numbers::sqrt2, 1e-3);
  EXPECT_NEAR(std::remainder(s.period, 5), 0, 0.21);
  EXPECT_GT(s.regularity, 0.99);
}

TEST(Swing, WhatStaysAsItIsDoesNotSwing) {
  const std::vector<double> values(50, 7.0);
  const Swing s = swing_of(values, seconds(1));
  EXPECT_EQ(s.mean, 7);
  EXPECT_EQ(s.variation, 0);
  EXPECT_EQ(s.period, 0);
  EXPECT_EQ(swing_of(std::vector<double>{}, seconds(1)).mean, 0);
}

TEST(Swing, NoiseIsNotRegular) {
  Random random(4);
  std::vector<double> values;
  for (int i = 0; i < 2000; ++i) values.push_back(random.between(50, 149));
  EXPECT_LT(swing_of(values, seconds(1)).regularity, 0.2);
}

class Moments : public ClusterTest {};

TEST_F(Moments, CountWhatCameAndWasRefused) {
  const TraceFile trace = lengths({{500, 20}});
  ClusterRunOptions options;
  options.promise = {milliseconds(100), milliseconds(10)};
  options.placement.classes = {{.name = "default", .target = options.promise}};
  options.moments_every = milliseconds(100);
  const Traffic traffic = poisson(trace, 200, 1000);
  const ClusterResult r = run_cluster(mixed(1), traffic, options);
  ASSERT_GT(r.moments.size(), 10u);
  uint64_t came = 0, refused = 0, most = 0;
  for (size_t i = 0; i < r.moments.size(); ++i) {
    const Moment& m = r.moments[i];
    EXPECT_EQ(m.at, milliseconds(100) * (i + 1));
    came += m.came;
    refused += m.refused;
    most = std::max(most, m.sequences);
  }
  EXPECT_GT(came, 950u);  // the last ones come after the last moment
  EXPECT_LE(came, 1000u);
  EXPECT_GT(refused, 100u);
  EXPECT_LE(refused, measure(r.outcomes, {}).refused);
  EXPECT_GT(most, 0u);
  EXPECT_GT(swing_of(r.moments).mean, 0);
}

}  // namespace
}  // namespace baton::sim
