#include "router/openai/answer_format.h"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cmath>
#include <limits>

#include "router/openai/json_writer.h"

namespace baton::router {
namespace {

namespace json = boost::json;

json::value data_of(const std::string& event) {
  EXPECT_EQ(event.substr(0, 6), "data: ");
  EXPECT_EQ(event.substr(event.size() - 2), "\n\n");
  return json::parse(event.substr(6));
}

AnswerFormat format(AnswerHead::Kind kind, bool logprobs = false, bool usage = false) {
  return AnswerFormat({kind, "id-1", 1700000000, "m", "f", logprobs, usage});
}

TEST(JsonWriter, EscapesWhatJsonMustAndNothingElse) {
  std::string text;
  for (int c = 0; c < 0x80; ++c) text += static_cast<char>(c);
  text += "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80";
  std::string out;
  append_json_string(out, text);
  EXPECT_EQ(json::parse(out).as_string(), text);
}

TEST(JsonWriter, MalformedBytesBecomeReplacements) {
  for (const char* bad : {"\xff", "\xc3", "\xe2\x82", "\xed\xa0\x80", "\xc0\x80", "\xf5\x80"}) {
    std::string out;
    append_json_string(out, std::string("a") + bad + "b");
    boost::system::error_code failed;
    const json::value parsed = json::parse(out, failed);
    ASSERT_FALSE(failed) << out;
    EXPECT_NE(std::string(parsed.as_string()).find("\xef\xbf\xbd"), std::string::npos);
  }
}

TEST(JsonWriter, FloatsStayNumbers) {
  for (const float f : {0.0f, -1.5f, 1e-30f, -std::numeric_limits<float>::infinity(), NAN}) {
    std::string out;
    append_json_float(out, f);
    const json::value parsed = json::parse(out);
    EXPECT_EQ(parsed.to_number<float>(), std::isfinite(f) ? f : -9999.0f);
  }
}

TEST(AnswerFormat, ChatEvents) {
  const AnswerFormat chat = format(AnswerHead::Kind::kChat, false, true);
  std::string out;
  chat.append_role_event(out, 1);
  EXPECT_EQ(data_of(out), json::parse(R"({"id":"id-1","object":"chat.completion.chunk",
      "created":1700000000,"model":"m","system_fingerprint":"f","choices":[{"index":1,
      "delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],
      "usage":null})"));
  out.clear();
  chat.append_event(out, {1, "a\"b", {}, FinishReason::kStop}, std::nullopt);
  EXPECT_EQ(data_of(out).at("choices"), json::parse(R"([{"index":1,"delta":{"content":"a\"b"},
      "logprobs":null,"finish_reason":"stop"}])"));
  out.clear();
  chat.append_closing_event(out, Usage{3, 4, 2}, std::nullopt);
  EXPECT_EQ(data_of(out).at("choices").as_array().size(), 0u);
  EXPECT_EQ(data_of(out).at("usage"), json::parse(R"({"prompt_tokens":3,"completion_tokens":4,
      "total_tokens":7,"prompt_tokens_details":{"cached_tokens":2}})"));
}

TEST(AnswerFormat, ChatBodyWithLogprobs) {
  const AnswerFormat chat = format(AnswerHead::Kind::kChat, true);
  ChoicePiece piece{0, "\xc3\xa9", {{"\xc3", -0.5f, {{"\xc3", -0.5f}, {"b", -2.0f}}, 0}}, {}};
  piece.finish = FinishReason::kLength;
  const json::value body = json::parse(chat.body({piece}, {1, 1, 0}, std::nullopt));
  EXPECT_EQ(body.at("object").as_string(), "chat.completion");
  const json::value& choice = body.at("choices").at(0);
  EXPECT_EQ(choice.at("message"),
            json::parse(R"({"role":"assistant","content":"é","refusal":null})"));
  EXPECT_EQ(choice.at("finish_reason").as_string(), "length");
  const json::value& entry = choice.at("logprobs").at("content").at(0);
  EXPECT_EQ(json::serialize(entry.at("bytes")), "[195]");
  EXPECT_EQ(entry.at("top_logprobs").as_array().size(), 2u);
  EXPECT_EQ(entry.at("top_logprobs").at(1).at("token").as_string(), "b");
}

TEST(AnswerFormat, CompletionLogprobsHaveTheTokenItself) {
  const AnswerFormat format_ = format(AnswerHead::Kind::kCompletion, true);
  const ChoicePiece piece{
      0, "ab", {{"a", std::nullopt, {}, 0}, {"b", -3.0f, {{"x", -1.0f}, {"x", -2.0f}}, 1}}, {}};
  const json::value body = json::parse(format_.body({piece}, {}, std::nullopt));
  EXPECT_EQ(body.at("choices").at(0).at("logprobs"),
            json::parse(R"({"tokens":["a","b"],"token_logprobs":[null,-3],
                "top_logprobs":[null,{"x":-1,"b":-3}],"text_offset":[0,1]})"));
}

TEST(AnswerFormat, AlternativesThatReadTheSameAreOneKey) {
  const AnswerFormat format_ = format(AnswerHead::Kind::kCompletion, true);
  const ChoicePiece piece{
      0, "", {{"\xc3", -3.0f, {{"\xe2", -1.0f}, {"\xe3", -2.0f}, {"\xc3", -3.0f}}, 0}}, {}};
  const std::string body = format_.body({piece}, {}, std::nullopt);
  EXPECT_NE(body.find("\"top_logprobs\":[{\"\xef\xbf\xbd\":-1}]"), std::string::npos) << body;
}

TEST(AnswerFormat, TimingsAndErrors) {
  std::string out;
  format(AnswerHead::Kind::kCompletion)
      .append_closing_event(out, std::nullopt, Timings{1.5, 0.25, 640, "posix", "p\"0", "d0", 16});
  const json::value baton = data_of(out).at("baton");
  EXPECT_EQ(baton.at("kv_bytes").to_number<int>(), 640);
  EXPECT_EQ(baton.at("prefill_worker").as_string(), "p\"0");
  out.clear();
  AnswerFormat::append_error_event(out, overloaded("full"));
  EXPECT_EQ(data_of(out), json::parse(R"({"error":{"message":"full","type":"server_error",
      "param":null,"code":"overloaded"}})"));
}

}  // namespace
}  // namespace baton::router
