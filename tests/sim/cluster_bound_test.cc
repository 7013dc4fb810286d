// What anybody could have met: never less than what was.
#include "sim/cluster/bound.h"

#include "sim/cluster/draw.h"
#include "sim/cluster/sweep.h"
#include "tests/sim/cluster_fixture.h"

namespace baton::sim {
namespace {

class BoundTest : public ClusterTest {
 protected:
  static constexpr Slo kSlo{milliseconds(300), milliseconds(8)};

  static TraceFile drawn(Random& random, double input, double output) {
    std::vector<std::pair<uint32_t, uint32_t>> all;
    for (int i = 0; i < 150; ++i) {
      all.emplace_back(log_normal_length(random, input), log_normal_length(random, output));
    }
    return lengths(all);
  }
  static double met(const ClusterSpec& spec, const Traffic& traffic, ClusterRunOptions options) {
    const ClusterResult r = run_cluster(spec, traffic, options);
    return measure(r.outcomes, kSlo).joint_met * static_cast<double>(traffic.size());
  }
  static ClusterRunOptions promised(router::Policy policy, bool admission) {
    ClusterRunOptions options;
    options.placement.policy = policy;
    options.placement.admission = admission;
    options.promise = {kSlo.ttft, kSlo.tpot};
    options.placement.classes = {{.name = "default", .target = options.promise}};
    return options;
  }
  static Bound bound(const ClusterSpec& spec, const Traffic& traffic, uint32_t local = 512) {
    return most_met(spec, traffic, {kSlo, local});
  }
};

TEST_F(BoundTest, NoRunMeetsMore) {
  Random random(3);
  for (int round = 0; round < 40; ++round) {
    const TraceFile trace =
        drawn(random, 100.0 + 300 * random.between(0, 5), 5.0 + 40 * random.between(0, 4));
    ClusterSpec spec = random.chance(0.5) ? mixed(random.between(1, 2))
                                          : split(random.between(1, 2), random.between(1, 2));
    for (WorkerGroup& g : spec.groups) g.chunk_tokens = 256u << random.pick(4);
    const double rate = 5.0 * random.between(1, 30);
    const Traffic traffic = poisson(trace, rate, 150, static_cast<uint64_t>(round));
    const double most = bound(spec, traffic).requests;
    ASSERT_LE(most, 150 * (1 + 1e-9));
    for (const auto policy : {router::Policy::kGoodput, router::Policy::kLeastLoaded}) {
      for (const bool admission : {true, false}) {
        ASSERT_LE(met(spec, traffic, promised(policy, admission)), most + 1e-6)
            << "round " << round << ", " << rate << "/s";
      }
    }
  }
}

TEST_F(BoundTest, OfFewRequestsAllCouldBeMet) {
  const TraceFile trace = lengths({{300, 20}});
  EXPECT_NEAR(bound(mixed(1), poisson(trace, 1, 100)).requests, 100, 1e-6);
}

// One worker that does nothing but prompts: a row at the ridge and beyond costs what it must.
TEST_F(BoundTest, OfManyEqualPromptsAsManyAsThereAreSeconds) {
  const TraceFile trace = lengths({{1000, 1}});
  const latency::StepCosts c = profile().step;
  ClusterSpec spec = split(1, 1);
  const double rows = spec.groups[0].chunk_tokens + spec.groups[0].max_sequences;
  const double row = c.row + c.row_beyond + (c.fixed - c.row_beyond * c.ridge_rows) / rows;
  const double prompt =
      1000 * (row + c.context_token) + c.attended_pair * 1000 * 1001 / 2 + c.output;
  const Traffic traffic = poisson(trace, 200, 4000);
  const double span = to_seconds(traffic.at(3999)) + to_seconds(kSlo.ttft);
  EXPECT_NEAR(bound(spec, traffic, 0).requests, span / prompt, 0.01 * span / prompt);
}

// Beyond the batch that the TPOT allows there is nothing to be had.
TEST_F(BoundTest, OfManyEqualAnswersAsManyAsTheirTpotLetsThrough) {
  const TraceFile trace = lengths({{2000, 21}});
  const latency::StepCosts c = profile().step;
  const Traffic traffic = poisson(trace, 400, 8000);
  const Slo slo{milliseconds(300), milliseconds(5)};  // of batches below the ridge
  const double span = to_seconds(traffic.at(7999)) + 0.3 + 20 * 0.005;
  const double row = c.row + c.output + (c.context_token + c.attended_pair) * 2010;
  const double batch = (0.005 - c.fixed) / row;
  const double most = span * batch / 0.005 / 20;
  EXPECT_NEAR(most_met(split(40, 1), traffic, {slo, 0}).requests, most, 0.03 * most);
}

TEST_F(BoundTest, WhatNoIdleWorkerDoesInTimeIsNotCounted) {
  const TraceFile trace = lengths({{300, 2}, {100'000, 2}});
  EXPECT_NEAR(bound(mixed(4), poisson(trace, 0.1, 10)).requests, 5, 1e-6);
}

TEST_F(BoundTest, WhoKnowsMoreIsPromisedMore) {
  Random random(5);
  const TraceFile trace = drawn(random, 300, 60);
  const Traffic traffic = poisson(trace, 200, 2000);
  const double known = bound(mixed(1), traffic).requests;
  const double blind = most_met(mixed(1), traffic, {kSlo, 512, false}).requests;
  EXPECT_LT(blind, known);
  EXPECT_LT(known, 1800);
}

// What pays is served, at the best of a few prices, and the bound lies beyond it.
TEST_F(BoundTest, WhoTurnsAwayTheDearMeetsMore) {
  Random random(7);
  const TraceFile trace = drawn(random, 500, 40);
  SweepOptions options;
  options.run = promised(router::Policy::kGoodput, true);
  options.count = 6000;
  options.slo = kSlo;
  options.bound = true;
  const Measures plain = (*sweep(mixed(1), trace, {150}, options))[0].runs[0];
  Measures chosen;
  for (const double price : {0.8, 1.0, 1.25}) {
    options.clairvoyant = price;
    const Measures at_price = (*sweep(mixed(1), trace, {150}, options))[0].runs[0];
    EXPECT_GT(at_price.refused, 0u);
    EXPECT_EQ(plain.bound, at_price.bound);
    if (at_price.goodput > chosen.goodput) chosen = at_price;
  }
  EXPECT_GT(plain.bound, 0);
  EXPECT_GT(chosen.goodput, plain.goodput);
  EXPECT_LT(chosen.goodput, chosen.bound);
}

}  // namespace
}  // namespace baton::sim
