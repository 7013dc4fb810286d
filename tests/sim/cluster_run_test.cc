#include <cmath>

#include "sim/cluster/cluster_worker.h"
#include "sim/cluster/draw.h"
#include "tests/sim/cluster_fixture.h"

namespace baton::sim {
namespace {

using latency::step_time;
using latency::StepWork;

bool operator==(const Outcome& a, const Outcome& b) {
  return a.end == b.end && a.scheduled == b.scheduled && a.first_token == b.first_token &&
         a.last_token == b.last_token && a.worst_gap == b.worst_gap && a.tokens == b.tokens;
}

class Cluster : public ClusterTest {
 protected:
  static constexpr Duration kMessage = microseconds(100);

  // Blocks are read whole.
  static double kv_bytes(uint32_t input) {
    return (input + 63) / 64 * 64.0 * profile().kv_bytes_per_token;
  }
  // The decode steps behind a prompt of so many tokens, alone.
  static Duration decode_steps(uint32_t input, uint32_t output) {
    Duration sum{};
    for (uint32_t i = 1; i < output; ++i) {
      sum += step_time(profile().step, StepWork::decode(1, input + i));
    }
    return sum;
  }
  static Duration prompt_steps(uint32_t input, uint32_t chunk) {
    Duration sum{};
    for (uint32_t done = 0; done < input; done += chunk) {
      const uint32_t rows = std::min(chunk, input - done);
      sum += step_time(profile().step, StepWork::prefill(rows, done, done + rows == input));
    }
    return sum;
  }
};

// --- an idle cluster takes what the model says, to the nanosecond
// ----------------------------------

TEST_F(Cluster, AnIdleMixedWorkerTakesTheModelsTime) {
  for (const auto& [input, output] : {std::pair{1u, 1u}, {1u, 2u}, {300u, 50u}, {5000u, 7u}}) {
    const TraceFile trace = lengths({{input, output}});
    const ClusterResult r = run_cluster(mixed(1), poisson(trace, 1, 1), plain());
    const Outcome& o = r.outcomes.front();
    ASSERT_EQ(o.end, Outcome::End::kAnswered);
    EXPECT_EQ(o.tokens, output);
    EXPECT_EQ(o.first_token - o.scheduled, 2 * kMessage + prompt_steps(input, 2048));
    EXPECT_EQ(o.last_token - o.first_token, decode_steps(input, output));
  }
}

// Reserved, granted, submitted, heard; what is read after the prompt is its last quarter of layers.
TEST_F(Cluster, AnIdlePairTakesTheModelsTime) {
  const ClusterSpec spec = split(1, 1);
  for (const auto& [input, output] : {std::pair{1u, 1u}, {64u, 2u}, {300u, 50u}, {2048u, 7u}}) {
    const TraceFile trace = lengths({{input, output}});
    const ClusterResult r = run_cluster(spec, poisson(trace, 1, 1), plain());
    const Outcome& o = r.outcomes.front();
    ASSERT_EQ(o.end, Outcome::End::kAnswered);
    EXPECT_EQ(o.tokens, output);
    EXPECT_EQ(o.first_token - o.scheduled, 4 * kMessage + prompt_steps(input, 2048));
    if (output == 1) continue;
    const double bytes = kv_bytes(input) / 4;
    const Duration read =
        microseconds(20) +
        Duration(static_cast<int64_t>(std::ceil(bytes * profile().link.byte * 1e9 - 1e-6)));
    EXPECT_NEAR((o.last_token - o.first_token).count(),
                (kMessage + read + decode_steps(input, output)).count(), 2)
        << input;
  }
}

// A long prompt's earlier chunks are read while the later ones are computed.
TEST_F(Cluster, ChunksAreReadWhileTheNextIsComputed) {
  const TraceFile trace = lengths({{8192, 2}});
  const ClusterResult r = run_cluster(split(1, 1), poisson(trace, 1, 1), plain());
  const Outcome& o = r.outcomes.front();
  const double bytes = kv_bytes(2048) / 4;
  const double exposed = 100e-6 + 20e-6 + bytes * profile().link.byte;
  EXPECT_NEAR(to_seconds(o.last_token - o.first_token - decode_steps(8192, 2)), exposed, 1e-8);
  EXPECT_NEAR(r.read_bytes, kv_bytes(8192), 1);
}

// --- queues --------------------------------------------------------------------------------------

// Prompts of one step each on one worker, Poisson arrivals: M/D/1. Its mean wait is known.
TEST_F(Cluster, OnePrefillWorkerIsAnMD1Queue) {
  ClusterSpec spec = split(1, 1);
  spec.message_latency = 0;
  for (WorkerGroup& g : spec.groups) g.chunk_tokens = g.block_tokens;
  const TraceFile trace = lengths({{64, 1}});
  const double service = to_seconds(prompt_steps(64, 64));
  for (const double load : {0.5, 0.8}) {
    const Traffic traffic = poisson(trace, load / service, 150'000, 11);
    const ClusterResult r = run_cluster(spec, traffic, plain());
    double wait = 0;
    for (const Outcome& o : r.outcomes) {
      ASSERT_EQ(o.end, Outcome::End::kAnswered);
      wait += to_seconds(o.first_token - o.scheduled) - service;
    }
    wait /= static_cast<double>(r.outcomes.size());
    const double expected = load * service / (2 * (1 - load));
    EXPECT_NEAR(wait / expected, 1, 0.03) << load;
  }
}

// --- nothing is lost -----------------------------------------------------------------------------

class ClusterLoad : public Cluster {
 protected:
  static TraceFile varied() {
    std::vector<std::pair<uint32_t, uint32_t>> all;
    Random random(9);
    for (int i = 0; i < 500; ++i) {
      all.emplace_back(log_normal_length(random, 400), log_normal_length(random, 60));
    }
    return lengths(all);
  }
  static void expect_all_answered(const ClusterResult& r, const Traffic& traffic) {
    uint64_t tokens = 0;
    for (size_t i = 0; i < r.outcomes.size(); ++i) {
      ASSERT_EQ(r.outcomes[i].end, Outcome::End::kAnswered) << i;
      ASSERT_EQ(r.outcomes[i].tokens, traffic.output_tokens(i)) << i;
      tokens += r.outcomes[i].tokens;
    }
    EXPECT_EQ(r.tokens, tokens);
  }
};

TEST_F(ClusterLoad, EachRequestIsAnsweredWithAllItsTokens) {
  const TraceFile trace = varied();
  for (const ClusterSpec& spec : {mixed(2), split(1, 2), split(2, 1)}) {
    const Traffic traffic = poisson(trace, 25, 1000);
    expect_all_answered(run_cluster(spec, traffic, plain()), traffic);
  }
}

// Whether the router is told how long answers will be changes none of them.
TEST_F(ClusterLoad, KnownLengthsEndWhereUnknownOnesDo) {
  const TraceFile trace = varied();
  ClusterRunOptions known = plain();
  known.known_lengths = true;
  const Traffic busy = poisson(trace, 25, 500);
  expect_all_answered(run_cluster(mixed(2), busy, known), busy);
  const Traffic idle = poisson(trace, 0.05, 20);  // else what runs beside them differs by a row
  const ClusterResult one = run_cluster(mixed(2), idle, known);
  const ClusterResult other = run_cluster(mixed(2), idle, plain());
  for (size_t i = 0; i < idle.size(); ++i) {
    ASSERT_TRUE(one.outcomes[i] == other.outcomes[i]) << i;
  }
}

TEST_F(ClusterLoad, ReadsAreTheKvOfEachPromptOnce) {
  const TraceFile trace = varied();
  const Traffic traffic = poisson(trace, 20, 500);
  double bytes = 0;
  for (size_t i = 0; i < traffic.size(); ++i) {
    bytes += traffic.output_tokens(i) > 1 ? kv_bytes(traffic.input_tokens(i)) : 0;
  }
  const ClusterResult r = run_cluster(split(1, 1), traffic, plain());
  expect_all_answered(r, traffic);
  EXPECT_GE(r.read_bytes, bytes);  // of an output of one token, a part may have been read
  EXPECT_LE(r.read_bytes, bytes * 1.05);
}

TEST_F(ClusterLoad, FailingWorkersLoseNoRequest) {
  const TraceFile trace = varied();
  for (ClusterSpec spec : {mixed(4), split(3, 3)}) {
    spec.failures = FailureRates{.mean_seconds_between = 30, .restart_seconds = 2};
    const Traffic traffic = poisson(trace, 20, 2000);
    ClusterRunOptions options = plain();
    options.limits.max_retries = 20;
    const ClusterResult r = run_cluster(spec, traffic, options);
    EXPECT_GT(r.failures, 5u);
    EXPECT_GT(r.retries, 0u);
    expect_all_answered(r, traffic);
  }
}

TEST_F(ClusterLoad, AFullClusterPreemptsAndStillAnswers) {
  ClusterSpec spec = mixed(1);
  spec.groups[0].kv_tokens = 4096;
  const TraceFile trace = lengths({{400, 300}});
  const Traffic traffic = poisson(trace, 20, 100);
  const ClusterResult r = run_cluster(spec, traffic, plain());
  EXPECT_GT(r.preemptions, 0u);
  expect_all_answered(r, traffic);
}

TEST_F(ClusterLoad, APromptThatNobodyCouldHoldIsRefusedAndMissed) {
  ClusterSpec spec = mixed(1);
  spec.groups[0].kv_tokens = 1024;
  const TraceFile trace = lengths({{400, 3}, {2000, 3}});
  const ClusterResult r = run_cluster(spec, poisson(trace, 1, 10), plain());
  const Measures m = measure(r.outcomes, {seconds(10), seconds(10)});
  EXPECT_EQ(m.refused, 5u);
  EXPECT_EQ(m.joint_met, 0.5);
}

TEST_F(ClusterLoad, SharedPrefixesAreFoundInTheCache) {
  TraceFile trace = lengths({{1024, 2}, {1024, 2}});
  trace.block_tokens = 512;
  trace.blocks = {1, 2, 1, 3};
  trace.entries[0].num_blocks = trace.entries[1].num_blocks = 2;
  trace.entries[1].first_block = 2;
  const ClusterResult r = run_cluster(mixed(1), poisson(trace, 0.1, 2), plain());
  EXPECT_EQ(r.outcomes[0].first_token - r.outcomes[0].scheduled,
            2 * kMessage + prompt_steps(1024, 2048));
  EXPECT_EQ(r.outcomes[1].first_token - r.outcomes[1].scheduled,
            2 * kMessage + step_time(profile().step, StepWork::prefill(512, 512)));
}

// --- the same each time --------------------------------------------------------------------------

TEST_F(ClusterLoad, ASeedIsAlwaysTheSameRun) {
  const TraceFile trace = varied();
  ClusterSpec spec = split(2, 2);
  spec.failures = FailureRates{.mean_seconds_between = 20, .restart_seconds = 2};
  const auto run = [&](uint64_t seed) {
    ClusterRunOptions options = plain();
    options.placement.policy = router::Policy::kGoodput;
    options.seed = seed;
    return run_cluster(spec, poisson(trace, 20, 400, seed), options);
  };
  const ClusterResult one = run(5), same = run(5), other = run(6);
  EXPECT_EQ(one.events, same.events);
  EXPECT_EQ(one.failures, same.failures);
  for (size_t i = 0; i < one.outcomes.size(); ++i) {
    ASSERT_TRUE(one.outcomes[i] == same.outcomes[i]) << i;
  }
  EXPECT_NE(one.events, other.events);
}

// Links that many readers share take longer; a spine, too.
TEST_F(ClusterLoad, NarrowLinksShowInTheSecondToken) {
  const TraceFile trace = lengths({{2000, 3}});
  const auto median_tpot = [&](const ClusterSpec& spec) {
    return measure(run_cluster(spec, poisson(trace, 20, 300), plain()).outcomes, {}).tpot.p50;
  };
  const double wide = median_tpot(split(2, 2));
  ClusterSpec narrow = split(2, 2);
  for (WorkerGroup& g : narrow.groups) g.nic_bytes_per_second = 5e9;
  EXPECT_GT(median_tpot(narrow), wide + 5e-3);
  ClusterSpec shared = narrow;
  for (WorkerGroup& g : shared.groups) g.workers_per_nic = 2;
  EXPECT_GT(median_tpot(shared), median_tpot(narrow) + 1e-3);
  ClusterSpec spine = split(2, 2);
  spine.spine_bytes_per_second = 5e9;
  EXPECT_GT(median_tpot(spine), wide + 5e-3);
}

}  // namespace
}  // namespace baton::sim
