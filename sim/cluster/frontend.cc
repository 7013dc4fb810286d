#include "sim/cluster/frontend.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "router/placement/request_slo.h"
#include "sim/cluster/cluster_worker.h"

namespace baton::sim {

// The seed says which request it is: only engines know what output length that stands for. All
// requests ask for as many tokens as the longest answer has, unless lengths are to be known.
void Frontend::submit(uint64_t request) {
  Outcome& outcome = outcomes_[request];
  outcome.scheduled = elapsed();
  outcome.input_tokens = traffic_.input_tokens(request);
  router::RequestInput input;
  input.model = std::string(kClusterModel);
  traffic_.prompt(request, TimedEngine::kToken + 1, kClusterVocabulary - 2, input.prompt);
  input.max_tokens =
      config_.known_lengths ? traffic_.output_tokens(request) : traffic_.longest_output() + 1;
  input.sampling.set_temperature(1);
  input.sampling.set_top_p(1);
  input.sampling.set_repetition_penalty(1);
  input.sampling.set_seed(request);
  input.end_tokens = {TimedEngine::kEos};
  input.deadline = local_now() + config_.deadline;
  input.slo.target = config_.promise;
  input.slo.received = local_now();
  input.slo.due = local_now() + config_.promise.ttft.value_or(router::kDueWithoutTarget);
  const auto id = dispatch().submit(std::move(input), local_now(), actions());
  if (id) {
    ++num_open_;
    ++num_awaited_;
    requests_.resize(id->value - config_.first_request.value + 1);
    requests_.back() = request;
  } else {
    outcome.end = Outcome::End::kRefused;
    outside_.request_ended(*this, request, outcome, id.error().message);
  }
  carry_out();
}

void Frontend::turn_away(uint64_t request) {
  Outcome& outcome = outcomes_[request];
  outcome.scheduled = elapsed();
  outcome.input_tokens = traffic_.input_tokens(request);
  outcome.end = Outcome::End::kRefused;
  outside_.request_ended(*this, request, outcome, "it was turned away");
}

uint64_t Frontend::request_of(RequestId id) const {
  return requests_[id.value - config_.first_request.value];
}

void Frontend::hear(router::Output& output) {
  if (const auto* token = std::get_if<router::TokenOut>(&output)) {
    hear_token(*token);
  } else if (const auto* end = std::get_if<router::RequestEnded>(&output)) {
    hear_end(*end);
  }
}

void Frontend::hear_token(const router::TokenOut& token) {
  Outcome& outcome = outcomes_[request_of(token.request)];
  const Duration now = elapsed();
  if (outcome.tokens++ == 0) {
    outcome.first_token = now;
    --num_awaited_;
  } else {
    outcome.worst_gap = std::max(outcome.worst_gap, now - outcome.last_token);
  }
  outcome.last_token = now;
  ++tokens_;
}

void Frontend::hear_end(const router::RequestEnded& end) {
  const uint64_t request = request_of(end.request);
  Outcome& outcome = outcomes_[request];
  --num_open_;
  num_awaited_ -= outcome.tokens == 0;
  retries_ += end.trail.retries;
  preemptions_ += end.trail.preemptions;
  const bool refused =
      end.error && outcome.tokens == 0 &&  // for want of room, or for its targets
      (end.error->code == Errc::kResourceExhausted || end.error->code == Errc::kInvalidArgument);
  outcome.end = !end.error ? Outcome::End::kAnswered
                : refused  ? Outcome::End::kRefused
                           : Outcome::End::kFailed;
  outside_.request_ended(*this, request, outcome, end.error ? end.error->message : "");
}

}  // namespace baton::sim
