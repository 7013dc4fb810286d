#include "router/dispatch/request_state.h"

#include <algorithm>
#include <chrono>

namespace baton::router {

bool Leg::has(uint32_t choice) const {
  return choice >= first_choice && choice < end_choice() &&
         std::ranges::find(moved, choice) == moved.end();
}

std::string_view stage_of(const Leg& leg) {
  if (leg.seeking) return "transfer";
  if (leg.state == Leg::State::kQueued) return "queue";
  if (leg.state == Leg::State::kReserving) return "reserve";
  if (leg.handed_off) return "decode";
  if (!leg.progressed) return "prefill";
  return leg.waiting ? "parked" : "transfer";
}

bool RequestState::ended() const {
  return !wants_scores() &&
         std::ranges::all_of(choices, [](const ChoiceStream& choice) { return choice.ended(); });
}

proto::RequestSpec make_spec(const RequestState& request, const Leg& leg, TimePoint now) {
  const RequestInput& input = request.input;
  proto::RequestSpec spec;
  spec.set_request(leg.id.value);
  spec.set_generation(leg.generation.value);
  spec.mutable_tokens()->Reserve(static_cast<int>(input.prompt.size() + leg.tokens.size()));
  spec.mutable_tokens()->Add(input.prompt.begin(), input.prompt.end());
  spec.mutable_tokens()->Add(leg.tokens.begin(), leg.tokens.end());
  spec.set_prompt_tokens(static_cast<uint32_t>(input.prompt.size()));
  spec.set_max_tokens(input.max_tokens);
  spec.set_choices(leg.num_choices);
  spec.set_first_choice(leg.first_choice);
  *spec.mutable_sampling() = input.sampling;
  spec.set_salt(input.salt);
  spec.set_trace(input.trace);
  spec.set_priority(input.slo.best_effort ? 1 : 0);
  if (input.slo.due != TimePoint{}) {
    const auto due = std::chrono::duration_cast<microseconds>(input.slo.due - now).count();
    spec.set_due_us(due == 0 ? -1 : due);
  }
  const auto left = std::chrono::duration_cast<microseconds>(input.deadline - now).count();
  spec.set_deadline_us(static_cast<uint64_t>(std::max<int64_t>(left, 1)));
  return spec;
}

}  // namespace baton::router
