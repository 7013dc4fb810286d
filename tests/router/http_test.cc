// HTTP itself: limits, keep-alive, pipelining, clients that go away or read slowly.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/router/router_fixture.h"

namespace baton::router {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

class HttpTest : public RouterFixture {
 protected:
  void start_with(HttpOptions http, Duration step = milliseconds(1)) {
    add_worker({.name = "mixed-0", .max_context = 1 << 20, .step = step});
    RouterConfig config;
    config.http = http;
    start(std::move(config));
    wait_ready();
  }
  void start_quick() { start_with({}); }
  bool serves() { return ask(get("/health")).status == 200; }
};

TEST_F(HttpTest, TruncatedAtEveryByteIsNoTrouble) {
  start_quick();
  const std::string whole = with_prompt(R"("max_tokens":1)");
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    RawClient client(port());
    client.send(whole.substr(0, bytes));
    client.shut_down_sending();
    const auto answer = client.read_answer(milliseconds(5000));
    EXPECT_EQ(answer ? answer->status : 400, 400) << bytes;
  }
  EXPECT_TRUE(serves());
}

TEST_F(HttpTest, KeepAliveAndPipelining) {
  start_quick();
  RawClient client(port());
  const std::string three = get("/health") + with_prompt(R"("max_tokens":3,"stream":true)") +
                            with_prompt(R"("max_tokens":2)") + get("/version");
  client.send(three);
  EXPECT_EQ(client.read_answer(milliseconds(5000))->body, R"({"status":"ok"})");
  const auto stream = client.read_answer(milliseconds(5000));
  EXPECT_EQ(events_of(stream->body).back(), "[DONE]");
  EXPECT_THAT(client.read_answer(milliseconds(5000))->body, HasSubstr("text_completion"));
  EXPECT_THAT(client.read_answer(milliseconds(5000))->body, HasSubstr("version"));
  // Byte by byte.
  for (const char c : get("/health")) client.send(std::string(1, c));
  EXPECT_EQ(client.read_answer(milliseconds(5000))->status, 200);
}

TEST_F(HttpTest, ConnectionCloseAndHttp10) {
  start_quick();
  {
    RawClient client(port());
    client.send(get("/health", "Connection: close\r\n"));
    const auto answer = client.read_answer(milliseconds(5000));
    EXPECT_EQ(answer->headers.at("connection"), "close");
    EXPECT_TRUE(client.wait_closed(milliseconds(2000)));
  }
  RawClient old(port());
  const std::string body = R"({"model":"toy","prompt":"x","max_tokens":3,"stream":true})";
  old.send("POST /v1/completions HTTP/1.0\r\nContent-Length: " + std::to_string(body.size()) +
           "\r\n\r\n" + body);
  const auto answer = old.read_answer(milliseconds(5000));
  EXPECT_FALSE(answer->headers.contains("transfer-encoding"));
  EXPECT_EQ(events_of(answer->body).back(), "[DONE]");
}

TEST_F(HttpTest, NothingIsReadBehindABodyOfDoubtfulLength) {
  start_quick();
  RawClient client(port());
  client.send(raw("POST /v1/completions HTTP/1.1",
                  "Host: localhost\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n", "{}") +
              get("/health"));
  const auto answer = client.read_answer(milliseconds(5000));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 501);
  EXPECT_EQ(answer->headers.at("connection"), "close");
  EXPECT_TRUE(client.wait_closed(milliseconds(5000)));
  EXPECT_TRUE(client.buffered().empty());
  EXPECT_EQ(
      ask(post("/tokenize", R"({"model":"toy","prompt":"x"})", "Content-Encoding: identity\r\n"))
          .status,
      200);
}

TEST_F(HttpTest, HeadHasNoBody) {
  start_quick();
  RawClient client(port());
  client.send(
      "HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\nHEAD /v1/completions HTTP/1.1\r\nHost: "
      "localhost\r\n\r\n" +
      get("/health"));
  EXPECT_EQ(client.read_answer(milliseconds(5000), false)->status, 200);
  EXPECT_EQ(client.read_answer(milliseconds(5000), false)->status, 405);
  EXPECT_EQ(client.read_answer(milliseconds(5000))->body, R"({"status":"ok"})");
}

TEST_F(HttpTest, ChunkedBodiesAndExpectContinue) {
  start_quick();
  RawClient client(port());
  client.send(raw("POST /v1/completions HTTP/1.1",
                  "Host: localhost\r\nTransfer-Encoding: chunked\r\n",
                  "9\r\n{\"model\":\r\n27;x=y\r\n\"toy\",\"prompt\":\"x\",\"max_tokens\":1     "
                  "}\r\n0\r\nTrailer: z\r\n\r\n"));
  EXPECT_EQ(client.read_answer(milliseconds(5000))->status, 200);
  const std::string body = R"({"model":"toy","prompt":"x","max_tokens":1})";
  client.send(
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nExpect: "
      "100-continue\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n");
  EXPECT_EQ(client.read_answer(milliseconds(5000))->status, 100);
  client.send(body);
  EXPECT_EQ(client.read_answer(milliseconds(5000))->status, 200);
  // Refused before the body: no 100.
  client.send(
      "POST /nowhere HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: "
      "5\r\n\r\n");
  EXPECT_EQ(client.read_answer(milliseconds(5000))->status, 404);
}

TEST_F(HttpTest, RequestIdsAreEchoedIfHarmless) {
  start_quick();
  EXPECT_EQ(ask(get("/health", "x-request-id: abc-123\r\n")).headers.at("x-request-id"), "abc-123");
  for (const char* id : {"a b", "a\"b", "\xc3\xa9"}) {
    const auto answer = ask(get("/health", std::string("x-request-id: ") + id + "\r\n"));
    EXPECT_NE(answer.headers.at("x-request-id"), id);
    EXPECT_FALSE(answer.headers.at("x-request-id").empty());
  }
  const std::string longest(65, 'a');
  EXPECT_NE(ask(get("/health", "x-request-id: " + longest + "\r\n")).headers.at("x-request-id"),
            longest);
}

TEST_F(HttpTest, SlowSendersAreCutOff) {
  start_with({.header_timeout = milliseconds(150),
              .body_timeout = milliseconds(150),
              .idle_timeout = milliseconds(300)});
  RawClient header(port()), body(port()), idle(port());
  header.send("GET /health HT");
  body.send("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{");
  EXPECT_EQ(header.read_answer(milliseconds(5000))->status, 408);
  EXPECT_EQ(body.read_answer(milliseconds(5000))->status, 408);
  EXPECT_TRUE(header.wait_closed(milliseconds(5000)));
  EXPECT_FALSE(idle.read_answer(milliseconds(5000)));
}

TEST_F(HttpTest, ConnectionsAreBounded) {
  start_with({.max_connections = 3});
  // The readiness probes' connections end first.
  ASSERT_TRUE(eventually([&] { return serves(); }));
  RawClient a(port()), b(port());
  for (RawClient* client : {&a, &b}) {
    client->send(get("/health"));
    EXPECT_EQ(client->read_answer(milliseconds(5000))->status, 200);
  }
  RawClient c(port());
  c.send(get("/health"));
  EXPECT_EQ(c.read_answer(milliseconds(5000))->status, 200);
  RawClient d(port());
  const auto answer = d.read_answer(milliseconds(5000));
  EXPECT_EQ(answer->status, 503);
  EXPECT_EQ(answer->headers.at("retry-after"), "1");
  a.close();
  EXPECT_TRUE(eventually([&] { return serves(); }));
}

TEST_F(HttpTest, AClientThatGoesAwayFreesTheWorkers) {
  start_with({}, milliseconds(5));
  for (const bool stream : {true, false}) {
    for (const bool hard : {true, false}) {
      RawClient client(port());
      client.send(with_prompt(std::string(R"("max_tokens":100000,"stream":)") +
                              (stream ? "true" : "false")));
      ASSERT_TRUE(eventually([&] { return active_on_workers() == 1; }));
      if (stream) {
        EXPECT_EQ(client.read_head(milliseconds(5000))->status, 200);
      }
      hard ? client.reset() : client.close();
      EXPECT_TRUE(eventually([&] { return active_on_workers() == 0; }));
    }
  }
  EXPECT_THAT(ask(get("/metrics")).body,
              HasSubstr("baton_router_cut_off_total{reason=\"disconnected\"} 4"));
}

TEST_F(HttpTest, AClientThatFloodsAndGoesAwayIsNoticedToo) {
  start_with({}, milliseconds(5));
  RawClient client(port());
  client.send(with_prompt(R"("max_tokens":100000)") + std::string(100 << 10, '\n'));
  ASSERT_TRUE(eventually([&] { return active_on_workers() == 1; }));
  client.reset();
  EXPECT_TRUE(eventually([&] { return active_on_workers() == 0; }));
}

TEST_F(HttpTest, AClientThatFloodsGetsItsAnswerAndNoOther) {
  start_quick();
  RawClient client(port());
  std::string more;
  while (more.size() < 200 << 10) more += get("/health");
  client.send(with_prompt(R"("max_tokens":300)") + more);
  const auto answer = client.read_answer(milliseconds(10'000));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 200);
  EXPECT_TRUE(answer->complete);
  EXPECT_TRUE(client.wait_closed(milliseconds(10'000)));
  EXPECT_TRUE(client.buffered().empty());
}

TEST_F(HttpTest, ASlowReaderIsCutOff) {
  start_with({.max_pending_bytes = 64 << 10, .send_buffer_bytes = 8 << 10}, Duration::zero());
  RawClient slow(port(), 4096);
  slow.send(with_prompt(R"("max_tokens":1000000,"stream":true)"));
  ASSERT_EQ(slow.read_head(milliseconds(5000))->status, 200);
  EXPECT_TRUE(eventually([&] { return active_on_workers() == 0; }));
  EXPECT_TRUE(slow.wait_closed(milliseconds(5000)));
  EXPECT_THAT(ask(get("/metrics")).body,
              HasSubstr("baton_router_cut_off_total{reason=\"too_slow\"} 1"));
}

TEST_F(HttpTest, ASlowReaderSlowsNobody) {
  start_with({.write_timeout = seconds(600), .send_buffer_bytes = 8 << 10});
  RawClient slow(port(), 4096), steady(port());
  slow.send(with_prompt(R"("max_tokens":1000000,"stream":true)"));
  ASSERT_EQ(slow.read_head(milliseconds(5000))->status, 200);
  // It reads no more; another one, of more bytes than the buffers hold, ends before it.
  steady.send(with_prompt(R"("max_tokens":400,"stream":true)"));
  const auto answer = steady.read_answer(milliseconds(60'000));
  ASSERT_TRUE(answer && answer->complete);
  EXPECT_EQ(events_of(answer->body).back(), "[DONE]");
  EXPECT_EQ(active_on_workers(), 1u);
}

TEST_F(HttpTest, WhatASlowReaderLeftInTheSocketComesWholeAndInOrder) {
  start_with({.max_pending_bytes = 64 << 20, .send_buffer_bytes = 4 << 10}, microseconds(50));
  const std::string body =
      R"({"model":"toy","prompt":"x","max_tokens":1500,"seed":5,"stream":true})";
  for (const std::string_view version : {"1.1", "1.0"}) {  // in chunks, and without
    RawClient slow(port(), 2048);
    slow.send("POST /v1/completions HTTP/" + std::string(version) + "\r\nHost: localhost\r\n" +
              "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
    ASSERT_TRUE(eventually([&] { return active_on_workers() == 1; }));
    ASSERT_TRUE(eventually([&] { return active_on_workers() == 0; }));
    const auto answer = slow.read_answer(milliseconds(2000));
    ASSERT_TRUE(answer && answer->complete);
    std::string text;
    std::vector<std::string> events = events_of(answer->body);
    ASSERT_FALSE(events.empty());
    EXPECT_EQ(events.back(), "[DONE]");
    events.pop_back();
    for (const std::string& event : events) {
      text += parse(event).at("choices").at(0).at("text").as_string();
    }
    EXPECT_EQ(text, fake_text({'x'}, 0, 1500, 5)) << version;
  }
}

TEST_F(HttpTest, AnEchoOverTheCapIsNoSlowReader) {
  start_with({.max_pending_bytes = 4 << 10});
  const HttpAnswer answer =
      ask(completion(R"({"model":"toy","prompt":")" + std::string(200, 'x') +
                     R"(","max_tokens":5,"n":3,"stream":true,"echo":true,"logprobs":20})"));
  ASSERT_EQ(answer.status, 200);
  EXPECT_GT(answer.body.size(), size_t{4} << 10);
  ASSERT_FALSE(events_of(answer.body).empty());
  EXPECT_EQ(events_of(answer.body).back(), "[DONE]");
}

TEST_F(HttpTest, AReaderThatStopsIsCutOffByTime) {
  // Few bytes are written, so only the write's deadline can notice.
  start_with({.write_timeout = milliseconds(200),
              .max_pending_bytes = 64 << 20,
              .send_buffer_bytes = 4 << 10},
             Duration::zero());
  RawClient slow(port(), 2048);
  slow.send(with_prompt(R"("max_tokens":1000000,"stream":true)"));
  ASSERT_EQ(slow.read_head(milliseconds(5000))->status, 200);
  EXPECT_TRUE(eventually([&] { return active_on_workers() == 0; }));
}

TEST_F(HttpTest, DrainLetsAnswersEnd) {
  start_with({}, milliseconds(2));
  RawClient running(port()), idle(port());
  idle.send(get("/health"));
  EXPECT_EQ(idle.read_answer(milliseconds(5000))->status, 200);
  running.send(with_prompt(R"("max_tokens":100,"stream":true)"));
  ASSERT_EQ(running.read_head(milliseconds(5000))->status, 200);
  std::promise<void> drained;
  on_io([&] {
    router_->drain([&] { drained.set_value(); });
    return 0;
  });
  EXPECT_THROW(RawClient late(port()), std::runtime_error);
  EXPECT_TRUE(idle.wait_closed(milliseconds(5000)));
  std::string last;
  while (const auto event = running.read_event(milliseconds(5000))) last = *event;
  EXPECT_EQ(last, "[DONE]");
  auto done = drained.get_future();
  EXPECT_EQ(done.wait_for(milliseconds(5000)), std::future_status::ready);
}

TEST_F(HttpTest, DrainServesOnUntilItsBalancerHasTurnedAway) {
  add_worker({.name = "mixed-0", .step = milliseconds(2)});
  RouterConfig config;
  config.shutdown_delay = milliseconds(1500);
  start(std::move(config));
  wait_ready();
  RawClient kept(port()), idle(port());
  for (RawClient* client : {&kept, &idle}) {
    client->send(get("/health"));
    EXPECT_EQ(client->read_answer(milliseconds(5000))->status, 200);
  }
  std::promise<void> drained;
  auto done = drained.get_future();
  on_io([&] {
    router_->drain([&] { drained.set_value(); });
    return 0;
  });
  EXPECT_EQ(ask(get("/ready")).status, 503);
  EXPECT_EQ(ask(with_prompt(R"("max_tokens":4)")).status, 200);
  kept.send(with_prompt(R"("max_tokens":4)"));
  const auto answer = kept.read_answer(milliseconds(5000));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 200);
  EXPECT_EQ(answer->headers.at("connection"), "close");
  EXPECT_TRUE(kept.wait_closed(milliseconds(5000)));
  EXPECT_EQ(done.wait_for(milliseconds(0)), std::future_status::timeout);
  EXPECT_TRUE(idle.wait_closed(milliseconds(5000)));
  EXPECT_EQ(done.wait_for(milliseconds(5000)), std::future_status::ready);
  EXPECT_THROW(RawClient late(port()), std::runtime_error);
}

TEST_F(HttpTest, DrainTellsWhatItCannotWaitFor) {
  add_worker({.name = "mixed-0", .max_context = 1 << 20, .step = milliseconds(2)});
  RouterConfig config;
  config.drain_timeout = milliseconds(200);
  start(std::move(config));
  wait_ready();
  RawClient stream(port()), whole(port());
  stream.send(with_prompt(R"("max_tokens":1000000,"stream":true)"));
  whole.send(with_prompt(R"("max_tokens":1000000)"));
  ASSERT_EQ(stream.read_head(milliseconds(5000))->status, 200);
  ASSERT_TRUE(eventually([&] { return active_on_workers() == 2; }));
  std::promise<void> drained;
  on_io([&] {
    router_->drain([&] { drained.set_value(); });
    return 0;
  });
  std::string last, before;
  while (auto event = stream.read_event(milliseconds(5000))) {
    before = std::exchange(last, std::move(*event));
  }
  EXPECT_EQ(last, "[DONE]");
  EXPECT_THAT(before, HasSubstr("the server is shutting down"));
  const auto answer = whole.read_answer(milliseconds(5000));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 503);
  EXPECT_EQ(answer->headers.at("retry-after"), "1");
  EXPECT_THAT(answer->body, HasSubstr("the server is shutting down"));
  auto done = drained.get_future();
  EXPECT_EQ(done.wait_for(milliseconds(5000)), std::future_status::ready);
  EXPECT_TRUE(eventually([&] { return active_on_workers() == 0; }));
}

}  // namespace
}  // namespace baton::router
