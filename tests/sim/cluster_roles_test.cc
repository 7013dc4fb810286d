// Roles that move, in the simulated cluster: traffic shifts, and the workers' roles follow.
#include <algorithm>
#include <numeric>

#include "sim/cluster/phases.h"
#include "tests/sim/cluster_fixture.h"

namespace baton::sim {
namespace {

constexpr double kPhase = 150;  // seconds

class ClusterRoles : public ClusterTest {
 protected:
  // Prompts are four fifths of the work, then decoding is, then prompts are again.
  static const TraceFile& shifting() {
    static const TraceFile trace =
        *read_trace("phases:150x27:2500,20/150x16:150,250/150x27:2500,20");
    return trace;
  }
  static WorkerGroup small(proto::Role role, uint32_t count) {
    WorkerGroup g = group(role, count);
    g.max_sequences = 32;
    return g;
  }
  static ClusterSpec fixed(uint32_t prefill, uint32_t decode) {
    return {.name = "test",
            .groups = {small(proto::ROLE_PREFILL, prefill), small(proto::ROLE_DECODE, decode)}};
  }
  static ClusterSpec moving(uint32_t count, proto::Role start = proto::ROLE_MIXED) {
    WorkerGroup g = small(start, count);
    g.auto_role = true;
    return {.name = "test", .groups = {g}};
  }
  static constexpr Slo kSlo{.ttft = milliseconds(500), .tpot = milliseconds(50)};
  static ClusterResult play(const ClusterSpec& spec, const TraceFile& trace) {
    ClusterRunOptions options;
    options.promise = {kSlo.ttft, kSlo.tpot};
    options.placement.classes = {{.name = "default", .target = options.promise}};
    const Traffic traffic = *Traffic::make(trace, {{Arrivals::Kind::kTrace}, 0, 0, 1});
    return run_cluster(spec, traffic, options);
  }
  static uint64_t failed(const ClusterResult& r) {
    return static_cast<uint64_t>(std::ranges::count_if(r.outcomes, [](const Outcome& o) {
      return o.end == Outcome::End::kFailed || o.end == Outcome::End::kOpen;
    }));
  }
};

TEST_F(ClusterRoles, FollowShiftingTrafficAsWellAsTheBestFixedSplitOfEachPhase) {
  const TraceFile& trace = shifting();
  std::vector<double> best(trace.phases.size());
  for (uint32_t prefill = 1; prefill < 6; ++prefill) {
    const auto phases =
        measure_phases(play(fixed(prefill, 6 - prefill), trace).outcomes, trace, kSlo);
    for (size_t p = 0; p < best.size(); ++p) best[p] = std::max(best[p], phases[p].goodput);
  }
  const ClusterResult result = play(moving(6), trace);
  EXPECT_EQ(failed(result), 0u);
  const auto phases = measure_phases(result.outcomes, trace, kSlo);
  for (size_t p = 0; p < best.size(); ++p) {
    EXPECT_GE(phases[p].goodput, 0.9 * best[p]) << "phase " << p;
  }
  // Within a minute of each shift.
  for (const double shift : {kPhase, 2 * kPhase}) {
    const proto::Role to = shift == kPhase ? proto::ROLE_DECODE : proto::ROLE_PREFILL;
    const auto first = std::ranges::find_if(
        result.flips, [&](const FlipAt& f) { return to_seconds(f.at) > shift && f.to == to; });
    ASSERT_NE(first, result.flips.end());
    EXPECT_LT(to_seconds(first->at), shift + 60);
  }
  EXPECT_LT(result.flips.size(), 40u);
}

TEST_F(ClusterRoles, WhateverTheyStartAs) {
  const TraceFile trace = *read_trace("phases:40x8:800,60");
  for (const auto start : {proto::ROLE_MIXED, proto::ROLE_PREFILL, proto::ROLE_DECODE}) {
    for (const uint32_t count : {1u, 2u, 5u}) {
      const ClusterResult result = play(moving(count, start), trace);
      EXPECT_EQ(failed(result), 0u) << count << " " << start;
      const Measures m = measure(result.outcomes, kSlo);
      EXPECT_GT(m.joint_met, count == 1 ? 0.5 : 0.9) << count << " " << start;
    }
  }
}

// One leads, and knows of the others' share of the traffic.
TEST_F(ClusterRoles, SeveralRoutersMoveThemAsOneDoes) {
  ClusterSpec one = moving(6), four = one;
  four.routers = 4;
  const TraceFile& trace = shifting();
  const ClusterResult result = play(four, trace);
  EXPECT_EQ(failed(result), 0u);
  const auto phases = measure_phases(result.outcomes, trace, kSlo);
  const auto alone = measure_phases(play(one, trace).outcomes, trace, kSlo);
  for (size_t p = 0; p < phases.size(); ++p) {
    EXPECT_GE(phases[p].goodput, 0.85 * alone[p].goodput) << "phase " << p;
  }
  EXPECT_LT(result.flips.size(), 40u);
}

TEST_F(ClusterRoles, AmongWorkersThatFailNoRequestIsLost) {
  ClusterSpec spec = moving(4);
  spec.failures = FailureRates{.mean_seconds_between = 60, .restart_seconds = 10};
  const TraceFile trace = *read_trace("phases:60x6:1500,60/60x6:150,200");
  const ClusterResult result = play(spec, trace);
  EXPECT_GT(result.failures, 3u);
  EXPECT_GT(result.flips.size(), 3u);
  const auto lost = failed(result);
  EXPECT_LE(lost, result.outcomes.size() / 100);  // retries have a bound
}

TEST_F(ClusterRoles, FixedPoolsStayAsTheyAre) {
  const TraceFile trace = *read_trace("phases:20x8:800,60");
  EXPECT_TRUE(play(fixed(1, 2), trace).flips.empty());
}

TEST_F(ClusterRoles, PhasesAreReadOrRefused) {
  const auto trace = read_trace("phases:10x5:100,20/20x2.5:30,400");
  ASSERT_TRUE(trace);
  ASSERT_EQ(trace->phases.size(), 2u);
  EXPECT_NEAR(static_cast<double>(trace->phases[1].first_entry), 50, 25);
  EXPECT_TRUE(std::ranges::is_sorted(trace->entries, {}, &TraceFile::Entry::at));
  for (const char* wrong : {"phases:", "phases:10x5", "phases:10x5:100", "phases:10x5:100,20/",
                            "phases:0x5:1,1", "phases:1x1:1,1 ", "phases:axb:c,d"}) {
    const auto refused = read_trace(wrong);
    ASSERT_FALSE(refused) << wrong;
    EXPECT_NE(refused.error().message.find(wrong), std::string::npos);
  }
}

TEST_F(ClusterRoles, ClusterFilesNameThem) {
  const std::string profile =
      std::string(BATON_SOURCE_DIR) + "/deploy/profiles/h200-llama3-8b.yaml";
  const std::string group =
      "  - {role: auto, start_role: decode, count: 3, kv_tokens: 100000, profile: " + profile +
      "}\n";
  const auto spec = parse_cluster("roles: {min_prefill: 2}\nworkers:\n" + group, "c.yaml");
  ASSERT_TRUE(spec) << spec.error().message;
  EXPECT_TRUE(spec->moves_roles());
  EXPECT_EQ(spec->roles.min_prefill, 2u);
  EXPECT_EQ(spec->groups[0].role, proto::ROLE_DECODE);
  EXPECT_FALSE(parse_cluster("roles: {max: 2}\nworkers:\n" + group, "c.yaml"));
}

}  // namespace
}  // namespace baton::sim
