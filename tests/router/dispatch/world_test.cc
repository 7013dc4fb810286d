// Thousands of requests among workers that refuse, fail, preempt and die by chance: every request
// ends once, every token comes once and in order, nothing is left behind.
#include "tests/router/dispatch/world.h"

#include <gtest/gtest.h>

namespace baton::router {
namespace {

class DispatchWorldTest : public testing::TestWithParam<uint64_t> {};

TEST_P(DispatchWorldTest, EverythingEndsOnce) {
  uint64_t well = 0, resumes = 0, retries = 0;
  for (uint64_t seed = GetParam() * 100; seed < GetParam() * 100 + 100; ++seed) {
    DispatchWorld world(seed, {});
    world.run(4000);
    world.settle();
    ASSERT_EQ(world.trouble(), "") << "seed " << seed;
    well += world.ended_well();
    resumes += world.resumes();
    retries += world.retries();
  }
  // The world is one in which things do happen.
  EXPECT_GT(well, 5000u);
  EXPECT_GT(resumes, 200u);
  EXPECT_GT(retries, 100u);
}
INSTANTIATE_TEST_SUITE_P(Seeds, DispatchWorldTest, testing::Range<uint64_t>(0, 6));

TEST(DispatchWorldTest, WithoutFaultsEveryRequestSucceeds) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    DispatchWorld world(seed, {.cancel = 0, .stop = 0, .die = 0, .join = 100, .fail = 0});
    world.run(4000);
    world.settle();
    ASSERT_EQ(world.trouble(), "") << "seed " << seed;
    EXPECT_EQ(world.ended_badly(), 0u) << "seed " << seed;
  }
}

}  // namespace
}  // namespace baton::router
