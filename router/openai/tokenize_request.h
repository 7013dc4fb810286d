#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "router/openai/chat_request.h"

namespace baton::router {

// POST /tokenize: a prompt, or messages through the chat template.
struct TokenizeRequest {
  std::string model;  // empty: the only one
  std::string prompt;
  std::optional<std::vector<ChatMessage>> messages;
  bool add_special_tokens = true;  // to a prompt
  bool add_generation_prompt = true;
  bool return_token_strings = false;
};
api_result<TokenizeRequest> parse_tokenize_request(std::string_view body,
                                                   const RequestLimits& limits);

// POST /detokenize
struct DetokenizeRequest {
  std::string model;  // empty: the only one
  std::vector<TokenId> tokens;
};
api_result<DetokenizeRequest> parse_detokenize_request(std::string_view body,
                                                       const RequestLimits& limits);

}  // namespace baton::router
