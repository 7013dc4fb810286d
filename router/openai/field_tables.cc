#include "router/openai/field_tables.h"

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <iterator>
#include <string_view>

#include "common/formats/utf8.h"

namespace baton::router {
namespace {

namespace json = boost::json;

// The value of an unsupported field that asks for nothing and is let through.
enum class Neutral {
  kNothing,  // only null
  kFalse,
  kEmpty,  // "", [] or {}
  kNone,   // "none"
  kZero,
  kOne,
  kTextFormat,  // {"type": "text"}
  kTextOnly,    // ["text"]
};

enum Where : unsigned { kInChat = 1, kInCompletions = 2, kInTokenize = 4, kEverywhere = 7 };

struct Unsupported {
  std::string_view name;
  Neutral neutral;
  unsigned where;
};

constexpr Unsupported kUnsupported[] = {
    // OpenAI
    {"tools", Neutral::kEmpty, kEverywhere},
    {"tool_choice", Neutral::kNone, kEverywhere},
    {"functions", Neutral::kEmpty, kEverywhere},
    {"function_call", Neutral::kNone, kEverywhere},
    {"response_format", Neutral::kTextFormat, kEverywhere},
    {"modalities", Neutral::kTextOnly, kEverywhere},
    {"audio", Neutral::kNothing, kEverywhere},
    {"prediction", Neutral::kNothing, kEverywhere},
    {"web_search_options", Neutral::kNothing, kEverywhere},
    {"reasoning_effort", Neutral::kNone, kEverywhere},
    {"verbosity", Neutral::kNothing, kEverywhere},
    {"suffix", Neutral::kEmpty, kEverywhere},
    // vLLM
    {"use_beam_search", Neutral::kFalse, kEverywhere},
    {"length_penalty", Neutral::kNothing, kEverywhere},
    {"guided_json", Neutral::kNothing, kEverywhere},
    {"guided_regex", Neutral::kNothing, kEverywhere},
    {"guided_choice", Neutral::kNothing, kEverywhere},
    {"guided_grammar", Neutral::kNothing, kEverywhere},
    {"structured_outputs", Neutral::kNothing, kEverywhere},
    {"bad_words", Neutral::kEmpty, kEverywhere},
    {"allowed_token_ids", Neutral::kNothing, kEverywhere},
    {"prompt_logprobs", Neutral::kNothing, kEverywhere},
    {"prompt_embeds", Neutral::kNothing, kEverywhere},
    {"truncate_prompt_tokens", Neutral::kNothing, kEverywhere},
    {"return_tokens_as_token_ids", Neutral::kFalse, kEverywhere},
    {"return_token_ids", Neutral::kFalse, kEverywhere},
    {"include_stop_str_in_output", Neutral::kFalse, kEverywhere},
    {"logits_processors", Neutral::kEmpty, kEverywhere},
    {"kv_transfer_params", Neutral::kNothing, kEverywhere},
    {"vllm_xargs", Neutral::kNothing, kEverywhere},
    {"priority", Neutral::kZero, kEverywhere},
    {"continue_final_message", Neutral::kFalse, kEverywhere},
    {"chat_template", Neutral::kNothing, kEverywhere},
    {"chat_template_kwargs", Neutral::kEmpty, kEverywhere},
    {"documents", Neutral::kEmpty, kEverywhere},
    {"mm_processor_kwargs", Neutral::kNothing, kEverywhere},
    // Served, but not there.
    {"add_generation_prompt", Neutral::kNothing, kInCompletions},
    {"add_special_tokens", Neutral::kFalse, kInChat},
    {"best_of", Neutral::kOne, kInChat},
    {"echo", Neutral::kFalse, kInChat},
    {"messages", Neutral::kEmpty, kInCompletions},
    {"prompt", Neutral::kEmpty, kInChat},
    {"top_logprobs", Neutral::kZero, kInCompletions},
};

// Sorted.
constexpr std::string_view kWithoutEffect[] = {
    "include_reasoning",
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "request_id",
    "safety_identifier",
    "spaces_between_special_tokens",
    "store",
    "user",
};

// Sorted.
constexpr std::string_view kServed[] = {
    "add_generation_prompt",
    "add_special_tokens",
    "best_of",
    "cache_salt",
    "echo",
    "frequency_penalty",
    "ignore_eos",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "min_p",
    "min_tokens",
    "model",
    "n",
    "presence_penalty",
    "prompt",
    "repetition_penalty",
    "return_token_strs",
    "seed",
    "service_tier",
    "skip_special_tokens",
    "stop",
    "stop_token_ids",
    "stream",
    "stream_options",
    "temperature",
    "tokens",
    "top_k",
    "top_logprobs",
    "top_p",
};

bool asks_for_nothing(const json::value& value, Neutral neutral) {
  switch (neutral) {
    case Neutral::kNothing:
      return false;
    case Neutral::kFalse:
      return value.is_bool() && !value.get_bool();
    case Neutral::kZero:
      return json_to_int(value) == 0;
    case Neutral::kOne:
      return json_to_int(value) == 1;
    case Neutral::kNone:
      return value.is_string() && value.get_string() == "none";
    case Neutral::kEmpty:
      return (value.is_string() && value.get_string().empty()) ||
             (value.is_array() && value.get_array().empty()) ||
             (value.is_object() && value.get_object().empty());
    case Neutral::kTextFormat: {
      const json::object* object = value.if_object();
      const json::value* type = object ? object->if_contains("type") : nullptr;
      return type && type->is_string() && type->get_string() == "text";
    }
    case Neutral::kTextOnly: {
      const json::array* array = value.if_array();
      return array && array->size() == 1 && (*array)[0].is_string() &&
             (*array)[0].get_string() == "text";
    }
  }
  return false;
}

unsigned where(Endpoint endpoint) {
  switch (endpoint) {
    case Endpoint::kChat:
      return kInChat;
    case Endpoint::kCompletions:
      return kInCompletions;
    case Endpoint::kTokenize:
      return kInTokenize;
  }
  return kEverywhere;
}

bool is_known(std::string_view name, Endpoint endpoint) {
  return std::ranges::binary_search(kServed, name) ||
         std::ranges::binary_search(kWithoutEffect, name) ||
         std::ranges::any_of(kUnsupported, [&](const Unsupported& field) {
           return field.name == name && (field.where & where(endpoint));
         });
}

}  // namespace

api_status refuse_unsupported(const Fields& fields, Endpoint endpoint) {
  for (const Unsupported& field : kUnsupported) {
    if (!(field.where & where(endpoint))) continue;
    const json::value* value = fields.find(field.name);
    if (value && !asks_for_nothing(*value, field.neutral)) {
      return unsupported_field(fields.path_of(field.name), field.where == kEverywhere
                                                               ? "is not supported by this server"
                                                               : "is not supported on this path");
    }
  }
  return {};
}

std::vector<std::string> unknown_fields(const Fields& fields, Endpoint endpoint) {
  constexpr size_t kMost = 8;
  std::vector<std::string> unknown;
  for (const auto& member : fields.object()) {
    if (unknown.size() == kMost) break;
    const std::string_view name(member.key().data(), member.key().size());
    if (!is_known(name, endpoint)) unknown.push_back(formats::printable(name));
  }
  return unknown;
}

}  // namespace baton::router
