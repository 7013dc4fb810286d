#pragma once

#include <string>
#include <vector>

#include "router/openai/answer_format.h"

// Log probabilities in the shapes of the two APIs.
namespace baton::router {

// {"content": [{"token", "logprob", "bytes", "top_logprobs"}], "refusal": null}
void append_chat_logprobs(std::string& out, const std::vector<TokenScore>& scores);

// {"tokens", "token_logprobs", "top_logprobs", "text_offset"}: lists of equal length. The token
// itself is among its alternatives.
void append_completion_logprobs(std::string& out, const std::vector<TokenScore>& scores);

}  // namespace baton::router
