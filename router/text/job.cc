#include "router/text/job.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <variant>

namespace baton::router {
namespace {

// The fields that both requests have.
template <class Request>
Job start_job(Request& request, Job::Api api) {
  Job job;
  job.api = api;
  job.max_tokens = request.max_tokens;
  job.n = request.n;
  job.logprobs = request.logprobs;
  job.cache_salt = std::move(request.cache_salt);
  job.service_tier = std::move(request.service_tier);
  job.sampling = std::move(request.sampling);
  job.stream = request.stream;
  job.unknown = std::move(request.unknown);
  return job;
}

std::string_view prompt_field(const Job& job) {
  return job.api == Job::Api::kChat ? "messages" : "prompt";
}

ApiError too_long(const Job& job, uint32_t context, size_t prompt, uint64_t wanted) {
  return {.message = fmt::format("This model's maximum context length is {} tokens. However, the "
                                 "request has {} tokens: {} in the {} and {} in the completion. "
                                 "Please reduce the length of either.",
                                 context, prompt + wanted, prompt, prompt_field(job), wanted),
          .param = std::string(prompt_field(job)),
          .code = "context_length_exceeded"};
}

api_status check_prompt(const Job& job, const std::vector<TokenId>& prompt,
                        const ModelCapacity& capacity) {
  const std::string_view field = prompt_field(job);
  if (prompt.empty()) return bad_field(field, "has no tokens");
  const TokenId highest = *std::ranges::max_element(prompt);
  if (static_cast<uint32_t>(highest) >= capacity.vocab_size) {
    return bad_field(field, fmt::format("has token id {}, but the vocabulary ends at {}", highest,
                                        capacity.vocab_size - 1));
  }
  const uint64_t wanted = std::max<uint64_t>(job.max_tokens.value_or(1), 1);
  if (prompt.size() + wanted > capacity.max_context) {
    return too_long(job, capacity.max_context, prompt.size(), wanted);
  }
  return {};
}

// An echoed prompt's scores are sent at once, for each choice: what one answer can hold is bounded.
api_status check_scores(const Job& job) {
  constexpr uint64_t kMost = uint64_t{1} << 20;
  if (!job.echo || !job.logprobs) return {};
  const uint64_t scores = job.prompt_tokens() * job.n * (1 + uint64_t{*job.logprobs});
  if (scores <= kMost) return {};
  return bad_field("logprobs", fmt::format("with 'echo' asks for {} log probabilities of the "
                                           "prompt; at most {} are given",
                                           scores, kMost));
}

}  // namespace

uint64_t Job::prompt_tokens() const {
  uint64_t sum = 0;
  for (const auto& prompt : prompts) sum += prompt.size();
  return sum;
}

api_result<Job> encode_job(CompletionRequest request, const ServedModel& model) {
  Job job = start_job(request, Job::Api::kCompletions);
  job.echo = request.echo;
  for (Prompt& prompt : request.prompts) {
    if (auto* ids = std::get_if<std::vector<TokenId>>(&prompt)) {
      job.prompts.push_back(std::move(*ids));
    } else {
      BATON_TRY(std::vector<TokenId> encoded,
                model.encode_prompt(std::get<std::string>(prompt), request.add_special_tokens));
      job.prompts.push_back(std::move(encoded));
    }
  }
  return job;
}

api_result<Job> encode_job(ChatRequest request, const ServedModel& model) {
  Job job = start_job(request, Job::Api::kChat);
  BATON_TRY(std::vector<TokenId> encoded,
            model.encode_chat(request.messages, request.add_generation_prompt));
  job.prompts.push_back(std::move(encoded));
  return job;
}

api_status admit_job(Job& job, const ModelCapacity& capacity) {
  for (const auto& prompt : job.prompts) BATON_CHECK_OK(check_prompt(job, prompt, capacity));
  BATON_CHECK_OK(check_token_ids(job.sampling, capacity.vocab_size));
  if (job.n > capacity.max_sequences) {
    return bad_field("n", fmt::format("must be at most {}, not {}", capacity.max_sequences, job.n));
  }
  BATON_CHECK_OK(check_scores(job));
  if (!job.max_tokens) {
    const auto& longest = *std::ranges::max_element(
        job.prompts, {}, [](const std::vector<TokenId>& prompt) { return prompt.size(); });
    job.max_tokens = capacity.max_context - static_cast<uint32_t>(longest.size());
  }
  if (job.sampling.min_tokens > *job.max_tokens) {
    return bad_field("min_tokens", fmt::format("must be at most max_tokens, which is {}, not {}",
                                               *job.max_tokens, job.sampling.min_tokens));
  }
  return {};
}

RequestInput make_input(const Job& job, size_t part, const ServedModel& model, uint64_t seed) {
  const SamplingFields& from = job.sampling;
  RequestInput input;
  input.model = model.name();
  input.prompt = job.prompts[part];
  input.max_tokens = std::max(job.max_tokens.value_or(1), 1u);
  input.choices = job.n;
  input.salt = job.cache_salt;
  if (job.echo && job.logprobs) input.prompt_logprobs = static_cast<int32_t>(*job.logprobs);

  proto::Sampling& to = input.sampling;
  to.set_temperature(from.temperature);
  to.set_top_k(from.top_k);
  to.set_top_p(from.top_p);
  to.set_min_p(from.min_p);
  to.set_repetition_penalty(from.repetition_penalty);
  to.set_presence_penalty(from.presence_penalty);
  to.set_frequency_penalty(from.frequency_penalty);
  to.set_seed(from.seed.value_or(seed));
  to.set_min_tokens(from.min_tokens);
  to.set_ignore_eos(from.ignore_eos);
  to.set_want_logprobs(job.logprobs.has_value());
  to.set_logprobs(job.logprobs.value_or(0));
  for (const auto& [token, bias] : from.logit_bias) {
    proto::LogitBias& entry = *to.add_logit_bias();
    entry.set_token(token);
    entry.set_bias(bias);
  }
  to.mutable_stop_tokens()->Add(from.stop_token_ids.begin(), from.stop_token_ids.end());

  input.end_tokens = from.stop_token_ids;
  if (!from.ignore_eos) {
    const auto eos = model.tokenizer().eos();
    input.end_tokens.insert(input.end_tokens.end(), eos.begin(), eos.end());
  }
  return input;
}

}  // namespace baton::router
