// Classes of service over real sockets, with fake workers behind the router.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/router/router_fixture.h"

namespace baton::router {
namespace {

using testing::HasSubstr;

class SloTest : public RouterFixture {
 protected:
  void start_with(const std::vector<std::string>& classes, const char* by_default = "") {
    add_worker({.name = "mixed-0"});
    RouterConfig config;
    config.slo_classes = *parse_slo_classes(classes, by_default);
    start(std::move(config));
    wait_ready();
  }
  HttpAnswer complete(std::string_view headers, std::string_view fields = "") {
    return ask(post("/v1/completions",
                    R"({"model":"toy","prompt":"x","max_tokens":4)" + std::string(fields) + "}",
                    headers));
  }
};

TEST_F(SloTest, WhatARequestMayAskForIsTakenAndAllElseRefusedByName) {
  start_with({"interactive: ttft=500ms tpot=50ms", "batch: best-effort"});
  EXPECT_EQ(complete("").status, 200);
  EXPECT_EQ(complete("", R"(,"service_tier":"flex")").status, 200);
  EXPECT_EQ(complete("", R"(,"service_tier":null)").status, 200);
  EXPECT_EQ(complete("x-baton-slo-class: batch\r\nx-slo-ttft-ms: 100\r\n"
                     "X-Baton-SLO-TPOT-ms: 12.5\r\n")
                .status,
            200);
  const auto refused = [&](std::string_view headers, std::string_view fields,
                           std::string_view param, const std::string& message) {
    const HttpAnswer answer = complete(headers, fields);
    EXPECT_EQ(answer.status, 400) << answer.body;
    const auto error = parse(answer.body).at("error");
    EXPECT_EQ(error.at("param").as_string(), std::string(param)) << answer.body;
    EXPECT_THAT(answer.body, HasSubstr(message));
  };
  refused("", R"(,"service_tier":"priority")", "service_tier", "interactive, batch");
  refused("x-baton-slo-class: gold\r\n", "", "x-baton-slo-class", "interactive, batch");
  refused("x-baton-slo-class: batch\r\n", R"(,"service_tier":"interactive")", "service_tier",
          "different classes");
  refused("x-baton-slo-ttft-ms: soon\r\n", "", "x-baton-slo-ttft-ms", "'soon'");
  refused("x-slo-tpot-ms: 0\r\n", "", "x-slo-tpot-ms", "between 1 and 3600000");
  refused("x-baton-slo-ttft-ms: 5\r\nx-slo-ttft-ms: 6\r\n", "", "x-baton-slo-ttft-ms", "equal");
  // One line of a name, and no other, is what was meant.
  refused("x-slo-ttft-ms: 5\r\nx-slo-ttft-ms: 5\r\n", "", "x-slo-ttft-ms", "'5, 5'");
  // Chats are asked the same; where nothing is promised, nobody looks.
  EXPECT_EQ(ask(post("/v1/chat/completions",
                     R"({"model":"toy","messages":[{"role":"user","content":"a"}],"max_tokens":2})",
                     "x-slo-ttft-ms: x\r\n"))
                .status,
            400);
  EXPECT_EQ(ask(post("/tokenize", R"({"prompt":"a"})", "x-slo-ttft-ms: x\r\n")).status, 200);
}

TEST_F(SloTest, WithoutClassesThereIsTheDefault) {
  start_with({});
  EXPECT_EQ(complete("", R"(,"service_tier":"default")").status, 200);
  EXPECT_EQ(complete("x-slo-ttft-ms: 100\r\n", R"(,"service_tier":"flex")").status, 200);
  EXPECT_EQ(complete("", R"(,"service_tier":"batch")").status, 400);
}

}  // namespace
}  // namespace baton::router
