#include "router/openai/chat_request.h"

#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <limits>
#include <utility>

#include "common/formats/utf8.h"
#include "router/openai/completion_request.h"
#include "router/openai/field_tables.h"

namespace baton::router {
namespace {

namespace json = boost::json;

constexpr size_t kAnySize = std::numeric_limits<size_t>::max();  // the body's cap holds

api_result<std::string> parse_role(const Fields& message) {
  BATON_TRY(const auto role, message.string("role", kAnySize));
  if (!role) return message.bad("role", "is required");
  if (*role == "system" || *role == "user" || *role == "assistant") return std::string(*role);
  if (*role == "developer") return std::string("system");
  if (*role == "tool" || *role == "function") {
    return unsupported_field(message.path_of("role"),
                             fmt::format("'{}' is not supported by this server", *role));
  }
  return message.bad("role", fmt::format("must be system, developer, user or assistant, not '{}'",
                                         formats::printable(*role)));
}

api_status append_part(const json::value& part, const std::string& path, std::string& text) {
  const json::object* object = part.if_object();
  if (!object) return bad_field(path, "must be an object");
  const Fields fields(*object, path + ".");
  BATON_TRY(const auto type, fields.string("type", kAnySize));
  if (!type) return fields.bad("type", "is required");
  if (*type != "text") {
    return unsupported_field(fields.path_of("type"),
                             fmt::format("'{}' is not supported by this server, only 'text'",
                                         formats::printable(*type)));
  }
  BATON_TRY(const auto piece, fields.string("text", kAnySize));
  if (!piece) return fields.bad("text", "is required");
  text += *piece;
  return {};
}

api_result<std::string> parse_content(const Fields& message, const RequestLimits& limits) {
  const json::value* content = message.find("content");
  if (!content) return message.bad("content", "is required");
  if (const json::string* text = content->if_string()) {
    return std::string(text->data(), text->size());
  }
  const json::array* parts = content->if_array();
  if (!parts || parts->empty()) {
    return message.bad("content", "must be a string or an array of text parts");
  }
  if (parts->size() > limits.max_content_parts) {
    return message.bad("content", fmt::format("must have at most {} parts, not {}",
                                              limits.max_content_parts, parts->size()));
  }
  std::string text;
  for (size_t i = 0; i < parts->size(); ++i) {
    const std::string path = message.path_of(fmt::format("content[{}]", i));
    BATON_CHECK_OK(append_part((*parts)[i], path, text));
  }
  return text;
}

api_result<ChatMessage> parse_message(const json::value& value, const std::string& path,
                                      const RequestLimits& limits) {
  const json::object* object = value.if_object();
  if (!object) return bad_field(path, "must be an object");
  const Fields message(*object, path + ".");
  for (const std::string_view name : {"tool_calls", "tool_call_id", "function_call", "audio"}) {
    const json::value* field = message.find(name);
    if (field && !(field->is_array() && field->get_array().empty())) {
      return unsupported_field(message.path_of(name), "is not supported by this server");
    }
  }
  ChatMessage out;
  BATON_TRY(out.role, parse_role(message));
  BATON_TRY(out.content, parse_content(message, limits));
  return out;
}

api_result<std::optional<uint32_t>> parse_logprobs(const Fields& fields,
                                                   const RequestLimits& limits) {
  BATON_TRY(const bool logprobs, fields.boolean_or("logprobs", false));
  BATON_TRY(const auto top, fields.integer("top_logprobs", 0, limits.max_logprobs));
  if (top && *top > 0 && !logprobs) {
    return fields.bad("top_logprobs", "is only allowed with 'logprobs': true");
  }
  if (!logprobs) return std::nullopt;
  return std::optional<uint32_t>(top.value_or(0));
}

}  // namespace

api_result<std::vector<ChatMessage>> parse_messages(const Fields& fields,
                                                    const RequestLimits& limits) {
  const json::value* value = fields.find("messages");
  if (!value) return fields.bad("messages", "is required");
  const json::array* array = value->if_array();
  if (!array || array->empty()) return fields.bad("messages", "must be a non-empty array");
  if (array->size() > limits.max_messages) {
    return fields.bad("messages", fmt::format("must have at most {} messages, not {}",
                                              limits.max_messages, array->size()));
  }
  std::vector<ChatMessage> messages;
  messages.reserve(array->size());
  for (size_t i = 0; i < array->size(); ++i) {
    BATON_TRY(ChatMessage message,
              parse_message((*array)[i], fmt::format("messages[{}]", i), limits));
    messages.push_back(std::move(message));
  }
  return messages;
}

api_result<ChatRequest> parse_chat_request(std::string_view body, const RequestLimits& limits) {
  BATON_TRY(const json::value root, parse_body(body, limits));
  const Fields fields(root.get_object());
  BATON_CHECK_OK(refuse_unsupported(fields, Endpoint::kChat));
  ChatRequest out;
  BATON_TRY(out.model, parse_model(fields));
  BATON_TRY(out.messages, parse_messages(fields, limits));
  BATON_TRY(out.max_tokens, parse_max_tokens(fields, 1));
  BATON_TRY(const int64_t n, fields.integer_or("n", 1, limits.max_choices, 1));
  out.n = static_cast<uint32_t>(n);
  BATON_TRY(out.logprobs, parse_logprobs(fields, limits));
  BATON_TRY(out.add_generation_prompt, fields.boolean_or("add_generation_prompt", true));
  BATON_TRY(const auto salt, fields.string("cache_salt", kMaxCacheSaltBytes));
  out.cache_salt = salt.value_or("");
  BATON_TRY(out.service_tier, parse_service_tier(fields));
  BATON_TRY(out.sampling, parse_sampling(fields, limits));
  BATON_TRY(out.stream, parse_stream(fields));
  out.unknown = unknown_fields(fields, Endpoint::kChat);
  return out;
}

}  // namespace baton::router
