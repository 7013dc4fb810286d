#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/engine/step.h"
#include "common/kvcache/prefix.h"
#include "common/ops/ops.h"

// What both schedulers of a worker know about a request.
namespace baton::engine {

// How the outputs of a request are drawn and when they end. All choices share it; each draws for
// itself by its index.
struct Sampling {
  ops::SamplingParams params;
  std::vector<ops::LogitBias> logit_bias;
  std::vector<TokenId> stop_tokens;  // stop ids, and the model's EOS unless it is ignored
  uint32_t max_tokens = 0;           // output tokens in all, those of a resumed request included
  uint32_t num_choices = 1;
  uint32_t first_choice = 0;  // index of the first; a resumed request is one choice of the original
};

struct Request {
  RequestKey key;
  std::vector<TokenId> tokens;  // the prompt; on a resume, then the output tokens delivered
  uint32_t prompt_tokens = 0;   // how many of them are prompt
  Sampling sampling;
  std::string salt;      // separates tenants' prefixes
  int32_t priority = 0;  // lower goes first
  TimePoint arrival;
  TimePoint deadline = TimePoint::max();
  // By when its first token is wanted. Prompts are computed in this order, and what comes without a
  // wish is wanted when it arrives: so the order is that of arrival where nobody wishes anything.
  std::optional<TimePoint> due;

  TimePoint wanted() const { return due.value_or(arrival); }
  uint32_t num_tokens() const { return static_cast<uint32_t>(tokens.size()); }
};

enum class FinishReason : uint8_t { kStop, kLength };

struct Finish {
  FinishReason reason = FinishReason::kLength;
  TokenId stop_token = -1;  // kStop: the one that did it
  friend bool operator==(const Finish&, const Finish&) = default;
};

// Whether an output ends with `token`, drawn as its token number `index` (from 0).
inline std::optional<Finish> finish_of(const Sampling& sampling, uint32_t index, TokenId token) {
  for (const TokenId stop : sampling.stop_tokens) {
    if (token == stop) return Finish{FinishReason::kStop, token};
  }
  if (index + 1 >= sampling.max_tokens) return Finish{FinishReason::kLength};
  return std::nullopt;
}

// A sampler for one choice of `request`, `tokens` being all that stands before its next token.
inline SlotOpen open_slot(SlotId slot, const Request& request, std::vector<TokenId> tokens,
                          uint32_t choice) {
  const Sampling& sampling = request.sampling;
  return {slot,
          sampling.params,
          sampling.logit_bias,
          sampling.stop_tokens,
          std::move(tokens),
          request.prompt_tokens,
          choice};
}

// A computed prompt on its way from the prefill to the decode scheduler of the same worker. Carries
// one reference to each block and the open slots.
struct HandOver {
  Request request;
  std::vector<BlockId> table;         // covers request.tokens
  kvcache::PrefixHash chain;          // of the last full block of the tokens, or the root
  std::vector<SlotId> slots;          // [num_choices]
  std::vector<TokenId> first_tokens;  // [num_choices], drawn and delivered
};

}  // namespace baton::engine
