#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "router/openai/sampling.h"

namespace baton::router {

// Text to encode, or token ids as they are.
using Prompt = std::variant<std::string, std::vector<TokenId>>;

// POST /v1/completions, checked as far as it can be without the model.
struct CompletionRequest {
  std::string model;
  std::vector<Prompt> prompts;  // at least one
  uint32_t max_tokens = 16;     // 0 only with echo
  uint32_t n = 1;
  bool echo = false;
  std::optional<uint32_t> logprobs;  // alternatives for each token
  bool add_special_tokens = true;    // to a text prompt
  std::string cache_salt;
  std::optional<std::string> service_tier;  // a class of service, by any of its names
  SamplingFields sampling;
  StreamFields stream;
  std::vector<std::string> unknown;  // fields that were ignored
};

api_result<CompletionRequest> parse_completion_request(std::string_view body,
                                                       const RequestLimits& limits);

// The root object of a body; 400 for what is not one JSON object within the limits, or has a key
// twice, a number out of range or bytes that are not UTF-8.
api_result<boost::json::value> parse_body(std::string_view body, const RequestLimits& limits);

// "model": required and not empty.
api_result<std::string> parse_model(const Fields& fields);

// "max_tokens", or "max_completion_tokens" as its newer name is: of at least `least`; where both
// are given they must agree. Nothing where absent.
api_result<std::optional<uint32_t>> parse_max_tokens(const Fields& fields, uint32_t least);

// "service_tier", whatever it names.
api_result<std::optional<std::string>> parse_service_tier(const Fields& fields);

// An array of token ids; the error says what `field` must be.
api_result<std::vector<TokenId>> parse_token_ids(std::string_view field,
                                                 const boost::json::array& array);

inline constexpr size_t kMaxCacheSaltBytes = 256;
inline constexpr size_t kMaxServiceTierBytes = 64;

}  // namespace baton::router
