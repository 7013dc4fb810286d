#include "router/service/host_check.h"

#include <gtest/gtest.h>

#include "tests/router/router_fixture.h"

namespace baton::router {
namespace {

bool passes(const HostCheck& check, std::string host, bool open = true, std::string origin = "") {
  HttpHead head;
  head.host = std::move(host);
  head.origin = std::move(origin);
  return check.check(head, open).has_value();
}

TEST(HostCheckTest, OnLoopbackWithoutKeysOnlyAddressesAndLocalhost) {
  const HostCheck check({}, true);
  for (const char* host : {"localhost", "localhost:8000", "LocalHost:1", "127.0.0.1",
                           "127.0.0.1:8000", "[::1]", "[::1]:8000", "192.0.2.7:80"}) {
    EXPECT_TRUE(passes(check, host)) << host;
  }
  for (const char* host : {"evil.example", "evil.example:8000", "localhost.evil.example",
                           "127.0.0.1.evil.example", "evil.example:127", "[evil.example]", "[::1",
                           "[::1]evil.example", "[", ":", "localhost:1:2", "::1", "*"}) {
    EXPECT_FALSE(passes(check, host)) << host;
  }
  EXPECT_TRUE(passes(check, "")) << "HTTP/1.0";
}

TEST(HostCheckTest, WhereAKeyIsNeededOrOthersMayComeItIsNotMade) {
  EXPECT_TRUE(passes(HostCheck({}, true), "evil.example", /*open=*/false));
  EXPECT_TRUE(passes(HostCheck({}, false), "evil.example"));
}

TEST(HostCheckTest, NamesThatAreGivenAreAskedForEverywhere) {
  for (const bool loopback : {true, false}) {
    for (const bool open : {true, false}) {
      const HostCheck check({"llm.Example", "other"}, loopback);
      EXPECT_TRUE(passes(check, "LLM.example:443", open));
      EXPECT_TRUE(passes(check, "other", open));
      EXPECT_TRUE(passes(check, "localhost", open));
      EXPECT_FALSE(passes(check, "evil.example", open));
      EXPECT_FALSE(passes(check, "a.other", open));
    }
  }
  EXPECT_TRUE(passes(HostCheck({"x", "*"}, true), "evil.example"));
}

TEST(HostCheckTest, APageOfElsewhereIsToldByItsOrigin) {
  const HostCheck check({"llm.example"}, true);
  EXPECT_TRUE(passes(check, "localhost", true, "http://localhost:3000"));
  EXPECT_TRUE(passes(check, "localhost", true, "https://llm.example"));
  EXPECT_TRUE(passes(check, "localhost", true, "http://[::1]:80"));
  for (const char* origin : {"http://evil.example", "null", "localhost", "file://", "https://"}) {
    EXPECT_FALSE(passes(check, "localhost", true, origin)) << origin;
  }
}

TEST(HostCheckTest, TheSentenceSaysWhatToDo) {
  HttpHead head;
  head.host = "evil\x01.example" + std::string(1000, 'x');
  const auto refused = HostCheck({}, true).check(head, true);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().status, HttpStatus::kForbidden);
  EXPECT_EQ(refused.error().code, "host_not_allowed");
  EXPECT_NE(refused.error().message.find("--allowed-hosts"), std::string::npos);
  EXPECT_LT(refused.error().message.size(), 300u);
}

class HostsTest : public RouterFixture {};

// As a page does that has its own name resolve to our address.
TEST_F(HostsTest, APageOfElsewhereGetsNothingOfAnOpenRouter) {
  add_worker({});
  start();
  wait_ready();
  for (const char* path : {"/debug/state", "/v1/models", "/metrics", "/", "/nowhere"}) {
    const std::string line = std::string("GET ") + path + " HTTP/1.1";
    const HttpAnswer rebound = ask(raw(line, "Host: evil.example:8000\r\n"));
    EXPECT_EQ(rebound.status, 403) << path;
    EXPECT_EQ(parse(rebound.body).at("error").at("code").as_string(), "host_not_allowed");
  }
  const std::string body = R"({"model":"toy","prompt":"x","max_tokens":1})";
  EXPECT_EQ(ask(post("/v1/completions", body, "Origin: http://evil.example\r\n")).status, 403);
  EXPECT_EQ(ask(post("/v1/completions", body, "Origin: http://localhost:8000\r\n")).status, 200);
  EXPECT_EQ(ask(raw("GET /v1/models HTTP/1.1", "Host: 127.0.0.1:8000\r\n")).status, 200);
}

TEST_F(HostsTest, NamesOfAProxyAreAllowedOnes) {
  add_worker({});
  start({.allowed_hosts = {"llm.example"}});
  wait_ready();
  EXPECT_EQ(ask(raw("GET /v1/models HTTP/1.1", "Host: llm.example\r\n")).status, 200);
  EXPECT_EQ(ask(raw("GET /v1/models HTTP/1.1", "Host: other.example\r\n")).status, 403);
}

TEST_F(HostsTest, WhereAKeyIsNeededAnyHostWillDo) {
  add_worker({});
  start({.access = {.api_keys = {"secret"}}});
  EXPECT_EQ(ask(raw("GET /health HTTP/1.1", "Host: llm.example\r\n")).status, 200);
}

}  // namespace
}  // namespace baton::router
