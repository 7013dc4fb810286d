#include "common/text/chat_template.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/text/golden_files.h"

namespace baton::text {
namespace {

using namespace std::chrono_literals;

ChatOptions default_options() {
  ChatOptions options;
  options.bos_token = "<s>";
  options.eos_token = "</s>";
  options.now = std::chrono::local_days{std::chrono::July / 26 / 2024} + 15h + 4min + 5s;
  return options;
}

std::vector<ChatMessage> messages_of(const boost::json::value& conversation) {
  std::vector<ChatMessage> out;
  for (const auto& message : conversation.as_array()) {
    out.push_back({text_of(message.at("role")), text_of(message.at("content"))});
  }
  return out;
}

ChatTemplate load(const std::string& name) {
  return *ChatTemplate::parse(read_data("templates/" + name), name);
}

TEST(ChatTemplate, FamiliesGiveWhatJinja2Gives) {
  const auto conversations = boost::json::parse(read_data("conversations.json"));
  size_t rendered = 0, refused = 0;
  for (const auto& row : read_json_lines("chat_cases.jsonl")) {
    ChatOptions options = default_options();
    for (const auto& [name, value] : row.at("options").as_object()) {
      if (name == "add_generation_prompt") {
        options.add_generation_prompt = value.as_bool();
      } else {
        options.variables[name] = value;
      }
    }
    const auto messages = messages_of(conversations.at(row.at("conversation").to_number<size_t>()));
    const auto got = load(text_of(row.at("template"))).render(messages, options);
    if (const auto* expected = row.as_object().if_contains("expected")) {
      ASSERT_TRUE(got) << row << "\n" << (got ? "" : got.error().message);
      EXPECT_EQ(*got, text_of(*expected)) << row;
      ++rendered;
    } else {
      EXPECT_FALSE(got) << row;
      ++refused;
    }
  }
  EXPECT_GE(rendered, 250u);
  EXPECT_GE(refused, 20u);
}

TEST(ChatTemplate, RefusalOfTheTemplateIsTheCallersError) {
  const auto out =
      load("llama2.jinja").render(std::vector<ChatMessage>{{"assistant", "x"}}, default_options());
  EXPECT_EQ(out.error().code, Errc::kInvalidArgument);
  EXPECT_EQ(out.error().message,
            "chat template of llama2.jinja, line 1: Roles must alternate: "
            "user, assistant, user, ...");
}

TEST(ChatTemplate, ContentIsNeverTemplate) {
  const auto simple = *ChatTemplate::parse("{{ messages[0].content }}", "t");
  EXPECT_EQ(*simple.render(std::vector<ChatMessage>{{"user", "{{ 1 + 1 }}{% if %}"}}),
            "{{ 1 + 1 }}{% if %}");
}

TEST(ChatTemplate, MissingTokensAreUndefined) {
  const auto simple = *ChatTemplate::parse("{{ bos_token is defined }} {{ tools is none }}", "t");
  EXPECT_EQ(*simple.render({}), "False True");
}

TEST(ChatTemplate, VariablesWinButNotOverMessages) {
  ChatOptions options;
  options.variables = {{"messages", "no"}, {"tools", "yes"}, {"n", 1}};
  const auto simple = *ChatTemplate::parse("{{ messages|length }}{{ tools }}{{ n }}", "t");
  EXPECT_EQ(*simple.render({}, options), "0yes1");
}

TEST(ChatTemplate, BadUtf8IsRefused) {
  EXPECT_FALSE(ChatTemplate::parse("\xff", "t"));
  const auto simple = *ChatTemplate::parse("{{ messages[0].content }}", "t");
  EXPECT_EQ(simple.render(std::vector<ChatMessage>{{"user", "a\xf0\x9f"}}).error().code,
            Errc::kInvalidArgument);
}

TEST(ChatTemplate, LongConversationStaysWithinDefaults) {
  std::vector<ChatMessage> messages;
  for (int i = 0; i < 2'000; ++i) {
    messages.push_back({i % 2 == 0 ? "user" : "assistant", std::string(1'000, 'x')});
  }
  messages.push_back({"user", std::string(1'000'000, 'y')});
  for (const char* name : {"smollm2.jinja", "llama31.jinja", "qwen3.jinja", "mistral.jinja"}) {
    const auto out = load(name).render(messages, default_options());
    ASSERT_TRUE(out) << name << ": " << (out ? "" : out.error().message);
    EXPECT_GT(out->size(), 3'000'000u);
  }
}

TEST(ChatTemplate, ManyThreadsRenderOne) {
  const ChatTemplate shared = load("qwen3.jinja");
  const std::vector<ChatMessage> messages = {{"user", "a"}, {"assistant", "b"}, {"user", "c"}};
  const std::string expected = *shared.render(messages, default_options());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) EXPECT_EQ(*shared.render(messages, default_options()), expected);
    });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace baton::text
