#include <gtest/gtest.h>

#include <atomic>

#include "common/base/log.h"
#include "sim/engine.h"
#include "sim/run.h"

namespace baton::sim {
namespace {

class Sim : public testing::Test {
 protected:
  void SetUp() override { spdlog::set_level(spdlog::level::off); }
  void TearDown() override { spdlog::set_level(spdlog::level::info); }
};

TEST_F(Sim, NothingIsWrongInAnySeedAndEveryFaultHappens) {
  const SeedsResult all = run_seeds({1, 300}, 16, 1, [](uint64_t seed, const RunResult& run) {
    ADD_FAILURE() << "seed " << seed << " at " << to_seconds(run.at) << " s: " << run.violation;
  });
  EXPECT_EQ(all.seeds, 300u);
  for (size_t f = 0; f < kNumFaults; ++f) {
    EXPECT_GT(all.faults[f], 0u) << name(static_cast<Fault>(f));
  }
  // The worlds are harsh, but not so harsh that nothing is tested.
  EXPECT_GT(all.tally.answered, all.tally.requests * 8 / 10);
  EXPECT_GT(all.tally.retries, 0u);
  EXPECT_GT(all.tally.retargets, 0u);
  EXPECT_GT(all.tally.resumes, 0u);
  EXPECT_GT(all.tally.preemptions, 0u);
  EXPECT_GT(all.tally.handed_off_bytes, 0u);
  EXPECT_GT(all.mismatches, 0u);
  EXPECT_GT(all.flips, 100u);
}

TEST_F(Sim, ASeedIsAlwaysTheSameRun) {
  for (const uint64_t seed : {1, 7, 42, 99}) {
    const RunResult one = run_world({.seed = seed}), other = run_world({.seed = seed});
    EXPECT_EQ(one.hash, other.hash) << seed;
    EXPECT_EQ(one.events, other.events) << seed;
  }
  EXPECT_NE(run_world({.seed = 1}).hash, run_world({.seed = 2}).hash);
}

TEST_F(Sim, TheNumberOfThreadsDoesNotShow) {
  const auto no_failure = [](uint64_t seed, const RunResult& run) {
    ADD_FAILURE() << seed << ": " << run.violation;
  };
  const SeedsResult one = run_seeds({500, 540}, 8, 1, no_failure);
  const SeedsResult three = run_seeds({500, 540}, 8, 3, no_failure);
  EXPECT_EQ(one.events, three.events);
  EXPECT_EQ(one.faults, three.faults);
  EXPECT_EQ(one.tally.answered, three.tally.answered);
}

// The engine itself: what it draws depends on every byte that the table names.
TEST(SimEngine, DrawsOtherTokensFromOtherBytes) {
  const auto layout = kvcache::KvLayout::full_kv(3, 2, 4, DType::kBF16, 8);
  engine::Sampling sampling;
  sampling.max_tokens = 12;
  sampling.params.seed = 5;
  const std::vector<TokenId> prompt = {3, 1, 4, 1, 5};
  const auto expected = Engine::reference_output(layout, prompt, sampling, 0);
  EXPECT_EQ(expected, Engine::reference_output(layout, prompt, sampling, 0));
  EXPECT_NE(expected, Engine::reference_output(layout, prompt, sampling, 1));
  std::vector<TokenId> other = prompt;
  other[0] = 4;
  EXPECT_NE(expected, Engine::reference_output(layout, other, sampling, 0));
}

}  // namespace
}  // namespace baton::sim
