#include "router/openai/tokenize_request.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <utility>

#include "router/openai/completion_request.h"
#include "router/openai/field_tables.h"

namespace baton::router {
namespace {

namespace json = boost::json;

api_result<std::string> optional_model(const Fields& fields) {
  if (!fields.find("model")) return std::string();
  return parse_model(fields);
}

}  // namespace

api_result<TokenizeRequest> parse_tokenize_request(std::string_view body,
                                                   const RequestLimits& limits) {
  BATON_TRY(const json::value root, parse_body(body, limits));
  const Fields fields(root.get_object());
  BATON_CHECK_OK(refuse_unsupported(fields, Endpoint::kTokenize));
  TokenizeRequest out;
  BATON_TRY(out.model, optional_model(fields));
  BATON_TRY(const auto prompt, fields.string("prompt", limits.max_body_bytes));
  if (fields.find("messages")) {
    if (prompt) return fields.bad("prompt", "and 'messages' cannot both be given");
    BATON_TRY(out.messages, parse_messages(fields, limits));
  } else if (!prompt) {
    return fields.bad("prompt", "or 'messages' is required");
  }
  out.prompt = prompt.value_or("");
  BATON_TRY(out.add_special_tokens, fields.boolean_or("add_special_tokens", true));
  BATON_TRY(out.add_generation_prompt, fields.boolean_or("add_generation_prompt", true));
  BATON_TRY(out.return_token_strings, fields.boolean_or("return_token_strs", false));
  return out;
}

api_result<DetokenizeRequest> parse_detokenize_request(std::string_view body,
                                                       const RequestLimits& limits) {
  BATON_TRY(const json::value root, parse_body(body, limits));
  const Fields fields(root.get_object());
  DetokenizeRequest out;
  BATON_TRY(out.model, optional_model(fields));
  const json::value* tokens = fields.find("tokens");
  if (!tokens) return fields.bad("tokens", "is required");
  if (!tokens->is_array()) return fields.bad("tokens", "must be an array of token ids");
  BATON_TRY(out.tokens, parse_token_ids("tokens", tokens->get_array()));
  return out;
}

}  // namespace baton::router
