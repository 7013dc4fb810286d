#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/result.h"
#include "common/proto/worker.pb.h"
#include "router/dispatch/choice_stream.h"
#include "router/placement/slo.h"

// What goes into the dispatcher and what comes out of it.
namespace baton::router {

// A request as the workers will see it: checked, tokenized, its seed drawn.
struct RequestInput {
  std::string model;
  std::vector<TokenId> prompt;
  uint32_t max_tokens = 1;  // at least 1
  uint32_t choices = 1;
  proto::Sampling sampling;
  std::string salt;
  std::string trace;
  std::string tenant;  // for views; empty: there are none
  int32_t prompt_logprobs = -1;
  std::vector<TokenId> end_tokens;  // ids that end a choice, unless ignore_eos

  TimePoint deadline;
  RequestSlo slo;
};

// How a request went: for the access log, the waterfall metrics and x-baton-timings.
struct RequestTrail {
  TimePoint submitted;
  std::optional<TimePoint> placed;        // first worker asked
  std::optional<TimePoint> granted;       // first grant, place in line, or a mixed worker
  std::optional<TimePoint> first_token;   // first one delivered
  std::optional<TimePoint> second_token;  // of the first choice
  TimePoint last_token;                   // that was delivered
  std::string prefill_worker;             // names, of the last placement
  std::string decode_worker;
  uint64_t kv_bytes = 0;  // handed off, all legs
  std::string kv_transport;
  // Of the prompt, found when it was first computed: what a retry finds is its own.
  std::optional<uint32_t> cached_tokens;
  uint64_t prefill_queue_us = 0;
  uint64_t prefill_compute_us = 0;
  uint64_t exposed_transfer_us = 0;
  uint64_t parked_us = 0;  // KV that was there before decode had room
  // From having the KV to the step of the second token, and that step, as decode has said; nothing:
  // it did not.
  std::optional<uint64_t> decode_queue_us, first_step_us;
  uint32_t retries = 0;    // legs served anew after a failure
  uint32_t retargets = 0;  // of these, those whose KV another decode worker read
  uint32_t resumes = 0;    // of these and of the preempted, those that went on in mid-answer
  uint32_t preemptions = 0;
  std::string_view stage;  // of one that was cancelled, where it was: see stage_of()
  std::optional<Duration> predicted_ttft, predicted_tpot;  // when it was placed
};

struct Send {
  WorkerId to;
  proto::Frame frame;
};

struct TokenOut {
  RequestId request;
  uint32_t choice = 0;
  proto::TokenEvent event;
};
struct PromptScored {
  RequestId request;
  std::vector<proto::PromptScore> scores;  // of tokens 1 .. prompt-1
};
struct ChoiceEnded {
  RequestId request;
  uint32_t choice = 0;
  ChoiceEnd end;
};
// The last word on a request, whether it went well or not. A cancelled request gets none.
struct RequestEnded {
  RequestId request;
  std::optional<Error> error;
  RequestTrail trail;
  std::optional<Refusal> refusal;  // of its targets; `error` says it too
};
using Output = std::variant<TokenOut, PromptScored, ChoiceEnded, RequestEnded>;

// In the order in which they are to be carried out. Reused: clear() keeps the memory.
struct Actions {
  std::vector<Send> sends;
  std::vector<Output> outputs;
  void clear() {
    sends.clear();
    outputs.clear();
  }
};

}  // namespace baton::router
