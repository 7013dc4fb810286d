// Legs on workers.
#include <utility>

#include "router/dispatch/dispatcher.h"

namespace baton::router {

// Its one token is drawn where its prompt is computed.
bool Dispatcher::ends_at_first(const Leg& leg) const {
  return !leg.seeking && request_of(leg).input.max_tokens <= leg.tokens.size() + 1;
}

void Dispatcher::start_leg(Leg& leg, const Decision& decision, TimePoint now, Actions& actions) {
  RequestState& request = request_of(leg);
  const Placement placement = decision.placement;
  Worker& prefill = *pool_.find(placement.prefill);
  Worker& decode = *pool_.find(placement.decode);
  leg.placement = placement;
  request.set = prefill.set;
  if (!leg.seeking) {
    leg.handed_off = leg.progressed = leg.waiting = false;
    leg.counted_prompt_tokens = request.input.prompt.size() + leg.tokens.size();
    prefill.placed_prompt_tokens += leg.counted_prompt_tokens;
  }
  decode.placed_sequences += leg.num_choices;
  note_placed(leg, decision, now);
  RequestTrail& trail = request.trail;
  if (!trail.placed) trail.placed = now;
  trail.prefill_worker = prefill.hello.name();
  trail.decode_worker = decode.hello.name();
  if (placement.mixed()) {
    submit_leg(leg, now, actions);
    return;
  }
  leg.state = Leg::State::kReserving;
  leg.reserve_deadline = now + limits_.reserve_timeout;
  note_deadline(leg.reserve_deadline);
  ++decode.reserving;
  proto::Frame frame;
  *frame.mutable_reserve()->mutable_spec() = make_spec(request, leg, now);
  frame.mutable_reserve()->set_source(placement.prefill.value);
  frame.mutable_reserve()->set_may_wait(leg.may_wait);
  actions.sends.push_back({placement.decode, std::move(frame)});
  // Asked for all of them, it would decode on what was stopped under an earlier generation.
  for (uint32_t c = leg.first_choice; c < leg.end_choice(); ++c) {
    if (leg.has(c) && !request.choices[c].ended()) continue;
    cancel_on(placement.decode, leg, leg.generation, c, actions);
  }
}

void Dispatcher::submit_leg(Leg& leg, TimePoint now, Actions& actions) {
  RequestState& request = request_of(leg);
  if (leg.state == Leg::State::kReserving) --pool_.find(leg.placement.decode)->reserving;
  leg.state = Leg::State::kRunning;
  if (!request.trail.granted) request.trail.granted = now;
  if (leg.seeking) return retarget_leg(leg, actions);
  leg.submitted = leg.at_prefill = leg.generation;
  leg.submitted_at = now;
  pool_.find(leg.placement.prefill)->prompts.sent(leg.id, now);
  proto::Frame frame;
  proto::Submit& submit = *frame.mutable_submit();
  *submit.mutable_spec() = make_spec(request, leg, now);
  submit.set_sink(leg.placement.mixed() ? 0 : leg.placement.decode.value);
  submit.set_sink_waits(leg.waiting);
  submit.set_prompt_logprobs(request.wants_scores() ? request.input.prompt_logprobs : -1);
  actions.sends.push_back({leg.placement.prefill, std::move(frame)});
}

// The decode worker that has reserved reads what prefill has, under the leg's new generation.
void Dispatcher::retarget_leg(Leg& leg, Actions& actions) {
  proto::Frame frame;
  proto::Retarget& retarget = *frame.mutable_retarget();
  retarget.set_request(leg.id.value);
  retarget.set_generation(leg.at_prefill.value);
  retarget.set_next_generation(leg.generation.value);
  retarget.set_sink(leg.placement.decode.value);
  actions.sends.push_back({leg.placement.prefill, std::move(frame)});
  leg.at_prefill = leg.generation;
  leg.seeking = false;
  ++request_of(leg).trail.retargets;
}

// The prompt is computed, or will not be: it no longer counts as queued.
void Dispatcher::settle_prompt(Leg& leg) {
  if (Worker* prefill = pool_.find(leg.placement.prefill)) {
    prefill->placed_prompt_tokens -= leg.counted_prompt_tokens;
    prefill->prompts.remove(leg.id);
  }
  leg.counted_prompt_tokens = 0;
}

// Takes the leg off its workers' counts (a lost worker has none) and from what seeks a sink.
void Dispatcher::release(Leg& leg) {
  if (!is_placed(leg)) return;
  settle_prompt(leg);
  forget_stream(leg);
  leg.state = Leg::State::kQueued;
  leg.placement = {};
  leg.seeking = false;
  seeking_.erase(leg.id);
}

// `choice`: only that one; nothing: the whole leg.
void Dispatcher::cancel_on_workers(const Leg& leg, std::optional<uint32_t> choice,
                                   Actions& actions) {
  if (!is_placed(leg)) return;
  cancel_on(leg.placement.decode, leg, leg.generation, choice, actions);
  const bool at_prefill = leg.seeking || (leg.state == Leg::State::kRunning && !leg.handed_off);
  if (!at_prefill || leg.placement.mixed()) return;
  cancel_on(leg.placement.prefill, leg, leg.at_prefill, choice, actions);
}

void Dispatcher::cancel_on(WorkerId worker, const Leg& leg, Generation generation,
                           std::optional<uint32_t> choice, Actions& actions) {
  if (!pool_.find(worker)) return;
  proto::Frame frame;
  proto::Cancel& cancel = *frame.mutable_cancel();
  cancel.set_request(leg.id.value);
  cancel.set_generation(generation.value);
  cancel.set_one_choice(choice.has_value());
  cancel.set_choice(choice.value_or(0));
  actions.sends.push_back({worker, std::move(frame)});
}

bool Dispatcher::leg_ended(const Leg& leg) const {
  const RequestState& request = request_of(leg);
  if (request.wants_scores()) return false;
  for (uint32_t c = leg.first_choice; c < leg.end_choice(); ++c) {
    if (leg.has(c) && !request.choices[c].ended()) return false;
  }
  return true;
}

}  // namespace baton::router
