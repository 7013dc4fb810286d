#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/base/ids.h"
#include "router/openai/fields.h"

namespace baton::router {

// Bounds of what one request may ask for.
struct RequestLimits {
  size_t max_body_bytes = size_t{4} << 20;
  size_t max_json_depth = 16;
  size_t max_prompts = 128;        // in one completions request
  uint32_t max_choices = 128;      // prompts * n
  size_t max_messages = 2048;      // in one chat
  size_t max_content_parts = 256;  // in one message
  size_t max_stop_strings = 16;
  size_t max_stop_bytes = 256;  // of each
  size_t max_stop_tokens = 64;
  size_t max_logit_biases = 1024;
  uint32_t max_logprobs = 20;  // alternatives for each token
};

// The fields of drawing tokens that both APIs share, checked against fixed bounds.
struct SamplingFields {
  float temperature = 1.0f;
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  uint32_t top_k = 0;  // 0: all
  std::optional<uint64_t> seed;
  uint32_t min_tokens = 0;
  bool ignore_eos = false;
  bool skip_special_tokens = true;
  std::vector<std::pair<TokenId, float>> logit_bias;
  std::vector<std::string> stop;
  std::vector<TokenId> stop_token_ids;
};

api_result<SamplingFields> parse_sampling(const Fields& fields, const RequestLimits& limits);

// How the answer is to be sent.
struct StreamFields {
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;  // in every chunk
};
api_result<StreamFields> parse_stream(const Fields& fields);

// Which logits and ids the vocabulary has is known once the model is.
api_status check_token_ids(const SamplingFields& sampling, uint32_t vocab_size);

}  // namespace baton::router
