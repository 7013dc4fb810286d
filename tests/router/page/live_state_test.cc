// What the live page is told: which workers and pairs, and the JSON of it all.
#include "router/page/live_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

namespace baton::router {
namespace {

namespace json = boost::json;

const TimePoint kNow{std::chrono::hours(1)};

LiveWorker worker(std::string name, std::string_view role, uint32_t free = 100) {
  return {.name = std::move(name),
          .address = "10.0.0.1:7000",
          .role = role,
          .state = "ready",
          .running = 1,
          .free_blocks = free,
          .total_blocks = 100};
}

RequestTrail trail() {
  RequestTrail trail;
  trail.submitted = kNow + milliseconds(1);
  trail.placed = kNow + milliseconds(3);
  trail.granted = kNow + milliseconds(6);
  trail.first_token = kNow + milliseconds(60);
  trail.second_token = kNow + milliseconds(80);
  trail.prefill_queue_us = 10'000;
  trail.prefill_compute_us = 40'000;
  trail.parked_us = 2'000;
  trail.exposed_transfer_us = 5'000;
  trail.kv_bytes = 4096;
  return trail;
}

json::object parsed(const LiveState& state, const std::deque<RecentRequest>& recent = {},
                    bool details = false) {
  SloClasses classes = *parse_slo_classes({"fast: ttft=1s", "batch: best-effort"}, "");
  return json::parse(state_json(state, classes, recent, kNow, details)).as_object();
}

RequestStages stages() { return stages_of(trail(), kNow, {}); }

TEST(LiveStateTest, ARequestHasTheStagesThatItCameToAndTheyMakeUpTheWhole) {
  const std::deque<RecentRequest> recent = {{.stages = stages()},
                                            {.stages = {.parse = seconds(1)}}};
  const json::object out = parsed({}, recent);
  const auto sum = [&](const char* name) {
    double ms = 0;
    for (const auto& [stage, took] : out.at("requests").at(0).at(name).as_object()) {
      ms += took.as_double();
    }
    return ms;
  };
  EXPECT_NEAR(sum("to_first"), 60, 0.01);
  EXPECT_NEAR(sum("hand_over"), 20, 0.01);
  const auto early = out.at("requests").at(1).as_object();
  EXPECT_EQ(json::serialize(early.at("to_first")), R"({"parse":1E3})");
  EXPECT_EQ(json::serialize(early.at("hand_over")), "{}");
}

TEST(LiveStateTest, OfManyWorkersThoseInTroubleAndTheFullestAreShownAndAllAreCounted) {
  std::vector<LiveWorker> all;
  for (int i = 0; i < 1000; ++i) all.push_back(worker("w" + std::to_string(i), "decode", 50));
  all[700].state = "draining";
  all[800].free_blocks = 1;
  const auto pools = pools_of(all);
  ASSERT_EQ(pools.size(), 1u);
  EXPECT_EQ(pools[0].workers, 1000u);
  EXPECT_EQ(pools[0].ready, 999u);
  EXPECT_EQ(pools[0].free_blocks, 998u * 50 + 50 + 1);
  const auto shown = shown_workers(all, 4);
  ASSERT_EQ(shown.size(), 4u);
  const auto has = [&](std::string_view name) {
    return std::ranges::any_of(shown, [&](const LiveWorker& w) { return w.name == name; });
  };
  EXPECT_TRUE(has("w700"));
  EXPECT_TRUE(has("w800"));
}

TEST(LiveStateTest, TheBusiestPairsAreShown) {
  const auto shown = shown_pairs({{.prefill = "a", .bytes_per_second = 1},
                                  {.prefill = "b", .bytes_per_second = 3},
                                  {.prefill = "c", .bytes_per_second = 2}},
                                 2);
  ASSERT_EQ(shown.size(), 2u);
  EXPECT_EQ(shown[0].prefill, "b");
  EXPECT_EQ(shown[1].prefill, "c");
}

TEST(LiveStateTest, AddressesIdsAndTenantsAreDetails) {
  LiveState state{.version = "1"};
  state.workers = {worker("p", "prefill")};
  const std::deque<RecentRequest> recent = {{.id = "trace", .tenant = "acme", .finish = "ok"}};
  const json::object plain = parsed(state, recent);
  EXPECT_FALSE(plain.at("details").as_bool());
  EXPECT_FALSE(plain.at("workers").at(0).as_object().contains("address"));
  EXPECT_FALSE(plain.at("requests").at(0).as_object().contains("id"));
  EXPECT_FALSE(plain.at("requests").at(0).as_object().contains("tenant"));
  const json::object full = parsed(state, recent, true);
  EXPECT_EQ(full.at("workers").at(0).at("address").as_string(), "10.0.0.1:7000");
  EXPECT_EQ(full.at("requests").at(0).at("id").as_string(), "trace");
  EXPECT_EQ(full.at("requests").at(0).at("tenant").as_string(), "acme");
}

TEST(LiveStateTest, StepsAreThereByClassAndByReason) {
  LiveState state;
  state.steps.resize(2);
  state.steps[1].results[0] = {5, 1, 2, 3, 4, 6, 7};
  state.steps[1].refused[0] = 9;
  state.reasons = {"quota"};
  const json::object out = parsed(state);
  const auto fast = out.at("classes").at(0).as_object();
  EXPECT_EQ(fast.at("name").as_string(), "fast");
  EXPECT_EQ(fast.at("ttft_ms").as_double(), 1000);
  EXPECT_FALSE(fast.contains("tpot_ms"));
  EXPECT_EQ(json::serialize(fast.at("steps")), "[[0,0,0,0,0],[5,6,4,6,7]]");
  EXPECT_TRUE(out.at("classes").at(1).at("best_effort").as_bool());
  EXPECT_EQ(json::serialize(out.at("refusals")), R"([{"reason":"quota","steps":[0,9]}])");
}

TEST(LiveStateTest, NamesOfWhateverKindAreText) {
  LiveState state;
  state.workers = {worker("\"<script>\n\xff", "decode")};
  state.models = {{"m\"", 1, 2}};
  EXPECT_EQ(parsed(state).at("workers").at(0).at("name").as_string(), "\"<script>\n\uFFFD");
}

TEST(LiveStateTest, ItsSizeIsBounded) {
  LiveState state;
  std::vector<LiveWorker> all(5000, worker(std::string(60, 'w'), "decode"));
  state.workers = shown_workers(all, LiveState::kMostWorkers);
  state.pairs.assign(LiveState::kMostPairs, {std::string(60, 'p'), std::string(60, 'd')});
  state.steps.resize(LiveHistory::kSteps);
  for (auto& step : state.steps) {
    for (auto& results : step.results) results.fill(1'000'000);
    step.refused.fill(1'000'000);
  }
  for (size_t i = 0; i < LiveHistory::kMaxReasons; ++i) state.reasons.push_back("slo_unattainable");
  SloClasses classes;
  classes.all.assign(kMaxSloClasses, {.name = std::string(kMaxSloNameBytes, 'c')});
  RecentRequests recent;
  for (size_t i = 0; i < 2 * RecentRequests::kMost; ++i) {
    recent.add({.id = std::string(64, 'i'),
                .finish = "slo_unattainable",
                .prefill = std::string(60, 'p'),
                .decode = std::string(60, 'd'),
                .stages = stages()});
  }
  EXPECT_EQ(recent.newest_first().size(), RecentRequests::kMost);
  EXPECT_EQ(recent.newest_first().front().number, 2 * RecentRequests::kMost);
  const std::string out = state_json(state, classes, recent.newest_first(), kNow, true);
  EXPECT_LT(out.size(), size_t{256} << 10);
  EXPECT_EQ(json::parse(out).at("workers").as_array().size(), LiveState::kMostWorkers);
}

}  // namespace
}  // namespace baton::router
