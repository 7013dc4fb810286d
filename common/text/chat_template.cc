#include "common/text/chat_template.h"

#include <fmt/format.h>

#include "common/text/jinja/interpreter.h"
#include "common/text/jinja/parser.h"
#include "common/text/utf8.h"

namespace baton::text {

using jinja::Value;

struct ChatTemplate::Parsed {
  std::string file_name;
  jinja::Limits limits;
  jinja::Block block;
};

namespace {

Error located(const std::string& file_name, const Error& e) {
  return error(e.code, fmt::format("chat template of {}, {}", file_name, e.message));
}

result<Value> message_value(const ChatMessage& message) {
  if (find_invalid_utf8(message.role) || find_invalid_utf8(message.content)) {
    return error(Errc::kInvalidArgument, "a message is not valid UTF-8");
  }
  return Value::dict({{"role", message.role}, {"content", message.content}});
}

result<jinja::Variables> variables_of(std::span<const ChatMessage> messages,
                                      const ChatOptions& options) {
  constexpr size_t kMaxVariables = 1000;  // names are looked for one by one
  if (options.variables.size() > kMaxVariables) {
    return error(Errc::kInvalidArgument,
                 fmt::format("more than {} template variables", kMaxVariables));
  }
  std::vector<Value> list;
  list.reserve(messages.size());
  for (const ChatMessage& message : messages) {
    BATON_TRY(Value value, message_value(message));
    list.push_back(std::move(value));
  }
  jinja::Variables out;
  BATON_TRY(Value all, Value::list(std::move(list)));
  out.emplace_back("messages", std::move(all));
  // The first of a name is found: those given win over the ones below.
  for (const auto& [name, json] : options.variables) {
    BATON_TRY(Value value, Value::from_json(json));
    out.emplace_back(name, std::move(value));
  }
  out.emplace_back("add_generation_prompt", options.add_generation_prompt);
  out.emplace_back("tools", jinja::None{});
  out.emplace_back("documents", jinja::None{});
  if (!options.bos_token.empty()) out.emplace_back("bos_token", options.bos_token);
  if (!options.eos_token.empty()) out.emplace_back("eos_token", options.eos_token);
  return out;
}

}  // namespace

result<ChatTemplate> ChatTemplate::parse(std::string_view source, std::string file_name,
                                         const jinja::Limits& limits) {
  if (find_invalid_utf8(source)) {
    return error(Errc::kDataCorrupt,
                 fmt::format("chat template of {} is not valid UTF-8", file_name));
  }
  auto block = jinja::parse(source, limits);
  if (!block) return located(file_name, block.error());
  return ChatTemplate(
      std::make_shared<const Parsed>(Parsed{std::move(file_name), limits, std::move(*block)}));
}

result<std::string> ChatTemplate::render(std::span<const ChatMessage> messages,
                                         const ChatOptions& options) const {
  BATON_TRY(jinja::Variables variables, variables_of(messages, options));
  auto out = jinja::render(parsed_->block, std::move(variables), options.now, parsed_->limits);
  if (!out) return located(parsed_->file_name, out.error());
  return std::move(*out);
}

}  // namespace baton::text
