#include "router/roles/role_controller.h"

#include <gtest/gtest.h>

#include <optional>
#include <utility>
#include <vector>

namespace baton::router {
namespace {

constexpr auto P = proto::ROLE_PREFILL, D = proto::ROLE_DECODE, M = proto::ROLE_MIXED;

class RoleControllerTest : public testing::Test {
 protected:
  void make(uint32_t prefill, uint32_t decode, uint32_t mixed = 0, bool may_move = true) {
    for (const auto& [n, role] : {std::pair(prefill, P), {decode, D}, {mixed, M}}) {
      for (uint32_t i = 0; i < n; ++i) {
        workers_.push_back(
            {.id = WorkerId(workers_.size() + 1), .role = role, .may_move = may_move});
      }
    }
  }
  uint32_t count(proto::Role role) const {
    uint32_t n = 0;
    for (const RoleWorker& w : workers_) n += w.role == role;
    return n;
  }
  // Obeys for so long, looking four times a second; what was done.
  std::vector<RoleFlip> run(Duration how_long) {
    std::vector<RoleFlip> flips;
    for (const TimePoint end = now_ + how_long; now_ < end; now_ += milliseconds(250)) {
      const auto flip = controller_->decide(workers_, demand_, now_);
      if (!flip) continue;
      RoleWorker& w = workers_[flip->worker.value - 1];
      EXPECT_EQ(w.role, flip->from);
      EXPECT_TRUE(w.may_move);
      w.role = flip->to;
      flips.push_back(*flip);
    }
    return flips;
  }

  RoleOptions options_;
  std::optional<RoleController> controller_{options_};
  std::vector<RoleWorker> workers_;
  RoleDemand demand_;
  TimePoint now_{seconds(1000)};
};

TEST_F(RoleControllerTest, FollowsTheTrafficWithinAMinute) {
  make(4, 4);
  demand_ = {.prefill = 4, .decode = 1};
  run(seconds(60));
  EXPECT_EQ(count(P), 6u);
  EXPECT_EQ(count(D), 2u);
  demand_ = {.prefill = 1.5, .decode = 5};
  const auto flips = run(seconds(60));
  EXPECT_EQ(count(P), 2u);
  EXPECT_EQ(count(D), 6u);
  EXPECT_EQ(flips.size(), 4u);
}

TEST_F(RoleControllerTest, StandsStillWhereItIsGoodEnough) {
  make(4, 4);
  for (const RoleDemand demand : {RoleDemand{0, 0}, {1.5, 2}, {0.1, 1.9}, {2.9, 3.2}, {3.4, 3.6}}) {
    demand_ = demand;
    EXPECT_TRUE(run(seconds(120)).empty()) << demand.prefill << " " << demand.decode;
  }
}

TEST_F(RoleControllerTest, DoesNotSwingBack) {
  make(4, 4);
  for (int i = 0; i < 60; ++i) {  // noise about a point between two splits
    demand_ = {.prefill = i % 2 == 0 ? 3.0 : 2.6, .decode = i % 2 == 0 ? 2.6 : 3.0};
    run(seconds(5));
  }
  EXPECT_GE(count(P), 3u);
  EXPECT_GE(count(D), 3u);
  demand_ = {.prefill = 5, .decode = 2};
  run(seconds(100));
  const uint32_t prefill = count(P);
  EXPECT_TRUE(run(seconds(300)).empty());
  EXPECT_EQ(count(P), prefill);
}

TEST_F(RoleControllerTest, TheLastOfARoleStays) {
  make(2, 2);
  demand_ = {.prefill = 100, .decode = 0};
  run(seconds(300));
  EXPECT_EQ(count(D), 1u);
  demand_ = {.prefill = 0, .decode = 100};
  run(seconds(300));
  EXPECT_EQ(count(P), 1u);
  EXPECT_EQ(count(D), 3u);
}

TEST_F(RoleControllerTest, BoundsHold) {
  options_.min_prefill = 3;
  options_.min_decode = 2;
  controller_.emplace(options_);
  make(4, 4);
  demand_ = {.prefill = 0, .decode = 100};
  run(seconds(300));
  EXPECT_EQ(count(P), 3u);
  demand_ = {.prefill = 100, .decode = 0};
  run(seconds(300));
  EXPECT_EQ(count(D), 2u);
}

TEST_F(RoleControllerTest, FixedWorkersDoNotMove) {
  make(3, 3, 0, false);
  demand_ = {.prefill = 100, .decode = 0};
  EXPECT_TRUE(run(seconds(300)).empty());
  make(0, 1);  // one that may
  EXPECT_EQ(run(seconds(300)).size(), 1u);
  EXPECT_EQ(count(P), 4u);
}

TEST_F(RoleControllerTest, MixedWorkersBecomePairs) {
  make(0, 0, 4);
  const auto flips = run(seconds(30));
  ASSERT_EQ(flips.size(), 4u);
  EXPECT_EQ(flips[0].to, D);  // which serves short prompts by itself
  EXPECT_EQ(flips[1].to, P);
  EXPECT_EQ(count(P), 2u);
  EXPECT_EQ(count(D), 2u);
}

TEST_F(RoleControllerTest, OneAloneStaysMixed) {
  make(0, 0, 1);
  demand_ = {.prefill = 100, .decode = 100};
  EXPECT_TRUE(run(seconds(300)).empty());
  EXPECT_EQ(controller_->desired(workers_, demand_).mixed, 223u);
}

TEST_F(RoleControllerTest, WhoIsLeftServesAlone) {
  make(1, 0);
  EXPECT_TRUE(run(milliseconds(900)).empty());  // the other may come back
  ASSERT_EQ(run(seconds(5)).size(), 1u);
  EXPECT_EQ(count(M), 1u);
}

TEST_F(RoleControllerTest, AMissingRoleIsFilledAtOnce) {
  make(0, 3);
  workers_[0].sequences = workers_[2].sequences = 9;
  demand_ = {.prefill = 0, .decode = 3};
  const auto flips = run(seconds(10));
  ASSERT_EQ(flips.size(), 1u);
  EXPECT_EQ(flips[0].worker, WorkerId(2));  // who has least to do
  EXPECT_EQ(flips[0].to, P);
}

TEST_F(RoleControllerTest, OneAtATimeAndNoneTooSoon) {
  make(8, 2);
  run(seconds(1));
  demand_ = {.prefill = 1, .decode = 9};
  TimePoint last{};
  EXPECT_TRUE(run(options_.dwell - seconds(2)).empty());
  for (int i = 0; i < 400; ++i) {
    const TimePoint at = now_;
    const auto flips = run(milliseconds(250));
    ASSERT_LE(flips.size(), 1u);
    if (flips.empty()) continue;
    if (last != TimePoint{}) {
      EXPECT_GE(at - last, options_.between);
    }
    last = at;
  }
  EXPECT_GE(count(D), 8u);
}

// While the leader changes two routers may decide: by equal views they move the same worker.
TEST_F(RoleControllerTest, TwoThatDecideMoveTheSameWorker) {
  make(4, 4);
  RoleController other(options_);
  (void)controller_->decide(workers_, demand_, now_);
  (void)other.decide(workers_, demand_, now_);
  now_ += seconds(60);
  demand_ = {.prefill = 0.5, .decode = 6};
  const auto one = controller_->decide(workers_, demand_, now_);
  const auto two = other.decide(workers_, demand_, now_);
  ASSERT_TRUE(one && two);
  EXPECT_EQ(one->worker, two->worker);
  EXPECT_EQ(one->to, two->to);
}

// And if they do not, what they did wrong is mended.
TEST_F(RoleControllerTest, WhatTwoLeadersBrokeIsMended) {
  make(2, 2);
  workers_[0].role = workers_[1].role = D;  // each moved another
  run(seconds(5));
  EXPECT_EQ(count(P), 1u);
}

TEST_F(RoleControllerTest, SaysHowManyWouldDo) {
  make(2, 2);
  demand_ = {.prefill = 3, .decode = 4.4};
  const DesiredWorkers d = controller_->desired(workers_, demand_);
  EXPECT_EQ(d.prefill, 4u);
  EXPECT_EQ(d.decode, 5u);
  EXPECT_EQ(d.mixed, 0u);
  demand_ = {};
  EXPECT_EQ(controller_->desired(workers_, demand_).prefill, options_.min_prefill);
}

}  // namespace
}  // namespace baton::router
