#include <algorithm>

#include "tests/sim/plan_fixture.h"

namespace baton::sim {
namespace {

class Plans : public PlanTest {
 protected:
  // Every placement's rate, by simulations of other requests.
  static double goodput_of(const Hardware& h, const TraceFile& trace, const Layout& layout,
                           const PlanOptions& o, double start) {
    const ClusterSpec spec = cluster_of(h, layout);
    double sum = 0;
    for (const uint64_t seed : {77, 78}) {
      TrialOptions others = o.trials;
      others.seed = seed;
      Trials trials(others);
      sum += trials.goodputs({{{&spec, &trace, start / layout.units, 0, kLocalTokens}}})[0];
    }
    return layout.units * sum / 2;
  }

  static void expect_near_the_best(const Hardware& h, const TraceFile& trace,
                                   const PlanOptions& o) {
    const auto plan = make_plan(h, trace, o);
    ASSERT_TRUE(plan);
    ASSERT_TRUE(plan->best());
    double best = 0;
    std::string which;
    const double start = plan->best()->goodput * 0.8;
    for (const Layout& layout : all_layouts(h, o)) {
      const double found = goodput_of(h, trace, layout, o, start);
      if (found > best) which = layout.to_string();
      best = std::max(best, found);
    }
    const double ours = goodput_of(h, trace, plan->best()->layout, o, start);
    EXPECT_GE(ours, 0.95 * best) << plan->best()->layout.to_string() << " instead of " << which;
    EXPECT_NEAR(plan->best()->goodput, ours, 0.1 * ours);  // of other requests
  }
};

TEST_F(Plans, AreNearTheBestOfAllKinds) {
  expect_near_the_best(table({option(1), option(2)}), around(800, 12), options(3));
}

TEST_F(Plans, AreNearTheBestOfAllWhereOutputsAreLong) {
  expect_near_the_best(table({option(1)}), around(150, 40), options(3));
}

TEST_F(Plans, AreNearTheBestOfAllWhereTargetsAreTight) {
  PlanOptions o = options(4);
  o.trials.slo = {milliseconds(60), milliseconds(6)};
  expect_near_the_best(table({option(1)}), around(600, 20), o);
}

TEST_F(Plans, AreTheSameWithAnyNumberOfThreads) {
  const Hardware h = table({option(1)});
  const TraceFile trace = around(500, 20);
  PlanOptions one = options(3), many = one;
  one.trials.threads = 1;
  many.trials.threads = 3;
  const auto a = make_plan(h, trace, one), b = make_plan(h, trace, many);
  ASSERT_TRUE(a && b && a->split && a->mixed);
  EXPECT_EQ(a->split->layout, b->split->layout);
  EXPECT_EQ(a->split->goodput, b->split->goodput);
  EXPECT_EQ(a->mixed->layout, b->mixed->layout);
  EXPECT_EQ(a->mixed->goodput, b->mixed->goodput);
  EXPECT_EQ(a->split_verified.attained, b->split_verified.attained);
  EXPECT_EQ(a->simulations, b->simulations);
}

TEST_F(Plans, SayWhatNobodyCanServe) {
  const Hardware h = table({option(1)});
  const auto plan = make_plan(h, lengths({{500, 20}, {20'000, 20}}), options(4));
  ASSERT_TRUE(plan);
  EXPECT_DOUBLE_EQ(plan->impossible, 0.5);
  EXPECT_FALSE(plan->best());
  EXPECT_EQ(plan->simulations, 0u);
}

// Eight GPUs in nodes of four, with a link between the nodes that hardly carries any KV.
TEST_F(Plans, StayWithinNodesWhereTheLinksBetweenAreSlow) {
  WorkerOption w = option(1);
  w.nic_bytes_per_second = 2e8;
  Hardware h = table({w});
  h.gpus_per_node = 2;
  PlanOptions o = options(4);
  o.trials.requests = 400;
  const TraceFile trace = around(500, 20);
  const auto plan = make_plan(h, trace, o);
  ASSERT_TRUE(plan && plan->split);
  EXPECT_TRUE(plan->split->layout.within_node);
  EXPECT_EQ(plan->split->layout.units, 2u);
  EXPECT_EQ(plan->split->layout.gpus(), 4u);
  o.affinity = PlanOptions::Affinity::kHigh;
  const auto far = make_plan(h, trace, o);
  ASSERT_TRUE(far);
  EXPECT_TRUE(!far->split || far->split->goodput < plan->split->goodput);
}

TEST_F(Plans, KeepToTheBudgetAndToWhatThereIs) {
  WorkerOption fast = option(1, "fast"), slow = option(1, "slow");
  fast.cost = 3;
  fast.available = 2;
  slow.profile.step.row *= 2;
  slow.profile.step.row_beyond *= 2;
  const Hardware h = table({fast, slow});
  PlanOptions o = options(6);
  o.budget = 8;
  for (const Layout& layout : all_layouts(h, o)) {
    EXPECT_LE(layout.cost(), 8) << layout.to_string();
    EXPECT_LE(layout.gpus(), 6u) << layout.to_string();
    uint32_t of_fast = 0;
    for (const WorkerPool& pool : {layout.prefill, layout.decode, layout.mixed}) {
      if (pool.count > 0 && pool.worker->device == "fast") of_fast += pool.count;
    }
    EXPECT_LE(of_fast, 2u);
  }
  const auto all = all_layouts(h, o);
  EXPECT_TRUE(std::ranges::any_of(all, [](const Layout& l) {
    return l.split() && l.prefill.worker->device == "fast" && l.decode.worker->device == "slow";
  }));
}

TEST_F(Plans, WorkersThatAreNotNeededAreLeftOut) {
  const Hardware h = table({option(1)});
  const TraceFile trace = around(1600, 2);  // hardly anything to decode
  Trials trials(options(4).trials);
  Contest contest(trials, h, trace);
  Layout layout{.prefill = {&h.workers[0], 1}, .decode = {&h.workers[0], 3}, .chunk_tokens = 2048};
  contest.hold({{layout, 20}}, 1);
  ASSERT_TRUE(contest.best());
  contest.trim();
  EXPECT_LT(contest.best()->layout.decode.count, 3u);
}

}  // namespace
}  // namespace baton::sim
