#include "router/traces/exporter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <optional>

#include "tests/router/traces/fake_collector.h"

namespace baton::router {
namespace {

using Fault = FakeCollector::Fault;
using testing::ElementsAre;
using testing::IsEmpty;

TraceConfig config_for(const OtlpEndpoint& endpoint) {
  TraceConfig config;
  config.endpoint = endpoint;
  config.every = milliseconds(5);
  config.first_backoff = milliseconds(5);
  config.timeout = milliseconds(200);
  config.version = "1.2";
  return config;
}

TracedRequest request(const std::string& id) {
  TracedRequest r;
  r.context.trace[0] = 1;
  r.context.sampled = true;
  r.method = "POST";
  r.path = "/v1/completions";
  r.request_id = id;
  r.reason = "ok";
  r.status = 200;
  return r;
}

bool eventually(const std::function<bool()>& condition) {
  const TimePoint end = Clock::now() + seconds(10);
  while (!condition()) {
    if (Clock::now() > end) return false;
    std::this_thread::sleep_for(milliseconds(1));
  }
  return true;
}

TEST(TraceExporterTest, SpansComeAsTheProtocolHasIt) {
  FakeCollector collector;
  TraceConfig config = config_for(collector.endpoint());
  config.headers = {{"Authorization", "Bearer x"}};
  const auto exporter = TraceExporter::start(config);
  exporter->add(request("a"));
  ASSERT_TRUE(eventually([&] { return exporter->exported() == 1; }));
  EXPECT_THAT(collector.taken(), ElementsAre("a"));
  const FakeCollector::Request got = collector.requests().at(0);
  EXPECT_EQ(got.method_string(), "POST");
  EXPECT_EQ(got.target(), "/v1/traces");
  EXPECT_EQ(got["content-type"], "application/x-protobuf");
  EXPECT_EQ(got["authorization"], "Bearer x");
  otlp::ExportTraceServiceRequest spans;
  ASSERT_TRUE(spans.ParseFromString(got.body()));
  const auto& resource = spans.resource_spans(0).resource();
  EXPECT_EQ(resource.attributes(0).value().string_value(), "baton-router");
  EXPECT_EQ(resource.attributes(1).value().string_value(), "1.2");
  EXPECT_EQ(exporter->dropped(), 0u);
}

TEST(TraceExporterTest, ABusyOrBrokenCollectorIsTriedAgain) {
  FakeCollector collector({Fault::kBusy, Fault::kHangsUp, Fault::kSilent, Fault::kNone});
  const auto exporter = TraceExporter::start(config_for(collector.endpoint()));
  exporter->add(request("a"));
  ASSERT_TRUE(eventually([&] { return exporter->exported() == 1; }));
  EXPECT_THAT(collector.taken(), ElementsAre("a")) << "once";
  EXPECT_EQ(collector.requests().size(), 3u);
  EXPECT_EQ(exporter->dropped(), 0u);
}

TEST(TraceExporterTest, WhatIsRefusedIsNotTriedAgain) {
  FakeCollector collector({Fault::kRefuses});
  const auto exporter = TraceExporter::start(config_for(collector.endpoint()));
  exporter->add(request("a"));
  ASSERT_TRUE(eventually([&] { return exporter->dropped() == 1; }));
  exporter->add(request("b"));
  ASSERT_TRUE(eventually([&] { return exporter->exported() == 1; }));
  EXPECT_THAT(collector.taken(), ElementsAre("b"));
}

TEST(TraceExporterTest, RejectedSpansAreNotExported) {
  FakeCollector collector({Fault::kRejects, Fault::kNone});
  TraceConfig config = config_for(collector.endpoint());
  config.every = seconds(100);
  config.max_batch = 5;
  const auto exporter = TraceExporter::start(config);
  for (int i = 0; i < 5; ++i) exporter->add(request("a"));
  ASSERT_TRUE(eventually([&] { return exporter->dropped() == 3; }));
  EXPECT_EQ(exporter->exported(), 2u);
  for (int i = 0; i < 5; ++i) exporter->add(request("b"));
  ASSERT_TRUE(eventually([&] { return exporter->exported() == 7; }));
  EXPECT_EQ(exporter->dropped(), 3u);
}

TEST(TraceExporterTest, NoMoreRequestsAreDroppedThanThereWere) {
  FakeCollector collector({Fault::kRejects});
  const auto exporter = TraceExporter::start(config_for(collector.endpoint()));
  exporter->add(request("a"));
  ASSERT_TRUE(eventually([&] { return exporter->dropped() > 0; }));
  EXPECT_EQ(exporter->dropped(), 1u);
  EXPECT_EQ(exporter->exported(), 0u);
}

// The system cannot be told to stop looking for a name.
TEST(TraceExporterTest, TheEndDoesNotWaitForANameServer) {
  std::promise<void> answer;
  const auto asked = std::make_shared<std::atomic<bool>>(false);
  const auto lookup = [asked, answered = answer.get_future().share()](const std::string& host,
                                                                      const std::string&) {
    EXPECT_EQ(host, "collector.example");
    *asked = true;
    answered.wait();
    return net::FoundName{};
  };
  TraceConfig config = config_for({"collector.example", "4318", "/v1/traces"});
  config.timeout = seconds(100);
  config.last_words = milliseconds(50);
  auto exporter = TraceExporter::start(config, lookup);
  exporter->add(request("a"));
  ASSERT_TRUE(eventually([&] { return asked->load(); }));
  auto end = std::async(std::launch::async, [&] { exporter.reset(); });
  EXPECT_EQ(end.wait_for(seconds(10)), std::future_status::ready);
  answer.set_value();
}

TEST(TraceExporterTest, ANameThatIsNotFoundInTimeIsLookedUpAgain) {
  FakeCollector collector;
  std::promise<void> answer;
  const auto looks = std::make_shared<std::atomic<int>>(0);
  const auto lookup = [looks, answered = answer.get_future().share()](const std::string&,
                                                                      const std::string& port) {
    if (looks->fetch_add(1) == 0) answered.wait();
    return net::ask_system("127.0.0.1", port);
  };
  OtlpEndpoint endpoint = collector.endpoint();
  endpoint.host = "collector.example";
  TraceConfig config = config_for(endpoint);
  config.timeout = milliseconds(50);
  const auto exporter = TraceExporter::start(config, lookup);
  exporter->add(request("a"));
  EXPECT_TRUE(eventually([&] { return exporter->exported() == 1; }));
  EXPECT_GE(looks->load(), 2);
  answer.set_value();
}

TEST(TraceExporterTest, ACollectorMayComeLate) {
  std::optional<FakeCollector> collector(std::in_place);
  const OtlpEndpoint endpoint = collector->endpoint();
  const uint16_t port = collector->port();
  collector.reset();
  const auto exporter = TraceExporter::start(config_for(endpoint));
  exporter->add(request("a"));
  std::this_thread::sleep_for(milliseconds(30));
  collector.emplace(std::vector<Fault>(), port);
  ASSERT_TRUE(eventually([&] { return exporter->exported() == 1; }));
  EXPECT_THAT(collector->taken(), ElementsAre("a"));
}

TEST(TraceExporterTest, WithoutACollectorABatchIsGivenUpAndCounted) {
  OtlpEndpoint nobody;
  {
    FakeCollector gone;
    nobody = gone.endpoint();
  }
  TraceConfig config = config_for(nobody);
  config.give_up_after = milliseconds(40);
  const auto exporter = TraceExporter::start(config);
  exporter->add(request("a"));
  exporter->add(request("b"));
  EXPECT_TRUE(eventually([&] { return exporter->dropped() == 2; }));
  EXPECT_EQ(exporter->exported(), 0u);
}

// A collector that never answers: whoever adds does not notice, and memory has a bound.
TEST(TraceExporterTest, ASlowCollectorHoldsUpNobody) {
  FakeCollector collector(std::vector<Fault>(1000, Fault::kSilent));
  TraceConfig config = config_for(collector.endpoint());
  config.max_waiting = 100;
  config.max_batch = 10;
  config.timeout = seconds(30);
  config.last_words = milliseconds(50);
  auto exporter = TraceExporter::start(config);
  exporter->add(request("first"));
  ASSERT_TRUE(eventually([&] { return collector.requests().size() == 1; }));
  TracedRequest big = request("x");
  const TimePoint begun = Clock::now();
  for (int i = 0; i < 10'000; ++i) exporter->add(big);
  EXPECT_LT(Clock::now() - begun, seconds(5)) << "10,000 of them";
  EXPECT_EQ(exporter->dropped(), 9900u);
  const TimePoint stopped = Clock::now();
  exporter.reset();
  EXPECT_LT(Clock::now() - stopped, seconds(5)) << "its end does not wait for the collector";
}

TEST(TraceExporterTest, TheEndSendsWhatWaits) {
  FakeCollector collector;
  TraceConfig config = config_for(collector.endpoint());
  config.every = seconds(100);
  config.last_words = seconds(10);
  auto exporter = TraceExporter::start(config);
  for (const char* id : {"a", "b", "c"}) exporter->add(request(id));
  EXPECT_THAT(collector.taken(), IsEmpty());
  exporter.reset();
  EXPECT_THAT(collector.taken(), ElementsAre("a", "b", "c"));
}

TEST(TraceExporterTest, AFullBatchDoesNotWait) {
  FakeCollector collector;
  TraceConfig config = config_for(collector.endpoint());
  config.every = seconds(100);
  config.max_batch = 3;
  const auto exporter = TraceExporter::start(config);
  for (const char* id : {"a", "b", "c"}) exporter->add(request(id));
  EXPECT_TRUE(eventually([&] { return exporter->exported() == 3; }));
  EXPECT_EQ(collector.requests().size(), 1u);
}

TEST(TraceExporterTest, ATraceOfItsOwnIsSampledByTheRatioAndACallersByTheCaller) {
  TraceConfig config = config_for({"127.0.0.1", "1", "/v1/traces"});
  config.sample_ratio = 0.25;
  const auto exporter = TraceExporter::start(config);
  int sampled = 0;
  for (int i = 0; i < 10'000; ++i) {
    const TraceContext made = exporter->context_of(std::nullopt);
    EXPECT_FALSE(made.has_parent());
    EXPECT_NE(made.trace, TraceId{});
    sampled += made.sampled;
  }
  EXPECT_GT(sampled, 2200);
  EXPECT_LT(sampled, 2800);
  for (const bool wanted : {true, false}) {
    TraceContext given;
    given.trace[3] = 9;
    given.sampled = wanted;
    EXPECT_EQ(exporter->context_of(given).sampled, wanted);
    EXPECT_EQ(exporter->context_of(given).trace, given.trace);
  }
}

}  // namespace
}  // namespace baton::router
