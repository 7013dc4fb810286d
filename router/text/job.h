#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "router/dispatch/actions.h"
#include "router/openai/chat_request.h"
#include "router/openai/completion_request.h"
#include "router/placement/worker_pool.h"
#include "router/text/served_model.h"

namespace baton::router {

// A request of either API once its text is token ids: from here on both go the same way.
struct Job {
  enum class Api { kChat, kCompletions };
  Api api = Api::kChat;
  std::vector<std::vector<TokenId>> prompts;
  std::optional<uint32_t> max_tokens;  // nothing: to the context's end
  uint32_t n = 1;                      // choices of each prompt
  bool echo = false;
  std::optional<uint32_t> logprobs;
  std::string cache_salt;
  std::optional<std::string> service_tier;
  SamplingFields sampling;
  StreamFields stream;
  std::vector<std::string> unknown;

  // `max_tokens` is 0: the worker draws one token, which is not shown.
  bool echo_only() const { return max_tokens == 0u; }
  uint32_t num_choices() const { return static_cast<uint32_t>(prompts.size()) * n; }
  uint64_t prompt_tokens() const;
};

// May take long for long prompts; needs only the model, so any thread may do it.
api_result<Job> encode_job(CompletionRequest request, const ServedModel& model);
api_result<Job> encode_job(ChatRequest request, const ServedModel& model);

// Checks ids, lengths and counts against what the workers can do, and settles max_tokens.
api_status admit_job(Job& job, const ModelCapacity& capacity);

// What the dispatcher is to do for prompt `part`. `seed` is used where the client gave none.
RequestInput make_input(const Job& job, size_t part, const ServedModel& model, uint64_t seed);

}  // namespace baton::router
