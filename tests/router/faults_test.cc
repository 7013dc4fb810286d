// Workers that refuse, fail, preempt, die and come back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/router/router_fixture.h"

namespace baton::router {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

const std::string kBody = R"({"model":"toy","prompt":"xyz","max_tokens":60,"seed":5)";

std::string text_of(const std::string& body) {
  return std::string(parse(body).at("choices").at(0).at("text").as_string());
}
std::string streamed_text(const std::string& body) {
  std::string text;
  for (const std::string& data : events_of(body)) {
    if (data == "[DONE]") break;
    const auto event = parse(data);
    if (event.as_object().contains("error")) return "error";
    for (const auto& choice : event.at("choices").as_array()) text += choice.at("text").as_string();
  }
  return text;
}

class FaultsTest : public RouterFixture {
 protected:
  std::string expected() const { return fake_text({'x', 'y', 'z'}, 0, 60, 5); }
  std::string metric(const std::string& line) {
    const std::string text = ask(get("/metrics")).body;
    const size_t at = text.find("\n" + line);
    return at == std::string::npos ? "" : text.substr(at + 1, text.find('\n', at + 1) - at - 1);
  }
};

TEST_F(FaultsTest, AWorkerThatDiesInMidStreamIsNotNoticedByTheClient) {
  add_worker({.name = "a", .die_after_tokens = 20});
  start();
  wait_ready();
  // The second worker joins while the first serves.
  RawClient client(port());
  client.send(post("/v1/completions", kBody + R"(,"stream":true})"));
  ASSERT_EQ(client.read_head(milliseconds(5000))->status, 200);
  ASSERT_TRUE(eventually([&] { return on_io([&] { return workers_[0]->tokens_sent() >= 20; }); }));
  const uint16_t port = on_io([&] {
    const uint16_t port = workers_[0]->options().port;
    workers_.clear();
    return port;
  });
  add_worker({.name = "a-again", .port = port});
  std::string text, last;
  while (const auto event = client.read_event(milliseconds(10'000))) {
    last = *event;
    if (last == "[DONE]") break;
    text += parse(last).at("choices").at(0).at("text").as_string();
  }
  EXPECT_EQ(last, "[DONE]");
  EXPECT_EQ(text, expected());
  EXPECT_EQ(metric("baton_router_retries_total"), "baton_router_retries_total 1");
  EXPECT_EQ(metric("baton_router_resumes_total"), "baton_router_resumes_total 1");
}

TEST_F(FaultsTest, APairThatLosesEitherSideGoesOnWithTheOther) {
  for (const char* name : {"p0", "p1"}) add_worker({.role = proto::ROLE_PREFILL, .name = name});
  for (const char* name : {"d0", "d1"}) {
    add_worker({.role = proto::ROLE_DECODE, .name = name, .die_after_tokens = 25});
  }
  add_worker({.role = proto::ROLE_DECODE, .name = "d2"});
  start();
  wait_ready();
  const HttpAnswer answer = ask(post("/v1/completions", kBody + R"(,"stream":true})"));
  EXPECT_EQ(streamed_text(answer.body), expected());
}

TEST_F(FaultsTest, PreemptedAnswersAreTheSame) {
  add_worker({.role = proto::ROLE_PREFILL, .name = "p"});
  add_worker({.role = proto::ROLE_DECODE, .name = "d", .preempt_after = 7});
  start();
  wait_ready();
  const HttpAnswer answer = ask(post("/v1/completions", kBody + "}"));
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(text_of(answer.body), expected());
  EXPECT_EQ(parse(answer.body).at("usage").at("completion_tokens").to_number<int>(), 60);
  EXPECT_EQ(active_on_workers(), 0u);
}

TEST_F(FaultsTest, RefusalsAreWaitedOut) {
  add_worker({.role = proto::ROLE_PREFILL, .name = "p"});
  add_worker({.role = proto::ROLE_DECODE, .name = "d", .refuse_reserves = 3});
  start();
  wait_ready();
  const HttpAnswer answer = ask(post("/v1/completions", kBody + "}"));
  EXPECT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(text_of(answer.body), expected());
  EXPECT_EQ(metric("baton_router_worker_refusals_total"), "baton_router_worker_refusals_total 3");
}

TEST_F(FaultsTest, FailuresAreRetriedAndThenToldOnce) {
  add_worker({.name = "a", .fail_submits = 2});
  start();
  wait_ready();
  EXPECT_EQ(ask(post("/v1/completions", kBody + "}")).status, 200);
  on_io([&] { return workers_[0]->options().fail_submits = 3; });
  const HttpAnswer answer = ask(post("/v1/completions", kBody + R"(,"stream":true})"));
  EXPECT_EQ(answer.status, 503);  // nothing was streamed yet: a plain error
  EXPECT_THAT(answer.body, HasSubstr("the fake failed on purpose"));
  EXPECT_EQ(answer.headers.at("retry-after"), "1");
}

TEST_F(FaultsTest, AnErrorInMidStreamIsOneEvent) {
  add_worker({.name = "a", .die_after_tokens = 5});
  RouterConfig config;
  config.dispatch.queue_timeout = milliseconds(200);
  start(std::move(config));
  wait_ready();
  const HttpAnswer answer = ask(post("/v1/completions", kBody + R"(,"stream":true})"));
  EXPECT_EQ(answer.status, 200);
  const auto events = events_of(answer.body);
  ASSERT_GE(events.size(), 3u);
  EXPECT_EQ(events.back(), "[DONE]");
  const auto error = parse(events[events.size() - 2]);
  EXPECT_EQ(error.at("error").at("code").as_string(), "unavailable");
  EXPECT_EQ(ask(get("/ready")).status, 503);
}

TEST_F(FaultsTest, NoWorkerIsSaidAtOnceAndALostOneIsWaitedFor) {
  RouterConfig config;
  config.workers = {"127.0.0.1:1"};
  config.dispatch.max_queued = 1;
  add_worker({.name = "a"});
  start(std::move(config));
  wait_ready();
  const uint16_t worker_port = on_io([&] {
    const uint16_t port = workers_[0]->options().port;
    workers_.clear();
    return port;
  });
  ASSERT_TRUE(eventually([&] { return ask(get("/ready")).status == 503; }));
  RawClient waiting(port());
  waiting.send(post("/v1/completions", kBody + "}"));
  ASSERT_TRUE(eventually([&] { return metric("vllm:num_requests_waiting").ends_with(" 1"); }));
  const HttpAnswer full = ask(post("/v1/completions", kBody + "}"));
  EXPECT_EQ(full.status, 503);
  EXPECT_EQ(full.headers.at("retry-after"), "1");
  EXPECT_TRUE(metric("baton_router_refused_total{reason=\"overloaded\"}").ends_with(" 1"));
  EXPECT_TRUE(metric("vllm:request_success_total{finished_reason=\"error\"").ends_with(" 0"));
  add_worker({.name = "b", .port = worker_port});
  const auto answer = waiting.read_answer(milliseconds(10'000));
  EXPECT_EQ(answer->status, 200);
  EXPECT_EQ(text_of(answer->body), expected());
}

TEST_F(FaultsTest, BeforeTheFirstWorkerThereIsNothingToWaitFor) {
  RouterConfig config;
  config.workers = {"127.0.0.1:1"};
  start(std::move(config));
  const HttpAnswer answer = ask(post("/v1/completions", kBody + "}"));
  EXPECT_EQ(answer.status, 503);
  EXPECT_THAT(answer.body, HasSubstr("No worker serves the model 'toy' yet"));
}

TEST_F(FaultsTest, AClientGoneWhileItsRequestWaitsIsForgotten) {
  add_worker({.role = proto::ROLE_PREFILL, .name = "p"});
  add_worker({.role = proto::ROLE_DECODE, .name = "d", .refuse_reserves = 1'000'000});
  start();
  wait_ready();
  {
    RawClient client(port());
    client.send(post("/v1/completions", kBody + "}"));
    ASSERT_TRUE(eventually([&] { return on_io([&] { return workers_[1]->reserves() >= 1; }); }));
  }
  EXPECT_TRUE(eventually([&] { return metric("vllm:num_requests_waiting").ends_with(" 0"); }));
  EXPECT_EQ(active_on_workers(), 0u);
}

TEST_F(FaultsTest, AWorkerThatDoesNotFitIsRefusedAndOneOfAnotherSetIsNot) {
  add_worker({.name = "a"});
  add_worker({.name = "b", .numerics = "other"});
  add_worker({.name = "c", .model = "unknown-model"});
  add_worker({.name = "d", .vocab_size = 300});
  start();
  wait_ready();
  EXPECT_TRUE(eventually([&] {
    return metric("baton_router_workers{role=\"mixed\",state=\"ready\"}").ends_with(" 2");
  }));
  EXPECT_TRUE(eventually([&] {
    return metric("baton_router_workers{role=\"unknown\",state=\"refused\"}").ends_with(" 2");
  }));
}

TEST_F(FaultsTest, ManyClientsThatCancelAtRandomLeaveNothing) {
  add_worker({.role = proto::ROLE_PREFILL, .name = "p"});
  add_worker({.role = proto::ROLE_DECODE, .name = "d0"});
  add_worker({.role = proto::ROLE_DECODE, .name = "d1", .preempt_after = 9});
  start();
  wait_ready();
  std::mt19937 random(3);
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 150; ++i) {
    clients.push_back(std::make_unique<RawClient>(port()));
    clients.back()->send(post("/v1/completions", kBody + (i % 2 ? R"(,"stream":true})" : "}")));
    if (random() % 3 == 0) clients[random() % clients.size()].reset(nullptr);
    if (random() % 4 == 0) std::this_thread::sleep_for(milliseconds(random() % 10));
    std::erase(clients, nullptr);
  }
  for (const auto& client : clients) {
    const auto answer = client->read_answer(milliseconds(20'000));
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->status, 200);
    const bool streamed = answer->headers.contains("transfer-encoding");
    EXPECT_EQ(streamed ? streamed_text(answer->body) : text_of(answer->body), expected());
  }
  EXPECT_TRUE(eventually([&] { return active_on_workers() == 0; }));
  EXPECT_TRUE(eventually([&] { return metric("vllm:num_requests_running").ends_with(" 0"); }));
}

}  // namespace
}  // namespace baton::router
