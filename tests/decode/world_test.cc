#include "tests/decode/world.h"

#include <gtest/gtest.h>

namespace baton::decode {
namespace {

void live(World& world, std::mt19937& random, int ops, bool disturb) {
  for (int i = 0; i < ops && !testing::Test::HasFatalFailure(); ++i) {
    if (random() % 3 == 0) world.submit();
    if (disturb && random() % 4 == 0) world.disturb();
    world.step();
    world.check();
  }
  world.drain();
  world.check();
}

struct Shape {
  const char* name;
  WorldConfig config;
};

class WorldTest : public testing::TestWithParam<Shape> {};

TEST_P(WorldTest, EveryTokenIsRightAndNothingIsHeldAtTheEnd) {
  size_t preempted = 0, completed = 0;
  for (uint32_t seed = 0; seed < 15; ++seed) {
    WorldConfig config = GetParam().config;
    config.seed = seed;
    World world(config);
    std::mt19937 random(seed + 1000);
    live(world, random, 200, config.disturb);
    world.expect_nothing_held();
    ASSERT_FALSE(HasFailure()) << "seed " << seed;
    preempted += world.preempted();
    completed += world.completed();
  }
  EXPECT_GT(completed, 100u);
  const bool tight = GetParam().config.pool_blocks < 20;
  EXPECT_GT(preempted, tight ? 50u : 0u) << "too easy a world";
}

INSTANTIATE_TEST_SUITE_P(
    All, WorldTest,
    testing::Values(Shape{"MixedDepth1", {.depth = 1}}, Shape{"MixedDepth2", {.depth = 2}},
                    Shape{"MixedDepth3", {.depth = 3}},
                    Shape{"MixedTight", {.depth = 2, .pool_blocks = 14}},
                    Shape{"MixedTightCalm", {.depth = 1, .pool_blocks = 14, .disturb = false}},
                    Shape{"MixedWhole", {.depth = 2, .chunk_tokens = 0}},
                    Shape{"MixedPreempted", {.depth = 2, .preempt_every_n_steps = 4}},
                    Shape{"SplitDepth1", {.split = true, .depth = 1}},
                    Shape{"SplitDepth2", {.split = true, .depth = 2}},
                    Shape{"SplitTight", {.split = true, .depth = 2, .pool_blocks = 14}},
                    Shape{"SplitPreempted",
                          {.split = true, .depth = 2, .preempt_every_n_steps = 5}}),
    [](const auto& info) { return std::string(info.param.name); });

// However it is driven, the same requests give the same outputs (each right, and all of them).
TEST(WorldsAgree, OnEveryOutput) {
  std::vector<std::map<std::pair<uint64_t, uint32_t>, std::vector<TokenId>>> outputs;
  for (const WorldConfig& config :
       {WorldConfig{.depth = 1, .disturb = false}, WorldConfig{.depth = 2, .disturb = false},
        WorldConfig{.split = true, .depth = 2, .disturb = false},
        WorldConfig{.depth = 2, .pool_blocks = 14, .chunk_tokens = 4, .disturb = false}}) {
    World world(config);
    for (int i = 0; i < 40; ++i) world.submit();
    world.drain();
    world.expect_nothing_held();
    outputs.push_back(world.outputs());
  }
  EXPECT_GE(outputs[0].size(), 40u);
  for (size_t i = 1; i < outputs.size(); ++i) EXPECT_EQ(outputs[i], outputs[0]) << i;
}

}  // namespace
}  // namespace baton::decode
