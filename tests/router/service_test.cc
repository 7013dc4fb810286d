// The router over real sockets, with fake workers behind it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/router/router_fixture.h"

namespace baton::router {
namespace {

using std::chrono::milliseconds;

std::vector<TokenId> bytes_of(std::string_view text) { return {text.begin(), text.end()}; }

TEST_F(RouterFixture, StreamsAChatThroughAPair) {
  add_pair();
  start();
  wait_ready();
  const HttpAnswer answer = ask(post("/v1/chat/completions", R"({"model":"toy","stream":true,
      "messages":[{"role":"user","content":"Hi"}],"max_tokens":5,"seed":7,
      "stream_options":{"include_usage":true}})"));
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.headers.at("content-type"), "text/event-stream; charset=utf-8");
  const auto events = events_of(answer.body);
  ASSERT_GE(events.size(), 4u);
  EXPECT_EQ(events.back(), "[DONE]");
  std::string text;
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    const auto event = parse(events[i]);
    for (const auto& choice : event.at("choices").as_array()) {
      if (const auto* content = choice.at("delta").as_object().if_contains("content")) {
        text += content->as_string();
      }
    }
  }
  EXPECT_EQ(text.size(), 5u);
  const auto usage = parse(events[events.size() - 2]).at("usage");
  EXPECT_EQ(usage.at("completion_tokens").to_number<int>(), 5);
}

TEST_F(RouterFixture, AnswersACompletionThroughAMixedWorker) {
  add_worker({.name = "mixed-0"});
  start();
  wait_ready();
  const HttpAnswer answer = ask(
      post("/v1/completions", R"({"model":"toy","prompt":"xyz","max_tokens":8,"n":2,"seed":7})"));
  ASSERT_EQ(answer.status, 200) << answer.body;
  const auto body = parse(answer.body);
  EXPECT_EQ(body.at("object").as_string(), "text_completion");
  EXPECT_EQ(body.at("system_fingerprint").as_string(), "test-numerics");
  const auto& choices = body.at("choices").as_array();
  ASSERT_EQ(choices.size(), 2u);
  for (uint32_t c = 0; c < 2; ++c) {
    EXPECT_EQ(choices[c].at("text").as_string(), fake_text(bytes_of("xyz"), c, 8, 7));
    EXPECT_EQ(choices[c].at("finish_reason").as_string(), "length");
  }
  EXPECT_EQ(body.at("usage").at("total_tokens").to_number<int>(), 3 + 16);
}

}  // namespace
}  // namespace baton::router
