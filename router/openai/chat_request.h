#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "router/openai/sampling.h"

namespace baton::router {

struct ChatMessage {
  std::string role;     // "system", "user", "assistant"
  std::string content;  // text parts joined
};

// POST /v1/chat/completions, checked as far as it can be without the model.
struct ChatRequest {
  std::string model;
  std::vector<ChatMessage> messages;   // at least one
  std::optional<uint32_t> max_tokens;  // nothing: to the context's end
  uint32_t n = 1;
  std::optional<uint32_t> logprobs;  // alternatives for each token
  bool add_generation_prompt = true;
  std::string cache_salt;
  std::optional<std::string> service_tier;  // a class of service, by any of its names
  SamplingFields sampling;
  StreamFields stream;
  std::vector<std::string> unknown;  // fields that were ignored
};

api_result<ChatRequest> parse_chat_request(std::string_view body, const RequestLimits& limits);

// "messages": text only, of the three roles ("developer" counts as "system").
api_result<std::vector<ChatMessage>> parse_messages(const Fields& fields,
                                                    const RequestLimits& limits);

}  // namespace baton::router
