// HTTP itself: hostile bytes, limits, keep-alive, pipelining, clients that go away or read slowly.
#include <fmt/format.h>
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

struct HostileCase {
  std::string name;
  std::string bytes;
  int status;  // 0: closed without an answer
};

std::string completion(std::string_view body) { return post("/v1/completions", body); }
std::string chat(std::string_view body) { return post("/v1/chat/completions", body); }
std::string with_prompt(std::string_view more) {
  return completion(R"({"model":"toy","prompt":"x",)" + std::string(more) + "}");
}
std::string raw(std::string_view line, std::string_view headers = "Host: t\r\n",
                std::string_view body = "") {
  return std::string(line) + "\r\n" + std::string(headers) + "\r\n" + std::string(body);
}

constexpr std::string_view kChunked = "Host: t\r\nTransfer-Encoding: chunked\r\n";
std::string chunked(std::string_view body) {
  return raw("POST /v1/completions HTTP/1.1", kChunked, body);
}
std::string times(size_t count, std::string_view text) {
  std::string all;
  for (size_t i = 0; i < count; ++i) all += text;
  return all;
}
std::string chunks(size_t count, size_t bytes, std::string_view extension) {
  return times(count, fmt::format("{:x}{}\r\n{}\r\n", bytes, extension, std::string(bytes, ' ')));
}

std::vector<HostileCase> hostile_cases() {
  const std::string deep(100'000, '[');
  std::vector<HostileCase> cases = {
      // The request line.
      {"empty line", "\r\n\r\n", 400},
      {"binary", std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11) + "\r\n\r\n", 400},
      {"no version", raw("GET /health"), 400},
      {"wrong version", raw("GET /health HTTP/3.7"), 400},
      {"http 2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
      {"no target", raw("GET  HTTP/1.1"), 400},
      {"spaces in target", raw("GET /hea lth HTTP/1.1"), 400},
      {"control byte in target", raw("GET /hea\x01lth HTTP/1.1"), 400},
      {"method with a slash", raw("GE/T /health HTTP/1.1"), 400},
      {"unknown method", raw("BREW /health HTTP/1.1"), 405},
      {"absolute target", raw("GET http://x/health HTTP/1.1"), 404},
      {"path traversal", raw("GET /../../etc/passwd HTTP/1.1"), 404},
      {"unknown path", get("/v2/models"), 404},
      {"trailing slash", get("/v1/models/"), 404},
      // Headers.
      {"no host", raw("GET /health HTTP/1.1", ""), 400},
      {"two hosts", raw("GET /health HTTP/1.1", "Host: a\r\nHost: b\r\n"), 400},
      {"header without colon", raw("GET /health HTTP/1.1", "Host: t\r\nwhat\r\n"), 400},
      {"space before colon", raw("GET /health HTTP/1.1", "Host : t\r\n"), 400},
      {"control byte in header", raw("GET /health HTTP/1.1", "Host: t\r\nA: \x01\r\n"), 400},
      {"zero byte in header", raw("GET /health HTTP/1.1", std::string("Host: t\r\nA: \0\r\n", 15)),
       400},
      {"header too large",
       raw("GET /health HTTP/1.1", "Host: t\r\nA: " + std::string(20'000, 'a') + "\r\n"), 431},
      {"too many headers",
       [] {
         std::string headers = "Host: t\r\n";
         for (int i = 0; i < 3000; ++i) headers += "A: b\r\n";
         return raw("GET /health HTTP/1.1", headers);
       }(),
       431},
      {"endless target", "GET /" + std::string(20'000, 'a'), 431},
      {"unknown expectation",
       raw("POST /v1/completions HTTP/1.1", "Host: t\r\nExpect: cake\r\nContent-Length: 2\r\n",
           "{}"),
       417},
      // Framing.
      {"negative length", raw("POST /v1/completions HTTP/1.1", "Host: t\r\nContent-Length: -1\r\n"),
       400},
      {"length is no number",
       raw("POST /v1/completions HTTP/1.1", "Host: t\r\nContent-Length: ten\r\n"), 400},
      {"two lengths",
       raw("POST /v1/completions HTTP/1.1", "Host: t\r\nContent-Length: 2\r\nContent-Length: 3\r\n",
           "{}"),
       400},
      {"length and chunks",
       raw("POST /v1/completions HTTP/1.1",
           "Host: t\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
       400},
      {"chunks and length",
       raw("POST /v1/completions HTTP/1.1",
           "Host: t\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n", "0\r\n\r\n"),
       400},
      {"overflowing length",
       raw("POST /v1/completions HTTP/1.1",
           "Host: t\r\nContent-Length: 99999999999999999999999\r\n"),
       400},
      {"length over the cap",
       raw("POST /v1/completions HTTP/1.1", "Host: t\r\nContent-Length: 99999999\r\n"), 413},
      {"bad chunk size",
       raw("POST /v1/completions HTTP/1.1", "Host: t\r\nTransfer-Encoding: chunked\r\n",
           "zz\r\n{}\r\n0\r\n\r\n"),
       400},
      {"overflowing chunk size",
       raw("POST /v1/completions HTTP/1.1", "Host: t\r\nTransfer-Encoding: chunked\r\n",
           "fffffffffffffffff\r\n{}"),
       400},
      {"chunk without its end",
       raw("POST /v1/completions HTTP/1.1", "Host: t\r\nTransfer-Encoding: chunked\r\n",
           "2\r\n{}XX0\r\n\r\n"),
       400},
      {"chunks over the cap",
       raw("POST /v1/completions HTTP/1.1", "Host: t\r\nTransfer-Encoding: chunked\r\n",
           "500000\r\n" + std::string(0x500000, ' ') + "\r\n0\r\n\r\n"),
       413},
      {"sum of chunks over the cap", chunked(chunks(65, 1 << 16, "") + "0\r\n\r\n"), 413},
      {"long trailer", chunked("0\r\nA: " + std::string(100'000, 'a') + "\r\n\r\n"), 413},
      {"long name in the trailer", chunked("0\r\n" + std::string(100'000, 'a') + ": b\r\n\r\n"),
       413},
      {"many trailers", chunked("0\r\n" + times(20'000, "A: b\r\n") + "\r\n"), 413},
      {"endless trailer", chunked("0\r\nA: " + std::string(100'000, 'a')), 413},
      {"endless chunk extension", chunked("2;" + std::string(100'000, 'a')), 413},
      {"endless chunk size", chunked(std::string(100'000, '0')), 413},
      {"more extensions than body", chunked(chunks(600, 1, ";x=" + std::string(8000, 'y'))), 413},
      {"trailer without colon", chunked("0\r\nwhat\r\n\r\n"), 400},
      {"long trailer where no body is wanted",
       raw("GET /health HTTP/1.1", kChunked, "0\r\nA: " + std::string(100'000, 'a') + "\r\n\r\n"),
       413},
      // Methods.
      {"get of a post path", get("/v1/chat/completions"), 405},
      {"post of a get path", post("/v1/models", "{}"), 405},
      {"delete", raw("DELETE /v1/models HTTP/1.1"), 405},
      {"options", raw("OPTIONS /v1/chat/completions HTTP/1.1"), 405},
      {"trace", raw("TRACE /health HTTP/1.1"), 405},
      {"connect", raw("CONNECT /health HTTP/1.1"), 405},
      // Bodies.
      {"no body", completion(""), 400},
      {"truncated json", completion(R"({"model":"toy","prompt":)"), 400},
      {"array", completion("[]"), 400},
      {"nested without end", completion(R"({"model":"toy","prompt":)" + deep), 400},
      {"nested objects", completion("{\"a\":" + std::string(40, '{') + "}"), 400},
      {"duplicate key", with_prompt(R"("n":1,"n":2)"), 400},
      {"duplicate long key",
       [] {
         const std::string key = "\"" + std::string(1'000'000, 'k') + "\":1";
         return with_prompt(key + "," + key);
       }(),
       400},
      {"invalid utf-8", with_prompt("\"user\":\"\xff\xfe\""), 400},
      {"lone surrogate", with_prompt(R"("user":"\udc00")"), 400},
      {"raw control byte", with_prompt("\"user\":\"a\x02\""), 400},
      {"nan", with_prompt(R"("temperature":NaN)"), 400},
      {"infinity", with_prompt(R"("temperature":1e999)"), 400},
      {"comments", with_prompt("/* x */\"n\":1"), 400},
      {"trailing text", completion(R"({"model":"toy","prompt":"x"} DROP TABLE)"), 400},
      {"zero byte", completion(std::string("{\"model\":\"toy\"\0}", 16)), 400},
      {"no model", completion(R"({"prompt":"x"})"), 400},
      {"model is a number", completion(R"({"model":7,"prompt":"x"})"), 400},
      {"model of another", completion(R"({"model":"gpt-4","prompt":"x"})"), 404},
      {"model with a newline", completion(R"({"model":"a\nb\u0000","prompt":"x"})"), 404},
      {"no prompt", completion(R"({"model":"toy"})"), 400},
      {"token out of range", completion(R"({"model":"toy","prompt":[320]})"), 400},
      {"huge token", completion(R"({"model":"toy","prompt":[99999999999]})"), 400},
      {"n of a billion", with_prompt(R"("n":1000000000)"), 400},
      {"max_tokens beyond the context", with_prompt(R"("max_tokens":2000000)"), 400},
      {"tools", chat(R"({"model":"toy","messages":[{"role":"user","content":"x"}],"tools":[{}]})"),
       400},
      {"image",
       chat(
           R"({"model":"toy","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]})"),
       400},
      {"no messages", chat(R"({"model":"toy"})"), 400},
      {"messages of nothing", chat(R"({"model":"toy","messages":[null]})"), 400},
      {"client's template",
       chat(
           R"({"model":"toy","messages":[{"role":"user","content":"x"}],"chat_template":"{{ 7*7 }}"})"),
       400},
      {"prompts without end",
       completion(R"({"model":"toy","prompt":[)" +
                  [] {
                    std::string list;
                    for (int i = 0; i < 1000; ++i) list += "\"x\",";
                    return list;
                  }() +
                  R"("x"]})"),
       400},
  };
  return cases;
}

TEST_F(HttpTest, HostileRequestsGetTheirAnswerAndTheServerGoesOn) {
  start_quick();
  const auto cases = hostile_cases();
  EXPECT_GE(cases.size(), 60u);
  for (const HostileCase& c : cases) {
    SCOPED_TRACE(c.name);
    const HttpAnswer answer = ask(c.bytes);
    EXPECT_EQ(answer.status, c.status) << answer.body.substr(0, 200);
    if (c.status >= 400) {
      boost::system::error_code failed;
      const auto body = boost::json::parse(answer.body, failed);
      ASSERT_FALSE(failed) << answer.body.substr(0, 200);
      for (const char* field : {"message", "type", "param", "code"}) {
        EXPECT_TRUE(body.at("error").as_object().contains(field)) << field;
      }
      EXPECT_FALSE(body.at("error").at("message").as_string().empty());
      EXPECT_LT(body.at("error").at("message").as_string().size(), 1000u);
      EXPECT_TRUE(answer.headers.contains("x-request-id"));
    }
    EXPECT_EQ(answer.headers.contains("allow"), c.status == 405);
    EXPECT_TRUE(serves());
  }
  EXPECT_EQ(active_on_workers(), 0u);
}

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

TEST_F(HttpTest, HeadHasNoBody) {
  start_quick();
  RawClient client(port());
  client.send(
      "HEAD /health HTTP/1.1\r\nHost: t\r\n\r\nHEAD /v1/completions HTTP/1.1\r\nHost: "
      "t\r\n\r\n" +
      get("/health"));
  EXPECT_EQ(client.read_answer(milliseconds(5000), false)->status, 200);
  EXPECT_EQ(client.read_answer(milliseconds(5000), false)->status, 405);
  EXPECT_EQ(client.read_answer(milliseconds(5000))->body, R"({"status":"ok"})");
}

TEST_F(HttpTest, ChunkedBodiesAndExpectContinue) {
  start_quick();
  RawClient client(port());
  client.send(raw("POST /v1/completions HTTP/1.1", "Host: t\r\nTransfer-Encoding: chunked\r\n",
                  "9\r\n{\"model\":\r\n27;x=y\r\n\"toy\",\"prompt\":\"x\",\"max_tokens\":1     "
                  "}\r\n0\r\nTrailer: z\r\n\r\n"));
  EXPECT_EQ(client.read_answer(milliseconds(5000))->status, 200);
  const std::string body = R"({"model":"toy","prompt":"x","max_tokens":1})";
  client.send(
      "POST /v1/completions HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n");
  EXPECT_EQ(client.read_answer(milliseconds(5000))->status, 100);
  client.send(body);
  EXPECT_EQ(client.read_answer(milliseconds(5000))->status, 200);
  // Refused before the body: no 100.
  client.send(
      "POST /nowhere HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
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
  body.send("POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 50\r\n\r\n{");
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
