// Hostile and malformed requests, each with the status that it must get.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/router/router_fixture.h"

namespace baton::router {
namespace {

struct HostileCase {
  std::string name;
  std::string bytes;
  int status;  // 0: closed without an answer
};

std::string chat(std::string_view body) { return post("/v1/chat/completions", body); }

constexpr std::string_view kChunked = "Host: localhost\r\nTransfer-Encoding: chunked\r\n";
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

std::string coded(std::string_view transfer_encoding, std::string_view headers = "") {
  return raw(
      "POST /v1/completions HTTP/1.1",
      fmt::format("Host: localhost\r\nTransfer-Encoding: {}\r\n{}", transfer_encoding, headers),
      "{}");
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
      {"header without colon", raw("GET /health HTTP/1.1", "Host: localhost\r\nwhat\r\n"), 400},
      {"space before colon", raw("GET /health HTTP/1.1", "Host : t\r\n"), 400},
      {"control byte in header", raw("GET /health HTTP/1.1", "Host: localhost\r\nA: \x01\r\n"),
       400},
      {"zero byte in header",
       raw("GET /health HTTP/1.1", std::string("Host: localhost\r\nA: \0\r\n", 23)), 400},
      {"header too large",
       raw("GET /health HTTP/1.1", "Host: localhost\r\nA: " + std::string(20'000, 'a') + "\r\n"),
       431},
      {"too many headers",
       [] {
         std::string headers = "Host: localhost\r\n";
         for (int i = 0; i < 3000; ++i) headers += "A: b\r\n";
         return raw("GET /health HTTP/1.1", headers);
       }(),
       431},
      {"endless target", "GET /" + std::string(20'000, 'a'), 431},
      {"unknown expectation",
       raw("POST /v1/completions HTTP/1.1",
           "Host: localhost\r\nExpect: cake\r\nContent-Length: 2\r\n", "{}"),
       417},
      // Framing.
      {"negative length",
       raw("POST /v1/completions HTTP/1.1", "Host: localhost\r\nContent-Length: -1\r\n"), 400},
      {"length is no number",
       raw("POST /v1/completions HTTP/1.1", "Host: localhost\r\nContent-Length: ten\r\n"), 400},
      {"two lengths",
       raw("POST /v1/completions HTTP/1.1",
           "Host: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n", "{}"),
       400},
      {"length and chunks",
       raw("POST /v1/completions HTTP/1.1",
           "Host: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
       400},
      {"chunks and length",
       raw("POST /v1/completions HTTP/1.1",
           "Host: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n", "0\r\n\r\n"),
       400},
      {"overflowing length",
       raw("POST /v1/completions HTTP/1.1",
           "Host: localhost\r\nContent-Length: 99999999999999999999999\r\n"),
       400},
      {"length over the cap",
       raw("POST /v1/completions HTTP/1.1", "Host: localhost\r\nContent-Length: 99999999\r\n"),
       413},
      {"bad chunk size",
       raw("POST /v1/completions HTTP/1.1", "Host: localhost\r\nTransfer-Encoding: chunked\r\n",
           "zz\r\n{}\r\n0\r\n\r\n"),
       400},
      {"overflowing chunk size",
       raw("POST /v1/completions HTTP/1.1", "Host: localhost\r\nTransfer-Encoding: chunked\r\n",
           "fffffffffffffffff\r\n{}"),
       400},
      {"chunk without its end",
       raw("POST /v1/completions HTTP/1.1", "Host: localhost\r\nTransfer-Encoding: chunked\r\n",
           "2\r\n{}XX0\r\n\r\n"),
       400},
      {"chunks over the cap",
       raw("POST /v1/completions HTTP/1.1", "Host: localhost\r\nTransfer-Encoding: chunked\r\n",
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
      {"unknown coding", coded("xchunked", "Content-Length: 2\r\n"), 501},
      {"unknown coding without length", coded("xchunked"), 501},
      {"identity is no transfer coding", coded("identity", "Content-Length: 2\r\n"), 501},
      {"two codings", coded("gzip, chunked"), 501},
      {"two codings on two lines", coded("gzip\r\nTransfer-Encoding: chunked"), 501},
      {"chunked and a length in a coding", coded("chunked;q=1", "Content-Length: 2\r\n"), 400},
      {"chunked in HTTP/1.0", raw("POST /v1/completions HTTP/1.0", kChunked, "0\r\n\r\n"), 400},
      {"compressed body", post("/v1/completions", "{}", "Content-Encoding: gzip\r\n"), 415},
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

class HostileRequests : public RouterFixture {};

TEST_F(HostileRequests, GetTheirAnswerAndTheServerGoesOn) {
  add_worker({.name = "mixed-0", .max_context = 1 << 20, .step = std::chrono::milliseconds(1)});
  start();
  wait_ready();
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
    EXPECT_EQ(ask(get("/health")).status, 200);
  }
  EXPECT_EQ(active_on_workers(), 0u);
}

}  // namespace
}  // namespace baton::router
