#include "sim/plan/bounds.h"

#include <cmath>

#include "tests/sim/plan_fixture.h"

namespace baton::sim {
namespace {

using Bounds = PlanTest;
const Slo kSlo{milliseconds(100), milliseconds(10)};

TEST_F(Bounds, IdleIsTheModel) {
  const WorkerOption w = option(1);
  // 4 ms, 1000 rows, 900 beyond the ridge, their context, pairs and the one draw.
  EXPECT_NEAR(idle_ttft(w, 1000, 0), 4e-3 + 1e-2 + 9e-3 + 3e-5 + 500.5e-6 + 1e-6, 1e-7);
  EXPECT_GT(idle_ttft(w, 1000, 256), idle_ttft(w, 1000, 0));
  EXPECT_NEAR(idle_tpot(w, 900, 200), 4e-3 + 1e-5 + 1000 * (3e-8 + 1e-9) + 1e-6, 1e-7);
  EXPECT_EQ(idle_tpot(w, 900, 1), 0);
}

TEST_F(Bounds, SomeRequestsNobodyCanServeInTime) {
  const WorkerOption one = option(1), two = option(2);
  TraceFile trace = lengths({{1000, 20}, {4000, 20}, {6000, 20}, {40'000, 20}});
  const auto share = [&](std::vector<const WorkerOption*> prefill, Duration tpot) {
    return impossible_share(trace, prefill, {&one}, 0, {milliseconds(100), tpot});
  };
  EXPECT_DOUBLE_EQ(share({&one}, milliseconds(10)), 0.5);
  EXPECT_DOUBLE_EQ(share({&one, &two}, milliseconds(10)), 0.25);
  EXPECT_DOUBLE_EQ(share({&one, &two}, milliseconds(4)), 1);  // no step is that short
}

TEST_F(Bounds, HoldForWhatIsSimulated) {
  for (const auto& [in, out] : {std::pair{1000, 10}, {200, 60}, {600, 30}}) {
    const TraceFile trace = around(in, out);
    const Hardware h = table({option(1)});
    Trials trials(options(1).trials);
    const ClusterSpec spec = cluster_of(h, {.mixed = {&h.workers[0], 2}, .chunk_tokens = 512});
    const double bound =
        2 * most_per_second(h.workers[0], Phase::kBoth, trace, 512, 256, 0.9, kSlo);
    const double found = trials.goodputs({{{&spec, &trace, bound / 2}}})[0];
    EXPECT_GT(found, 0);
    EXPECT_LT(found, bound);
    // Each phase by itself is less work.
    for (const Phase phase : {Phase::kPrefill, Phase::kDecode}) {
      EXPECT_GT(2 * most_per_second(h.workers[0], phase, trace, 512, 256, 0.9, kSlo), found);
    }
  }
}

TEST_F(Bounds, PromptsThatAreSharedHaveNone) {
  TraceFile trace = around(500, 20);
  trace.block_tokens = 512;
  EXPECT_TRUE(std::isinf(most_per_second(option(1), Phase::kPrefill, trace, 512, 256, 0.9, kSlo)));
  EXPECT_FALSE(std::isinf(most_per_second(option(1), Phase::kDecode, trace, 512, 256, 0.9, kSlo)));
}

}  // namespace
}  // namespace baton::sim
