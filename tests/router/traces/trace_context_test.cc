#include "router/traces/trace_context.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "router/traces/trace_config.h"

namespace baton::router {
namespace {

constexpr std::string_view kGiven = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

std::string with(size_t at, std::string_view text) {
  return std::string(kGiven).replace(at, text.size(), text);
}

TEST(TraceContextTest, WhatACallerSaysIsTaken) {
  const auto context = parse_trace_context(kGiven, "vendor=1,other=x y");
  ASSERT_TRUE(context);
  EXPECT_EQ(to_hex(context->trace), "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(to_hex(context->parent), "00f067aa0ba902b7");
  EXPECT_TRUE(context->sampled);
  EXPECT_TRUE(context->has_parent());
  EXPECT_EQ(context->state, "vendor=1,other=x y");
}

TEST(TraceContextTest, OnlyTheLastFlagSays) {
  EXPECT_FALSE(parse_trace_context(with(53, "00"), "")->sampled);
  EXPECT_FALSE(parse_trace_context(with(53, "fe"), "")->sampled);
  EXPECT_TRUE(parse_trace_context(with(53, "ff"), "")->sampled);
}

TEST(TraceContextTest, ALaterVersionMaySayMore) {
  EXPECT_TRUE(parse_trace_context(with(0, "01"), ""));
  EXPECT_TRUE(parse_trace_context(with(0, "cc") + "-what-ever", ""));
  EXPECT_FALSE(parse_trace_context(with(0, "cc") + "what-ever", ""));
  EXPECT_FALSE(parse_trace_context(std::string(kGiven) + "-more", "")) << "this one may not";
}

TEST(TraceContextTest, WhatIsMalformedIsNone) {
  for (const std::string& text :
       {std::string(), std::string("00"), std::string(kGiven.substr(0, 54)), with(0, "ff"),
        with(0, "0x"), with(2, "_"), with(35, "_"), with(52, "_"), with(3, "4BF9"), with(40, "g"),
        with(53, "0."), with(3, std::string(32, '0')), with(36, std::string(16, '0')),
        " " + std::string(kGiven), std::string(kGiven) + " ", std::string(kGiven) + "," + "00",
        std::string(kGiven) + ", " + std::string(kGiven), std::string(5000, 'a')}) {
    EXPECT_FALSE(parse_trace_context(text, "")) << text;
  }
}

TEST(TraceContextTest, AStateThatIsUnfitIsDropped) {
  EXPECT_EQ(parse_trace_context(kGiven, std::string(512, 'a'))->state.size(), 512u);
  EXPECT_EQ(parse_trace_context(kGiven, std::string(513, 'a'))->state, "");
  EXPECT_EQ(parse_trace_context(kGiven, "a=\x01")->state, "");
  EXPECT_EQ(parse_trace_context(kGiven, "a=\xff")->state, "");
}

TEST(TraceConfigTest, AnEndpointIsAHostAPortAndMaybeAPath) {
  const auto plain = parse_otlp_endpoint("http://collector:4318");
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->host, "collector");
  EXPECT_EQ(plain->port, "4318");
  EXPECT_EQ(plain->path, "/v1/traces");
  EXPECT_EQ(parse_otlp_endpoint("http://collector:4318/")->path, "/v1/traces");
  EXPECT_EQ(parse_otlp_endpoint("http://[::1]:1/a/b/")->path, "/a/b/v1/traces");
  EXPECT_EQ(parse_otlp_endpoint("http://[::1]:1/a/b/")->host, "::1");
  EXPECT_FALSE(plain->tls);
  for (const char* url :
       {"", "collector:4318", "grpc://collector:4317", "http://collector", "https://",
        "https://::1", "https://:443", "http://:4318", "http://c:0", "http://c:99999",
        "http://c:1/a b", "http://c:1/a?b", "http://c:1/a\r\nx: y"}) {
    EXPECT_FALSE(parse_otlp_endpoint(url)) << url;
  }
}

TEST(TraceConfigTest, AnEndpointWithTlsHasAPortOfItsOwnOr443) {
  for (const auto& [url, host, port, path] : std::vector<std::array<std::string, 4>>{
           {"https://api.example", "api.example", "443", "/v1/traces"},
           {"https://api.example:4318/otlp", "api.example", "4318", "/otlp/v1/traces"},
           {"https://[::1]/", "::1", "443", "/v1/traces"},
           {"https://[::1]:8443", "::1", "8443", "/v1/traces"}}) {
    const auto endpoint = parse_otlp_endpoint(url);
    ASSERT_TRUE(endpoint) << url;
    EXPECT_TRUE(endpoint->tls);
    EXPECT_EQ(endpoint->host, host);
    EXPECT_EQ(endpoint->port, port);
    EXPECT_EQ(endpoint->path, path);
  }
}

TEST(TraceConfigTest, HeadersAreNamesAndValues) {
  const auto headers = parse_header_lines({"Authorization: Bearer a:b", "x-scope:1"});
  ASSERT_TRUE(headers);
  EXPECT_EQ(*headers, (HttpFields{{"Authorization", "Bearer a:b"}, {"x-scope", "1"}}));
  for (const char* line :
       {"", "secret", ": secret", "a b: secret", "a:", "a: secret\r", "a: \x7f"}) {
    const auto bad = parse_header_lines({"fine: 1", line});
    ASSERT_FALSE(bad) << line;
    EXPECT_EQ(bad.error().message, "line 2 of the headers is not 'name: value'");
  }
}

}  // namespace
}  // namespace baton::router
