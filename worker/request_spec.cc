#include "worker/request_spec.h"

#include <algorithm>
#include <cmath>

namespace baton::worker {
namespace {

constexpr seconds kLongestDeadline{24 * 3600};

Error bad(std::string what) { return error(Errc::kInvalidArgument, "request: " + std::move(what)); }

status check_tokens(const engine::Request& r, const RequestLimits& limits) {
  const auto outside = [&](TokenId token) {
    return token < 0 || static_cast<uint32_t>(token) >= limits.vocab_size;
  };
  bool any = false;
  for (const TokenId token : r.tokens) any |= outside(token);  // all of them, several at a time
  if (any) {
    return bad("a token is outside the vocabulary");
  }
  const auto& stops = r.sampling.stop_tokens;
  if (std::any_of(stops.begin(), stops.end(), outside)) {
    return bad("a stop token is outside the vocabulary");
  }
  for (const auto& b : r.sampling.logit_bias) {
    if (outside(b.token)) return bad("a token of logit_bias is outside the vocabulary");
  }
  return {};
}

result<ops::SamplingParams> parse_sampling(const proto::Sampling& s) {
  ops::SamplingParams p;
  p.temperature = s.temperature();
  p.top_k = s.top_k();
  p.top_p = s.top_p();
  p.min_p = s.min_p();
  p.repetition_penalty = s.repetition_penalty();
  p.presence_penalty = s.presence_penalty();
  p.frequency_penalty = s.frequency_penalty();
  p.seed = s.seed();
  p.min_tokens = s.min_tokens();
  p.ignore_eos = s.ignore_eos();
  p.want_logprobs = s.want_logprobs();
  p.logprobs = s.logprobs();
  for (const float f : {p.temperature, p.top_p, p.min_p, p.repetition_penalty, p.presence_penalty,
                        p.frequency_penalty}) {
    if (!std::isfinite(f)) return bad("sampling has a value that is not finite");
  }
  if (p.temperature < 0) return bad("temperature is below 0");
  if (p.top_p <= 0 || p.top_p > 1) return bad("top_p is not in (0, 1]");
  if (p.min_p < 0 || p.min_p > 1) return bad("min_p is not in [0, 1]");
  if (p.repetition_penalty <= 0) return bad("repetition_penalty is not above 0");
  if (p.logprobs > ops::kMaxTopLogprobs) return bad("logprobs is over 20");
  return p;
}

status check_sizes(const proto::RequestSpec& s, const RequestLimits& limits) {
  const auto tokens = static_cast<uint32_t>(s.tokens_size());
  if (s.request() == 0) return bad("request id is 0");
  if (tokens == 0) return bad("no tokens");
  if (tokens > limits.max_context) {
    return bad(std::to_string(tokens) + " tokens; at most " + std::to_string(limits.max_context) +
               " fit");
  }
  if (s.prompt_tokens() == 0 || s.prompt_tokens() > tokens) {
    return bad("prompt_tokens is not in [1, " + std::to_string(tokens) + "]");
  }
  if (s.choices() == 0 || s.choices() > limits.max_choices) {
    return bad("choices is not in [1, " + std::to_string(limits.max_choices) + "]");
  }
  if (s.first_choice() > limits.max_first_choice) return bad("first_choice is too large");
  if (s.choices() > 1 && s.prompt_tokens() != tokens) {
    return bad("a resume serves one choice");
  }
  if (static_cast<uint32_t>(s.sampling().stop_tokens_size()) > limits.max_stop_tokens) {
    return bad("too many stop_tokens");
  }
  if (static_cast<uint32_t>(s.sampling().logit_bias_size()) > limits.max_logit_bias) {
    return bad("too many entries in logit_bias");
  }
  return {};
}

}  // namespace

result<engine::Request> parse_spec(const proto::RequestSpec& s, RouterId router,
                                   const RequestLimits& limits, TimePoint now) {
  BATON_CHECK_OK(check_sizes(s, limits));
  engine::Request r;
  r.key = {router, RequestId(s.request()), Generation(s.generation())};
  r.tokens.assign(s.tokens().begin(), s.tokens().end());
  r.prompt_tokens = s.prompt_tokens();
  r.salt = s.salt();
  r.arrival = now;
  const auto longest = std::chrono::duration_cast<microseconds>(kLongestDeadline).count();
  r.deadline = now + microseconds(std::min(s.deadline_us(), static_cast<uint64_t>(longest)));
  r.priority = s.priority();
  if (s.due_us() != 0)
    r.due = now + microseconds(std::clamp<int64_t>(s.due_us(), -longest, longest));

  engine::Sampling& sampling = r.sampling;
  BATON_TRY(sampling.params, parse_sampling(s.sampling()));
  sampling.max_tokens = s.max_tokens();
  sampling.num_choices = s.choices();
  sampling.first_choice = s.first_choice();
  for (const auto& b : s.sampling().logit_bias()) {
    if (!std::isfinite(b.bias())) return bad("logit_bias is not finite");
    sampling.logit_bias.push_back({b.token(), b.bias()});
  }
  sampling.stop_tokens.assign(s.sampling().stop_tokens().begin(), s.sampling().stop_tokens().end());
  if (!sampling.params.ignore_eos) {
    sampling.stop_tokens.insert(sampling.stop_tokens.end(), limits.eos.begin(), limits.eos.end());
  }
  BATON_CHECK_OK(check_tokens(r, limits));
  return r;
}

}  // namespace baton::worker
