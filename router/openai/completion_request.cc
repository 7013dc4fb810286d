#include "router/openai/completion_request.h"

#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <limits>
#include <utility>

#include "common/formats/hf_json.h"
#include "router/openai/field_tables.h"

namespace baton::router {
namespace {

namespace json = boost::json;

constexpr std::string_view kPromptShape =
    "must be a string, an array of token ids, or an array of either";

api_result<Prompt> parse_one_prompt(const json::value& value) {
  if (const json::string* text = value.if_string()) {
    if (text->empty()) return bad_field("prompt", "must not be empty");
    return Prompt(std::string(text->data(), text->size()));
  }
  const json::array* ids = value.if_array();
  if (!ids) return bad_field("prompt", kPromptShape);
  if (ids->empty()) return bad_field("prompt", "must not be empty");
  BATON_TRY(std::vector<TokenId> tokens, parse_token_ids("prompt", *ids));
  return Prompt(std::move(tokens));
}

api_result<std::vector<Prompt>> parse_prompts(const Fields& fields, const RequestLimits& limits) {
  const json::value* value = fields.find("prompt");
  if (!value) return bad_field("prompt", "is required");
  std::vector<Prompt> prompts;
  const json::array* array = value->if_array();
  const bool several = array && !array->empty() && !array->front().is_number();
  if (!several) {
    BATON_TRY(Prompt one, parse_one_prompt(*value));
    prompts.push_back(std::move(one));
    return prompts;
  }
  if (array->size() > limits.max_prompts) {
    return bad_field("prompt", fmt::format("must have at most {} prompts, not {}",
                                           limits.max_prompts, array->size()));
  }
  for (const json::value& item : *array) {
    BATON_TRY(Prompt one, parse_one_prompt(item));
    prompts.push_back(std::move(one));
  }
  return prompts;
}

api_status check_best_of(const Fields& fields, uint32_t n) {
  BATON_TRY(const std::optional<int64_t> best_of,
            fields.integer("best_of", 1, std::numeric_limits<int32_t>::max()));
  if (best_of && *best_of != n) {
    return unsupported_field("best_of", "is only supported equal to 'n'");
  }
  return {};
}

}  // namespace

api_result<json::value> parse_body(std::string_view body, const RequestLimits& limits) {
  auto value =
      formats::parse_json(body, "The request body", {limits.max_body_bytes, limits.max_json_depth});
  if (!value) return ApiError{.message = value.error().message, .code = "invalid_json"};
  if (!value->is_object()) {
    return ApiError{.message = "The request body must be a JSON object", .code = "invalid_json"};
  }
  return std::move(*value);
}

api_result<std::string> parse_model(const Fields& fields) {
  constexpr size_t kMaxNameBytes = 256;
  BATON_TRY(const std::optional<std::string_view> model, fields.string("model", kMaxNameBytes));
  if (!model || model->empty()) return fields.bad("model", "is required");
  return std::string(*model);
}

api_result<std::optional<uint32_t>> parse_max_tokens(const Fields& fields, uint32_t least) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  BATON_TRY(const auto older, fields.integer("max_tokens", least, kMost));
  BATON_TRY(const auto newer, fields.integer("max_completion_tokens", least, kMost));
  if (older && newer && *older != *newer) {
    return fields.bad("max_tokens", "and 'max_completion_tokens' must be equal if both are given");
  }
  const std::optional<int64_t> max_tokens = newer ? newer : older;
  if (!max_tokens) return std::nullopt;
  return std::optional<uint32_t>(*max_tokens);
}

api_result<std::optional<std::string>> parse_service_tier(const Fields& fields) {
  BATON_TRY(const auto tier, fields.string("service_tier", kMaxServiceTierBytes));
  if (!tier) return std::nullopt;
  return std::optional<std::string>(*tier);
}

api_result<std::vector<TokenId>> parse_token_ids(std::string_view field, const json::array& array) {
  std::vector<TokenId> tokens;
  tokens.reserve(array.size());
  for (const json::value& item : array) {
    const std::optional<int64_t> id = json_to_int(item);
    if (!id || *id < 0 || *id > std::numeric_limits<TokenId>::max()) {
      return bad_field(field, "must have whole numbers of at least 0 as token ids");
    }
    tokens.push_back(static_cast<TokenId>(*id));
  }
  return tokens;
}

api_result<CompletionRequest> parse_completion_request(std::string_view body,
                                                       const RequestLimits& limits) {
  BATON_TRY(const json::value root, parse_body(body, limits));
  const Fields fields(root.get_object());
  BATON_CHECK_OK(refuse_unsupported(fields, Endpoint::kCompletions));
  CompletionRequest out;
  BATON_TRY(out.model, parse_model(fields));
  BATON_TRY(out.prompts, parse_prompts(fields, limits));
  BATON_TRY(out.echo, fields.boolean_or("echo", false));
  BATON_TRY(const auto max_tokens, parse_max_tokens(fields, out.echo ? 0 : 1));
  BATON_TRY(const int64_t n, fields.integer_or("n", 1, limits.max_choices, 1));
  out.max_tokens = max_tokens.value_or(out.max_tokens);
  out.n = static_cast<uint32_t>(n);
  BATON_CHECK_OK(check_best_of(fields, out.n));
  if (out.prompts.size() * out.n > limits.max_choices) {
    return bad_field("n", fmt::format("times {} prompts must be at most {} choices",
                                      out.prompts.size(), limits.max_choices));
  }
  BATON_TRY(const std::optional<int64_t> logprobs,
            fields.integer("logprobs", 0, limits.max_logprobs));
  if (logprobs) out.logprobs = static_cast<uint32_t>(*logprobs);
  BATON_TRY(out.add_special_tokens, fields.boolean_or("add_special_tokens", true));
  BATON_TRY(const auto salt, fields.string("cache_salt", kMaxCacheSaltBytes));
  out.cache_salt = salt.value_or("");
  BATON_TRY(out.service_tier, parse_service_tier(fields));
  BATON_TRY(out.sampling, parse_sampling(fields, limits));
  BATON_TRY(out.stream, parse_stream(fields));
  out.unknown = unknown_fields(fields, Endpoint::kCompletions);
  return out;
}

}  // namespace baton::router
