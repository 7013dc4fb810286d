#include "router/placement/prefix_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <set>

namespace baton::router {
namespace {

using testing::IsEmpty;

std::vector<TokenId> tokens(size_t count, TokenId first = 0) {
  std::vector<TokenId> out(count);
  std::iota(out.begin(), out.end(), first);
  return out;
}

class PrefixMapTest : public testing::Test {
 protected:
  std::vector<uint64_t> units(const std::vector<TokenId>& prompt, std::string_view salt = "") {
    std::vector<uint64_t> out;
    map_.hash(salt, prompt, out);
    return out;
  }
  uint32_t held(const std::vector<uint64_t>& prompt, WorkerId worker) {
    std::vector<PrefixMap::Match> matches;
    map_.find(prompt, matches);
    std::set<WorkerId> seen;
    for (const auto& match : matches) EXPECT_TRUE(seen.insert(match.worker).second);
    for (const auto& match : matches) {
      if (match.worker == worker) return match.tokens;
    }
    return 0;
  }

  PrefixMap map_{size_t{1} << 12, 7};
  static constexpr WorkerId kA{1}, kB{2};
};

TEST_F(PrefixMapTest, FindsTheLongestBeginningOfEach) {
  const auto whole = tokens(640);
  auto other = whole;
  other[300] = -5;
  map_.add(units(whole), kA);
  map_.add(units(tokens(200)), kB);
  EXPECT_EQ(held(units(whole), kA), 640u);
  EXPECT_EQ(held(units(whole), kB), 192u) << "whole units only";
  EXPECT_EQ(held(units(other), kA), 256u);
  EXPECT_EQ(held(units(tokens(63)), kA), 0u);
  EXPECT_EQ(held(units(tokens(640, 1)), kA), 0u);
}

TEST_F(PrefixMapTest, TenantsDoNotMeet) {
  map_.add(units(tokens(128), "a"), kA);
  EXPECT_EQ(held(units(tokens(128), "a"), kA), 128u);
  EXPECT_EQ(held(units(tokens(128), "b"), kA), 0u);
  EXPECT_EQ(held(units(tokens(128)), kA), 0u);
}

TEST_F(PrefixMapTest, ForgetsAWorker) {
  const auto prompt = units(tokens(640));
  map_.add(prompt, kA);
  map_.add(prompt, kB);
  EXPECT_EQ(held(prompt, kA), 640u);
  EXPECT_EQ(held(prompt, kB), 640u);
  map_.forget(kB);
  EXPECT_EQ(held(prompt, kB), 0u);
  const WorkerId next{3};  // takes the place of the one that is gone
  map_.add(units(tokens(64, 9000)), next);
  EXPECT_EQ(held(prompt, next), 0u);
  EXPECT_EQ(held(prompt, kA), 640u);
}

TEST_F(PrefixMapTest, IsBoundedAndKeepsWhatIsUsed) {
  const auto kept = units(tokens(64, 1'000'000));
  for (int round = 0; round < 20'000; ++round) {
    map_.add(units(tokens(128, round * 200)), kA);
    map_.add(kept, kB);
  }
  EXPECT_EQ(held(kept, kB), 64u);
  EXPECT_EQ(held(units(tokens(128, 0)), kA), 0u);
  EXPECT_EQ(held(units(tokens(128, 19'999 * 200)), kA), 128u);
}

}  // namespace
}  // namespace baton::router
