// What is accepted, what is refused, and which field the error names.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/array.hpp>

#include "router/openai/chat_request.h"
#include "router/openai/completion_request.h"
#include "router/openai/tokenize_request.h"

namespace baton::router {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct BadCase {
  std::string_view body;
  std::string_view param;    // of the error
  std::string_view message;  // a part of it
  std::string_view code = "";
};

std::string join(std::string_view base, std::string_view more) {
  return "{" + std::string(base) + std::string(more) + "}";
}

class BadCompletion : public testing::TestWithParam<BadCase> {};
TEST_P(BadCompletion, IsRefusedByName) {
  const BadCase& c = GetParam();
  const auto parsed = parse_completion_request(join(R"("model":"m")", c.body), {});
  ASSERT_FALSE(parsed) << c.body;
  EXPECT_EQ(parsed.error().status, HttpStatus::kBadRequest);
  EXPECT_EQ(parsed.error().param, c.param) << parsed.error().message;
  EXPECT_THAT(parsed.error().message, HasSubstr(std::string(c.message)));
  if (!c.code.empty()) {
    EXPECT_EQ(parsed.error().code, c.code);
  }
}
INSTANTIATE_TEST_SUITE_P(
    All, BadCompletion,
    testing::Values(
        BadCase{"", "prompt", "required"}, BadCase{R"(,"prompt":null)", "prompt", "required"},
        BadCase{R"(,"prompt":"")", "prompt", "empty"},
        BadCase{R"(,"prompt":[])", "prompt", "empty"},
        BadCase{R"(,"prompt":7)", "prompt", "must be a string"},
        BadCase{R"(,"prompt":{"a":1})", "prompt", "must be a string"},
        BadCase{R"(,"prompt":[1,"a"])", "prompt", "token ids"},
        BadCase{R"(,"prompt":["a",1])", "prompt", "must be a string"},
        BadCase{R"(,"prompt":[[1],[]])", "prompt", "empty"},
        BadCase{R"(,"prompt":[-1])", "prompt", "at least 0"},
        BadCase{R"(,"prompt":[1.5])", "prompt", "whole numbers"},
        BadCase{R"(,"prompt":[4294967296])", "prompt", "whole numbers"},
        BadCase{R"(,"prompt":"a","max_tokens":0)", "max_tokens", "between 1"},
        BadCase{R"(,"prompt":"a","max_tokens":-5)", "max_tokens", "not -5"},
        BadCase{R"(,"prompt":"a","max_tokens":1.5)", "max_tokens", "whole number"},
        BadCase{R"(,"prompt":"a","max_tokens":"9")", "max_tokens", "whole number"},
        BadCase{R"(,"prompt":"a","max_tokens":99999999999)", "max_tokens", "between"},
        BadCase{R"(,"prompt":"a","max_tokens":18446744073709551615)", "max_tokens", "between"},
        BadCase{R"(,"prompt":"a","service_tier":7)", "service_tier", "must be a string"},
        BadCase{R"(,"prompt":"a","n":0)", "n", "between 1 and 128"},
        BadCase{R"(,"prompt":"a","n":129)", "n", "not 129"},
        BadCase{R"(,"prompt":["a","b"],"n":65)", "n", "2 prompts"},
        BadCase{R"(,"prompt":"a","temperature":-0.1)", "temperature", "between 0 and 2"},
        BadCase{R"(,"prompt":"a","temperature":2.1)", "temperature", "not 2.1"},
        BadCase{R"(,"prompt":"a","temperature":"hot")", "temperature", "number"},
        BadCase{R"(,"prompt":"a","temperature":true)", "temperature", "number"},
        BadCase{R"(,"prompt":"a","top_p":0)", "top_p", "between"},
        BadCase{R"(,"prompt":"a","top_p":1.01)", "top_p", "between"},
        BadCase{R"(,"prompt":"a","top_k":-2)", "top_k", "between -1"},
        BadCase{R"(,"prompt":"a","min_p":1.5)", "min_p", "between 0 and 1"},
        BadCase{R"(,"prompt":"a","repetition_penalty":0)", "repetition_penalty", "between"},
        BadCase{R"(,"prompt":"a","presence_penalty":3)", "presence_penalty", "between -2 and 2"},
        BadCase{R"(,"prompt":"a","frequency_penalty":-3)", "frequency_penalty", "-3"},
        BadCase{R"(,"prompt":"a","seed":1.5)", "seed", "whole number"},
        BadCase{R"(,"prompt":"a","seed":18446744073709551615)", "seed", "whole number"},
        BadCase{R"(,"prompt":"a","logprobs":21)", "logprobs", "between 0 and 20"},
        BadCase{R"(,"prompt":"a","logprobs":true)", "logprobs", "whole number"},
        BadCase{R"(,"prompt":"a","echo":1)", "echo", "true or false"},
        BadCase{R"(,"prompt":"a","stream":"yes")", "stream", "true or false"},
        BadCase{R"(,"prompt":"a","stream_options":{})", "stream_options", "only allowed"},
        BadCase{R"(,"prompt":"a","stream":true,"stream_options":[])", "stream_options", "object"},
        BadCase{R"(,"prompt":"a","stream":true,"stream_options":{"include_usage":1})",
                "stream_options.include_usage", "true or false"},
        BadCase{R"(,"prompt":"a","stop":[1])", "stop", "string"},
        BadCase{R"(,"prompt":"a","stop":"")", "stop", "1 to 256 bytes"},
        BadCase{R"(,"prompt":"a","stop":{"a":1})", "stop", "string"},
        BadCase{R"(,"prompt":"a","stop":["1","2","3","4","5","6","7","8","9","a","b","c","d","e",)"
                R"("f","g","h"])",
                "stop", "at most 16"},
        BadCase{R"(,"prompt":"a","stop_token_ids":[-1])", "stop_token_ids", "token ids"},
        BadCase{R"(,"prompt":"a","stop_token_ids":7)", "stop_token_ids", "array"},
        BadCase{R"(,"prompt":"a","logit_bias":[])", "logit_bias", "map"},
        BadCase{R"(,"prompt":"a","logit_bias":{"x":1})", "logit_bias", "keys"},
        BadCase{R"(,"prompt":"a","logit_bias":{"-1":1})", "logit_bias", "keys"},
        BadCase{R"(,"prompt":"a","logit_bias":{"70":1,"070":1})", "logit_bias", "keys"},
        BadCase{R"(,"prompt":"a","logit_bias":{"-0":1})", "logit_bias", "keys"},
        BadCase{R"(,"prompt":"a","logit_bias":{"1x":1})", "logit_bias", "keys"},
        BadCase{R"(,"prompt":"a","logit_bias":{"":1})", "logit_bias", "keys"},
        BadCase{R"(,"prompt":"a","logit_bias":{"1":101})", "logit_bias", "-100 and 100"},
        BadCase{R"(,"prompt":"a","logit_bias":{"1":"1"})", "logit_bias", "-100 and 100"},
        BadCase{R"(,"prompt":"a","suffix":"b")", "suffix", "not supported",
                "unsupported_parameter"},
        BadCase{R"(,"prompt":"a","best_of":2)", "best_of", "equal to 'n'", "unsupported_parameter"},
        BadCase{R"(,"prompt":"a","response_format":{"type":"json_object"})", "response_format",
                "not supported", "unsupported_parameter"},
        BadCase{R"(,"prompt":"a","guided_json":{})", "guided_json", "not supported"},
        BadCase{R"(,"prompt":"a","use_beam_search":true)", "use_beam_search", "not supported"},
        BadCase{R"(,"prompt":"a","max_completion_tokens":0)", "max_completion_tokens", "between 1"},
        BadCase{R"(,"prompt":"a","max_tokens":3,"max_completion_tokens":4)", "max_tokens", "equal"},
        BadCase{R"(,"prompt":"a","logprobs":2,"top_logprobs":2)", "top_logprobs", "on this path",
                "unsupported_parameter"},
        BadCase{R"(,"prompt":"a","messages":[{"role":"user","content":"Hi"}])", "messages",
                "on this path", "unsupported_parameter"},
        BadCase{R"(,"prompt":"a","tools":[{"type":"function"}])", "tools", "not supported",
                "unsupported_parameter"},
        BadCase{R"(,"prompt":"a","chat_template":"x")", "chat_template", "not supported"},
        BadCase{R"(,"prompt":"a","add_generation_prompt":false)", "add_generation_prompt",
                "on this path"},
        BadCase{R"(,"prompt":"a","min_tokens":-1)", "min_tokens", "between 0"},
        BadCase{R"(,"prompt":"a","ignore_eos":0)", "ignore_eos", "true or false"},
        BadCase{R"(,"prompt":"a","cache_salt":5)", "cache_salt", "string"}));

class BadChat : public testing::TestWithParam<BadCase> {};
TEST_P(BadChat, IsRefusedByName) {
  const BadCase& c = GetParam();
  const auto parsed = parse_chat_request(join(R"("model":"m")", c.body), {});
  ASSERT_FALSE(parsed) << c.body;
  EXPECT_EQ(parsed.error().param, c.param) << parsed.error().message;
  EXPECT_THAT(parsed.error().message, HasSubstr(std::string(c.message)));
  if (!c.code.empty()) {
    EXPECT_EQ(parsed.error().code, c.code);
  }
}
#define HI R"(,"messages":[{"role":"user","content":"Hi"}])"
INSTANTIATE_TEST_SUITE_P(
    All, BadChat,
    testing::Values(
        BadCase{"", "messages", "required"}, BadCase{R"(,"messages":[])", "messages", "non-empty"},
        BadCase{R"(,"messages":"Hi")", "messages", "array"},
        BadCase{R"(,"messages":["Hi"])", "messages[0]", "object"},
        BadCase{R"(,"messages":[{"content":"Hi"}])", "messages[0].role", "required"},
        BadCase{R"(,"messages":[{"role":"robot","content":"Hi"}])", "messages[0].role", "robot"},
        BadCase{R"(,"messages":[{"role":"tool","content":"Hi"}])", "messages[0].role",
                "not supported", "unsupported_parameter"},
        BadCase{R"(,"messages":[{"role":"user"}])", "messages[0].content", "required"},
        BadCase{R"(,"messages":[{"role":"user","content":5}])", "messages[0].content", "string"},
        BadCase{R"(,"messages":[{"role":"user","content":[]}])", "messages[0].content", "parts"},
        BadCase{R"(,"messages":[{"role":"user","content":["x"]}])", "messages[0].content[0]",
                "object"},
        BadCase{R"(,"messages":[{"role":"user","content":[{"type":"image_url"}]}])",
                "messages[0].content[0].type", "'image_url' is not supported",
                "unsupported_parameter"},
        BadCase{R"(,"messages":[{"role":"user","content":[{"type":"text"}]}])",
                "messages[0].content[0].text", "required"},
        BadCase{R"(,"messages":[{"role":"user","content":"a"},)"
                R"({"role":"assistant","content":"b","tool_calls":[{}]}])",
                "messages[1].tool_calls", "not supported"},
        BadCase{HI R"(,"tools":[{"type":"function"}])", "tools", "not supported",
                "unsupported_parameter"},
        BadCase{HI R"(,"tool_choice":"auto")", "tool_choice", "not supported"},
        BadCase{HI R"(,"functions":[{}])", "functions", "not supported"},
        BadCase{HI R"(,"response_format":{"type":"json_schema"})", "response_format",
                "not supported"},
        BadCase{HI R"(,"modalities":["text","audio"])", "modalities", "not supported"},
        BadCase{HI R"(,"audio":{})", "audio", "not supported"},
        BadCase{HI R"(,"best_of":2)", "best_of", "on this path", "unsupported_parameter"},
        BadCase{HI R"(,"prompt":"a")", "prompt", "on this path"},
        BadCase{HI R"(,"echo":true)", "echo", "on this path"},
        BadCase{HI R"(,"suffix":"a")", "suffix", "not supported"},
        BadCase{HI R"(,"add_special_tokens":true)", "add_special_tokens", "on this path"},
        BadCase{HI R"(,"chat_template":"x")", "chat_template", "not supported"},
        BadCase{HI R"(,"logprobs":3)", "logprobs", "true or false"},
        BadCase{HI R"(,"top_logprobs":3)", "top_logprobs", "only allowed"},
        BadCase{HI R"(,"logprobs":true,"top_logprobs":21)", "top_logprobs", "between 0 and 20"},
        BadCase{HI R"(,"max_tokens":3,"max_completion_tokens":4)", "max_tokens", "equal"},
        BadCase{HI R"(,"max_completion_tokens":0)", "max_completion_tokens", "between 1"}));

TEST(Body, MustBeOneSaneJsonObject) {
  const std::vector<std::string> bodies = {
      "",
      "{",
      "[]",
      "7",
      "null",
      "{\"model\":\"m\"} x",
      "{\"model\":\"m\",\"model\":\"n\"}",
      "{\"model\":1e9999}",
      "{\"model\":\"\xff\"}",
      "{'model':'m'}",
      "{\"model\":\"m\",}",
      "{\"a\":" + std::string(50, '[') + std::string(50, ']') + "}",
      "{\"model\":NaN}",
      "{\"model\":\"\\ud800\"}",
      std::string("{\"model\":\"m\0\"}", 14)};
  for (const std::string& body : bodies) {
    const auto parsed = parse_chat_request(body, {});
    ASSERT_FALSE(parsed) << body;
    EXPECT_EQ(parsed.error().code, "invalid_json") << body;
    EXPECT_EQ(parsed.error().status, HttpStatus::kBadRequest);
  }
}

TEST(Completion, EveryPromptShape) {
  const auto prompts = [](std::string_view prompt) {
    return parse_completion_request(join(R"("model":"m","prompt":)", prompt), {})->prompts;
  };
  using Ids = std::vector<TokenId>;
  EXPECT_THAT(prompts(R"("ab")"), ElementsAre(Prompt("ab")));
  EXPECT_THAT(prompts("[1,2]"), ElementsAre(Prompt(Ids{1, 2})));
  EXPECT_THAT(prompts(R"(["a","b"])"), ElementsAre(Prompt("a"), Prompt("b")));
  EXPECT_THAT(prompts("[[1],[2,3]]"), ElementsAre(Prompt(Ids{1}), Prompt(Ids{2, 3})));
  EXPECT_THAT(prompts(R"(["a",[1]])"), ElementsAre(Prompt("a"), Prompt(Ids{1})));
}

TEST(Completion, FieldsArriveAndDefaultsHold) {
  const auto full = parse_completion_request(
      R"({"model":"m","prompt":"a","max_tokens":0,"echo":true,"n":2,"best_of":2,"logprobs":0,
          "temperature":0,"top_p":0.5,"top_k":-1,"min_p":0.1,"seed":-3,"min_tokens":0,
          "presence_penalty":1,"frequency_penalty":-1,"repetition_penalty":1.1,"ignore_eos":true,
          "stop":["x","y"],"stop_token_ids":[4],"logit_bias":{"7":-100},"cache_salt":"s",
          "stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true},
          "user":"u","metadata":{},"store":false,"suffix":"","tools":[],"top_logprobs":0,
          "wibble":1})",
      {});
  ASSERT_TRUE(full) << full.error().message;
  EXPECT_EQ(full->max_tokens, 0u);
  EXPECT_TRUE(full->echo);
  EXPECT_EQ(full->n, 2u);
  EXPECT_EQ(full->logprobs, 0u);
  EXPECT_EQ(full->sampling.temperature, 0.0f);
  EXPECT_EQ(full->sampling.top_k, 0u);
  EXPECT_EQ(full->sampling.seed, static_cast<uint64_t>(-3));
  EXPECT_THAT(full->sampling.stop, ElementsAre("x", "y"));
  EXPECT_THAT(full->sampling.stop_token_ids, ElementsAre(4));
  EXPECT_THAT(full->sampling.logit_bias, ElementsAre(std::pair(7, -100.0f)));
  EXPECT_EQ(full->cache_salt, "s");
  EXPECT_TRUE(full->stream.include_usage && full->stream.continuous_usage);
  EXPECT_THAT(full->unknown, ElementsAre("wibble"));

  const auto bare = parse_completion_request(
      R"({"model":"m","prompt":"a","temperature":null,"stop":null,"logprobs":null,"seed":null})",
      {});
  ASSERT_TRUE(bare);
  EXPECT_EQ(bare->max_tokens, 16u);
  EXPECT_EQ(bare->sampling.temperature, 1.0f);
  EXPECT_FALSE(bare->logprobs);
  EXPECT_FALSE(bare->sampling.seed);
  EXPECT_FALSE(bare->stream.stream);
}

TEST(Completion, MaxCompletionTokensIsTheNewerName) {
  const auto limit = [](std::string_view fields) {
    return parse_completion_request(join(R"("model":"m","prompt":"a",)", fields), {})->max_tokens;
  };
  EXPECT_EQ(limit(R"("max_completion_tokens":3)"), 3u);
  EXPECT_EQ(limit(R"("max_completion_tokens":4,"max_tokens":4)"), 4u);
  EXPECT_EQ(limit(R"("max_completion_tokens":0,"echo":true)"), 0u);
}

TEST(Chat, FieldsArrive) {
  const auto chat = parse_chat_request(
      R"({"model":"m","messages":[{"role":"developer","content":"S","name":"x"},
          {"role":"user","content":[{"type":"text","text":"A"},{"type":"text","text":"B"}]},
          {"role":"assistant","content":"C","tool_calls":null,"refusal":null}],
          "max_completion_tokens":9,"max_tokens":9,"logprobs":true,"top_logprobs":2,
          "tools":[],"tool_choice":"none","response_format":{"type":"text"},"modalities":["text"],
          "parallel_tool_calls":true,"service_tier":"auto","stop":"x"})",
      {});
  ASSERT_TRUE(chat) << chat.error().message;
  ASSERT_EQ(chat->messages.size(), 3u);
  EXPECT_EQ(chat->messages[0].role, "system");
  EXPECT_EQ(chat->messages[1].content, "AB");
  EXPECT_EQ(chat->max_tokens, 9u);
  EXPECT_EQ(chat->logprobs, 2u);
  EXPECT_EQ(chat->service_tier, "auto");
  EXPECT_TRUE(chat->unknown.empty());
}

TEST(Chat, MaxTokensMayBeLeftOpen) {
  const auto chat = parse_chat_request("{\"model\":\"m\"" HI "}", {});
  ASSERT_TRUE(chat);
  EXPECT_FALSE(chat->max_tokens);
}

TEST(Tokenize, TakesAPromptOrMessages) {
  EXPECT_EQ(parse_tokenize_request(R"({"prompt":"a"})", {})->prompt, "a");
  EXPECT_TRUE(parse_tokenize_request("{\"model\":\"m\"" HI "}", {})->messages);
  EXPECT_EQ(parse_tokenize_request(R"({"model":"m"})", {}).error().param, "prompt");
  EXPECT_EQ(parse_tokenize_request("{\"prompt\":\"a\"" HI "}", {}).error().param, "prompt");
  EXPECT_THAT(parse_detokenize_request(R"({"tokens":[1,2]})", {})->tokens, ElementsAre(1, 2));
  EXPECT_EQ(parse_detokenize_request(R"({"tokens":"1"})", {}).error().param, "tokens");
  EXPECT_EQ(parse_detokenize_request(R"({})", {}).error().param, "tokens");
}

}  // namespace
}  // namespace baton::router
