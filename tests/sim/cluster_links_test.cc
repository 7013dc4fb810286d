#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "common/latency/fair_links.h"
#include "common/latency/link_model.h"
#include "sim/random.h"

namespace baton::sim {
namespace {

using latency::FairLinks;
using latency::FlowId;
using latency::GroupId;
using latency::LinkId;

TimePoint run_to_end(FairLinks& links, std::vector<FlowId>& ended) {
  while (links.next_end() != TimePoint::max()) links.advance(links.next_end(), ended);
  return links.now();
}

// What the latency model says of a link and what is on it.
TEST(FairLinks, OneTransferTakesWhatTheLinkModelSays) {
  const latency::LinkCosts costs{.latency = 0, .byte = 2.5e-11};
  for (const size_t bytes : {1ul, 4096ul, 1'000'000ul, 123'456'789ul}) {
    FairLinks links;
    const std::array path{links.add_link(1 / costs.byte)};
    links.start(GroupId(1), path, static_cast<double>(bytes));
    std::vector<FlowId> ended;
    const Duration took = run_to_end(links, ended) - TimePoint{};
    EXPECT_NEAR(took.count(), latency::transfer_time(costs, bytes).count(), 1) << bytes;
  }
}

TEST(FairLinks, TransfersBesideOthersTakeWhatTheLinkModelSays) {
  const latency::LinkCosts costs{.latency = 0, .byte = 1e-9};
  for (const uint32_t others : {1u, 3u, 7u}) {
    for (const size_t left : {1000ul, 100'000ul, 50'000'000ul}) {
      FairLinks links;
      const std::array path{links.add_link(1 / costs.byte)};
      for (uint32_t i = 0; i < others; ++i) {
        links.start(GroupId(i + 2), path, static_cast<double>(left) / others);
      }
      const FlowId ours = links.start(GroupId(1), path, 1e6);
      std::vector<FlowId> ended;
      while (std::ranges::find(ended, ours) == ended.end()) links.advance(links.next_end(), ended);
      const Duration said = latency::transfer_time(costs, 1'000'000, {others, left});
      EXPECT_NEAR((links.now() - TimePoint{}).count(), said.count(), others + 1) << others << left;
    }
  }
}

TEST(FairLinks, AConnectionHasOneShareHoweverManyReadsItCarries) {
  FairLinks links;
  const std::array path{links.add_link(900)};
  links.start(GroupId(1), path, 1e6);
  for (int i = 0; i < 5; ++i) links.start(GroupId(2), path, 1e6);
  links.start(GroupId(3), path, 1e6);
  for (const uint64_t g : {1, 2, 3}) EXPECT_NEAR(links.rate(GroupId(g)), 300, 1e-9);
}

TEST(FairLinks, WhoIsHeldBackElsewhereLeavesItsShareToOthers) {
  FairLinks links;
  const LinkId wide = links.add_link(1000), narrow = links.add_link(100);
  const std::array both{wide, narrow};
  const std::array one{wide};
  links.start(GroupId(1), both, 1e6);
  links.start(GroupId(2), one, 1e6);
  links.start(GroupId(3), one, 1e6);
  EXPECT_NEAR(links.rate(GroupId(1)), 100, 1e-9);
  EXPECT_NEAR(links.rate(GroupId(2)), 450, 1e-9);
  EXPECT_NEAR(links.rate(GroupId(3)), 450, 1e-9);
}

// Random links and flows, some of which are given up.
class RandomFlows : public testing::TestWithParam<uint64_t> {
 protected:
  struct Flow {
    FlowId id;
    std::vector<LinkId> path;
    double bytes = 0;
  };

  void add_links() {
    for (uint32_t n = random_.between(2, 8); n > 0; --n) {
      all_.push_back(links_.add_link(random_.between(1, 1000) * 1000.0));
    }
  }
  const std::vector<LinkId>& path_of(GroupId group) {
    std::vector<LinkId>& path = paths_[group];
    while (path.empty()) {
      for (const LinkId l : all_) {
        if (random_.chance(0.4)) path.push_back(l);
      }
    }
    return path;
  }
  // No link above its capacity; each group held back by a full link on which nobody has more.
  void check_shares() const {
    for (const LinkId l : all_) {
      EXPECT_LE(links_.load(l), links_.capacity(l) * (1 + 1e-9));
    }
    for (const auto& [group, path] : paths_) {
      const double rate = links_.rate(group);
      if (rate == 0) continue;  // it has no flow
      const bool held = std::ranges::any_of(path, [&](LinkId l) {
        if (links_.load(l) < links_.capacity(l) * (1 - 1e-9)) return false;
        return std::ranges::all_of(paths_, [&](const auto& other) {
          return std::ranges::find(other.second, l) == other.second.end() ||
                 links_.rate(other.first) <= rate * (1 + 1e-9);
        });
      });
      EXPECT_TRUE(held) << "group " << group.value;
    }
  }

  Random random_{GetParam()};
  FairLinks links_;
  std::vector<LinkId> all_;
  std::map<GroupId, std::vector<LinkId>> paths_;
};

TEST_P(RandomFlows, ShareLinksMaxMinFairlyAndLoseNoByte) {
  add_links();
  std::vector<Flow> flows;
  std::vector<FlowId> ended;
  std::map<LinkId, double> expected;
  for (int i = 0; i < 60; ++i) {
    const TimePoint until = links_.now() + random_.up_to(milliseconds(500));
    while (links_.next_end() <= until) links_.advance(links_.next_end(), ended);
    links_.advance(until, ended);
    const GroupId group(random_.pick(12) + 1);
    const double bytes = random_.between(1, 1'000'000);
    flows.push_back({links_.start(group, path_of(group), bytes), path_of(group), bytes});
    for (const LinkId l : flows.back().path) expected[l] += bytes;
    check_shares();
  }
  run_to_end(links_, ended);
  EXPECT_EQ(links_.num_flows(), 0u);
  std::ranges::sort(ended);
  ASSERT_EQ(ended.size(), flows.size());
  for (size_t i = 0; i < flows.size(); ++i) EXPECT_EQ(ended[i], flows[i].id);
  for (const auto& [link, bytes] : expected) {
    EXPECT_NEAR(links_.moved_bytes(link), bytes, 1e-6 * bytes + 1);
  }
}

TEST_P(RandomFlows, WhatIsGivenUpLeavesTheRest) {
  add_links();
  std::vector<FlowId> ended, kept;
  for (int i = 0; i < 40; ++i) {
    const GroupId group(random_.pick(6) + 1);
    const FlowId flow = links_.start(group, path_of(group), random_.between(1, 100'000));
    if (random_.chance(0.5)) {
      links_.cancel(flow);
    } else {
      kept.push_back(flow);
    }
    check_shares();
  }
  run_to_end(links_, ended);
  std::ranges::sort(ended);
  EXPECT_EQ(ended, kept);
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomFlows, testing::Range<uint64_t>(1, 60));

}  // namespace
}  // namespace baton::sim
