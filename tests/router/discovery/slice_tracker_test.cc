#include "router/discovery/slice_tracker.h"

#include <gtest/gtest.h>

namespace baton::router {
namespace {

using Addresses = std::vector<std::string>;

class SliceTrackerTest : public ::testing::Test {
 protected:
  static std::string slice(const std::string& version, const std::string& ip) {
    return R"({"metadata":{"name":"a","resourceVersion":")" + version +
           R"("},"addressType":"IPv4","endpoints":[{"addresses":[")" + ip + R"("]}]})";
  }
  static std::string list(const std::string& version, const std::string& items) {
    return R"({"kind":"EndpointSliceList","metadata":{"resourceVersion":")" + version +
           R"("},"items":[)" + items + "]}";
  }
  status on_event(const std::string& type, const std::string& object) {
    return tracker_.on_line(R"({"type":")" + type + R"(","object":)" + object + "}", now_);
  }
  status on_mark(const std::string& version) {
    return on_event("BOOKMARK", R"({"metadata":{"resourceVersion":")" + version + R"("}})");
  }
  SliceTracker::Ask next(double random = 0) { return tracker_.next(now_, random); }
  Duration pause(double random = 0) { return next(random).at - now_; }
  std::optional<Addresses> changed() {
    auto endpoints = tracker_.take_changed();
    return endpoints ? std::optional(std::move(endpoints->addresses)) : std::nullopt;
  }
  // To where watches begin.
  void listed() {
    ASSERT_FALSE(next().watch);
    ASSERT_TRUE(tracker_.on_list(list("5", slice("5", "10.0.0.1")), now_));
    ASSERT_EQ(changed(), Addresses{"10.0.0.1:9"});
    ASSERT_EQ(pause(), Duration{});
  }
  // A watch that has lived so long.
  void watching(Duration age) {
    tracker_.on_watching(now_);
    now_ += age;
  }

  SliceTracker tracker_{{"space", "pool", "9"}};
  TimePoint now_{seconds(1000)};
};

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

TEST_F(SliceTrackerTest, ListsThenWatchesFromWhatItSawLast) {
  EXPECT_EQ(next().target,
            "/apis/discovery.k8s.io/v1/namespaces/space/endpointslices"
            "?labelSelector=kubernetes.io%2Fservice-name%3Dpool");
  EXPECT_EQ(changed(), std::nullopt);
  listed();
  EXPECT_EQ(changed(), std::nullopt);
  EXPECT_TRUE(next().watch);
  EXPECT_TRUE(has(next().target, "&watch=1&allowWatchBookmarks=true&resourceVersion=5&"));
  ASSERT_TRUE(on_event("MODIFIED", slice("6", "10.0.0.2")));
  EXPECT_EQ(changed(), Addresses{"10.0.0.2:9"});
  ASSERT_TRUE(on_mark("8"));
  EXPECT_EQ(changed(), std::nullopt);
  EXPECT_TRUE(has(next().target, "resourceVersion=8&"));
  ASSERT_TRUE(on_event("DELETED", slice("9", "10.0.0.2")));
  EXPECT_EQ(changed(), Addresses{});
}

TEST_F(SliceTrackerTest, EndsOfWatchesAreSpread) {
  listed();
  EXPECT_TRUE(has(next(0).target, "&timeoutSeconds=180"));
  EXPECT_EQ(next(0).watch_for, SliceTracker::kShortestWatch);
  EXPECT_EQ(next(0.5).watch_for, seconds(240));
  EXPECT_LE(next(0.999).watch_for, SliceTracker::kLongestWatch);
}

TEST_F(SliceTrackerTest, AWatchThatBreaksOffGoesOnWhereItWas) {
  listed();
  watching(seconds(100));
  EXPECT_EQ(tracker_.on_lost("broken", now_).code, Errc::kAborted) << "everyday";
  const auto ask = next();
  EXPECT_TRUE(has(ask.target, "resourceVersion=5&"));
  EXPECT_GT(ask.at, now_) << "or all routers would come at once";
  EXPECT_EQ(tracker_.on_lost("no answer", now_).code, Errc::kUnavailable);
  EXPECT_EQ(changed(), std::nullopt);
}

TEST_F(SliceTrackerTest, AnExpiredVersionIsListedAgainAndWorkersStay) {
  for (const bool by_event : {true, false}) {
    listed();
    if (by_event) {
      watching(seconds(100));
      const auto told = on_event("ERROR", R"({"code":410})");
      ASSERT_FALSE(told);
      EXPECT_EQ(told.error().code, Errc::kAborted);
    } else {
      EXPECT_EQ(tracker_.on_status(410, now_).code, Errc::kAborted);
    }
    EXPECT_FALSE(next().watch);
    EXPECT_GT(pause(), Duration{});
    EXPECT_EQ(changed(), std::nullopt);
  }
}

TEST_F(SliceTrackerTest, VersionsThatExpireAgainAndAgainAreTold) {
  for (int i = 0; i < 3; ++i) {
    listed();
    EXPECT_EQ(tracker_.on_status(410, now_).code, Errc::kAborted);
  }
  EXPECT_EQ(tracker_.on_status(410, now_).code, Errc::kUnavailable);
}

TEST_F(SliceTrackerTest, AnEventThatCannotBeReadIsListedAgain) {
  listed();
  EXPECT_EQ(tracker_.on_line("{", now_).error().code, Errc::kInvalidArgument);
  EXPECT_FALSE(next().watch);
  EXPECT_EQ(changed(), std::nullopt);
}

TEST_F(SliceTrackerTest, AWatchThatFailsIsListedAgain) {
  listed();
  const auto told = on_event("ERROR", R"({"code":500,"message":"etcd"})");
  EXPECT_EQ(told.error().code, Errc::kUnavailable);
  EXPECT_TRUE(has(told.error().message, "etcd"));
  EXPECT_FALSE(next().watch);
}

TEST_F(SliceTrackerTest, AListReplacesWhatWasKnown) {
  listed();
  ASSERT_TRUE(tracker_.on_list(list("9", ""), now_));
  EXPECT_EQ(changed(), Addresses{});
}

TEST_F(SliceTrackerTest, AListThatCannotBeReadChangesNothing) {
  EXPECT_FALSE(tracker_.on_list("{}", now_));
  EXPECT_EQ(changed(), std::nullopt);
  EXPECT_FALSE(next().watch);
  EXPECT_GT(pause(), Duration{});
}

TEST_F(SliceTrackerTest, PausesGrowToABoundAndAreSpread) {
  EXPECT_EQ(pause(), Duration{});
  (void)tracker_.on_lost("", now_);
  EXPECT_EQ(pause(), SliceTracker::kFirstPause / 2);
  EXPECT_EQ(pause(0.5), SliceTracker::kFirstPause * 3 / 4);
  (void)tracker_.on_status(403, now_);
  EXPECT_EQ(pause(), SliceTracker::kFirstPause);
  for (int i = 0; i < 100; ++i) (void)tracker_.on_lost("", now_);
  EXPECT_EQ(pause(), SliceTracker::kLongestPause / 2);
  EXPECT_LE(pause(0.999), SliceTracker::kLongestPause);
}

// After an hour without an API server, what the list says is watched at once.
TEST_F(SliceTrackerTest, NoPauseIsBetweenAListAndItsWatch) {
  for (int i = 0; i < 100; ++i) (void)tracker_.on_lost("", now_);
  EXPECT_GT(pause(), seconds(10));
  ASSERT_TRUE(tracker_.on_list(list("5", ""), now_));
  EXPECT_EQ(pause(), Duration{});
  EXPECT_GT(pause(), seconds(10)) << "but once";
}

TEST_F(SliceTrackerTest, AWatchThatLivesEndsTheRowOfFailures) {
  for (const Duration lived : {SliceTracker::kAWhile / 2, SliceTracker::kAWhile}) {
    for (int i = 0; i < 100; ++i) (void)tracker_.on_lost("", now_);
    ASSERT_TRUE(tracker_.on_list(list("5", ""), now_));
    (void)next();
    watching(lived);
    (void)tracker_.on_lost("", now_);
    const bool is_first = pause() == SliceTracker::kFirstPause / 2;
    EXPECT_EQ(is_first, lived == SliceTracker::kAWhile);
  }
}

// A list that works before each watch that does not.
TEST_F(SliceTrackerTest, AListAloneDoesNotEndTheRow) {
  for (int i = 0; i < 4; ++i) {
    listed();
    watching({});
    EXPECT_FALSE(on_event("ERROR", R"({"code":410})"));
  }
  EXPECT_EQ(pause(), SliceTracker::kFirstPause * 4);
}

TEST_F(SliceTrackerTest, AWatchThatEndsAtOnceIsAskedAgainAfterAPause) {
  listed();
  watching(milliseconds(10));
  tracker_.on_watch_end(now_);
  EXPECT_GT(pause(), Duration{});
  watching(seconds(240));
  tracker_.on_watch_end(now_);
  EXPECT_EQ(pause(), Duration{});
}

TEST_F(SliceTrackerTest, WhatCannotBeDialledIsTold) {
  ASSERT_TRUE(tracker_.on_list(list("5", slice("5", "no.address")), now_));
  const auto endpoints = tracker_.take_changed();
  ASSERT_TRUE(endpoints);
  EXPECT_EQ(endpoints->left_out.endpoints, 1u);
  EXPECT_TRUE(has(endpoints->left_out.why, "endpoints.addresses"));
}

TEST_F(SliceTrackerTest, ARefusalSaysWhatIsMissing) {
  const std::string forbidden = tracker_.on_status(403, now_).message;
  for (const char* word : {"403", "Role", "space", "list and watch", "endpointslices"}) {
    EXPECT_TRUE(has(forbidden, word)) << word;
  }
  EXPECT_TRUE(has(tracker_.on_status(401, now_).message, "--kubernetes-token-file"));
  EXPECT_TRUE(has(tracker_.on_status(503, now_).message, "503"));
}

}  // namespace
}  // namespace baton::router
