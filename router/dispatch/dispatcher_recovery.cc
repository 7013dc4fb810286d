// Legs that were refused, failed or preempted: served anew, or resumed behind what was delivered.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/net/protocol.h"
#include "router/dispatch/dispatcher.h"

namespace baton::router {

// For want of room: no fault, no retry counted; the worker is left alone for a while.
void Dispatcher::refuse_leg(Leg& leg, WorkerId by, Duration retry_after, TimePoint now,
                            Actions& actions) {
  ++refusals_;
  if (Worker* worker = pool_.find(by)) {
    TimePoint& until = leg.may_wait ? worker->line_full_until : worker->full_until;
    until = now + std::clamp(retry_after, limits_.min_backoff, limits_.max_backoff);
  }
  if (leg.seeking && by == leg.placement.decode) {  // its KV waits on
    leave_decode(leg, actions);
  } else {
    // While it was served it did not wait.
    const bool served = leg.seeking || leg.state == Leg::State::kRunning;
    if (served) leg.queue_deadline += now - leg.submitted_at;
    cancel_on_workers(leg, std::nullopt, actions);
    release(leg);
    ++leg.generation.value;
  }
  enqueue(leg);
}

// The decode worker is out of it, but another can read what prefill has, or still computes. False:
// there is nothing to read, or it was tried often enough.
bool Dispatcher::seek_sink(Leg& leg, WorkerId lost, TimePoint now, Actions& actions) {
  const Worker* prefill = pool_.find(leg.placement.prefill);
  const bool kept = (leg.seeking || leg.state == Leg::State::kRunning) && !leg.handed_off &&
                    !leg.placement.mixed() && lost != leg.placement.prefill;
  if (!kept || prefill == nullptr || leg.sinks_lost >= limits_.max_retries ||
      prefill->hello.protocol_max() < net::kProtocolRetarget) {
    return false;
  }
  leave_decode(leg, actions);
  if (!std::exchange(leg.seeking, true)) leg.kv_until = now + limits_.keep_kv;
  ++leg.sinks_lost;
  ++request_of(leg).trail.retries;
  leg.avoid = lost;
  enqueue(leg);
  return true;
}

// What runs on a decode or mixed worker that drains goes on elsewhere, behind what was delivered,
// as soon as there is room; what finds none stays as long as that worker does.
void Dispatcher::move_from_draining(TimePoint now, Actions& actions) {
  const auto drains = [](const auto& entry) { return entry.second.load.draining(); };
  if (std::ranges::none_of(pool_.workers(), drains)) return;
  std::vector<RequestId> leaving;
  for (const auto& [id, leg] : legs_) {
    const Worker* decode = pool_.find(leg.placement.decode);
    const bool runs = leg.state == Leg::State::kRunning && decode != nullptr;
    const bool stays = runs && ends_at_first(leg);  // soon
    if (runs && !stays && decode->load.draining()) leaving.push_back(id);
  }
  std::ranges::sort(leaving);
  std::vector<std::pair<std::string, SetId>> full;  // one that is keeps nobody in the others
  for (const RequestId id : leaving) {
    const auto it = legs_.find(id);
    if (it == legs_.end() || request_of(it->second).wants_scores()) continue;
    std::pair where{request_of(it->second).input.model, set_for(it->second)};
    if (std::ranges::find(full, where) != full.end()) continue;
    if (!move_leg(it->second, now, actions)) full.push_back(std::move(where));
    pump(now, actions);
  }
}

// False: nobody has room.
bool Dispatcher::move_leg(Leg& leg, TimePoint now, Actions& actions) {
  const bool kv_at_prefill = !leg.handed_off && !leg.placement.mixed();
  PlacementQuery query = make_query(leg, now);
  query.prefill = kv_at_prefill ? leg.placement.prefill : WorkerId{};
  query.ends_at_first = false;
  if (!placer_.place(pool_, query)) return false;
  if (kv_at_prefill) {
    (void)seek_sink(leg, leg.placement.decode, now, actions);  // or it stays
    return true;
  }
  cancel_on_workers(leg, std::nullopt, actions);
  release(leg);
  restart_leg(leg, now, actions);
  return true;
}

// Off its decode worker, but not off the prefill worker that holds its KV.
void Dispatcher::leave_decode(Leg& leg, Actions& actions) {
  cancel_on(leg.placement.decode, leg, leg.generation, std::nullopt, actions);
  forget_stream(leg);
  leg.placement.decode = {};
  leg.waiting = false;
  leg.state = Leg::State::kQueued;
  ++leg.generation.value;
}

// Nobody had room to read it in time: its blocks are better used otherwise.
void Dispatcher::give_up_kv(Leg& leg, TimePoint now, Actions& actions) {
  cancel_on_workers(leg, std::nullopt, actions);
  release(leg);
  restart_leg(leg, now, actions);
}

void Dispatcher::fail_leg(Leg& leg, WorkerId by, const Error& why, TimePoint now,
                          Actions& actions) {
  cancel_on_workers(leg, std::nullopt, actions);
  release(leg);
  if (leg.retries >= limits_.max_retries) {
    end_request(
        leg.request,
        error(Errc::kUnavailable, fmt::format("the request failed {} times, at last because {}",
                                              leg.retries + 1, why.message)),
        actions);
    return;
  }
  ++leg.retries;
  ++request_of(leg).trail.retries;
  leg.avoid = by;
  restart_leg(leg, now, actions);
}

// Serves a released leg anew: as it was if the client has nothing of it, else choice by choice.
void Dispatcher::restart_leg(Leg& leg, TimePoint now, Actions& actions) {
  RequestState& request = request_of(leg);
  bool whole = true;
  for (uint32_t c = leg.first_choice; c < leg.end_choice(); ++c) {
    if (!leg.has(c)) continue;
    request.choices[c].rewind();
    whole = whole && request.choices[c].delivered().empty() && !request.choices[c].ended();
  }
  if (leg.moved.empty() && (whole || request.wants_scores())) {
    ++leg.generation.value;
    aim_leg(leg, now);
  } else {
    split_leg(leg, now, actions);
  }
}

// Each unfinished choice goes on as a leg of its own.
void Dispatcher::split_leg(Leg& leg, TimePoint now, Actions& actions) {
  const Leg whole = leg;
  const RequestState& request = request_of(leg);
  drop_leg(leg, /*cancel=*/false, actions);
  for (uint32_t c = whole.first_choice; c < whole.end_choice(); ++c) {
    if (whole.has(c) && !request.choices[c].ended()) move_choice(whole, c, now, actions);
  }
  if (request.ended() || request.legs.empty()) {
    std::optional<Error> why;
    if (!request.ended()) why = error(Errc::kUnavailable, "the prompt's scores were lost");
    end_request(whole.request, std::move(why), actions);
  }
}

// The decode worker gave up one choice for want of room; its others go on there.
void Dispatcher::preempt_choice(Leg& leg, uint32_t choice, TimePoint now, Actions& actions) {
  if (leg.num_choices == 1) {
    release(leg);
    restart_leg(leg, now, actions);
    return;
  }
  const RequestId request = leg.request;
  request_of(leg).choices[choice].rewind();
  leg.moved.push_back(choice);
  move_choice(leg, choice, now, actions);
  if (leg_ended(leg)) drop_leg(leg, /*cancel=*/false, actions);
  end_if_done(request, actions);
}

// A leg of its own for a choice that `from` no longer serves.
void Dispatcher::move_choice(const Leg& from, uint32_t choice, TimePoint now, Actions& actions) {
  if (end_unspoken(from.request, choice, actions)) return;
  const uint32_t retries = from.retries, sinks_lost = from.sinks_lost,
                 preemptions = from.preemptions;
  const WorkerId avoid = from.avoid;
  Leg& leg = new_leg(request_of(from), from.request, RequestId(next_id_++));
  leg.first_choice = choice;
  leg.retries = retries;
  leg.sinks_lost = sinks_lost;
  leg.preemptions = preemptions;
  leg.avoid = avoid;
  aim_leg(leg, now);
}

// Into the queue, to go on behind what the client has. Where it still waits for the prompt's
// scores, the choice is drawn again from its start instead, and what the client has is dropped as
// double.
void Dispatcher::aim_leg(Leg& leg, TimePoint now) {
  RequestState& request = request_of(leg);
  leg.tokens.clear();
  if (leg.num_choices == 1 && !request.wants_scores()) {
    leg.tokens = request.choices[leg.first_choice].delivered();
  }
  if (!leg.tokens.empty()) ++request.trail.resumes;
  leg.queue_deadline = now + limits_.queue_timeout;
  enqueue(leg);
}

// A lost worker may have sent a choice's last token and not its end: then that is the end.
bool Dispatcher::end_unspoken(RequestId id, uint32_t choice, Actions& actions) {
  const RequestInput& input = requests_.at(id).input;
  ChoiceStream& stream = requests_.at(id).choices[choice];
  const std::vector<TokenId>& tokens = stream.delivered();
  if (tokens.empty()) return false;
  const auto length = static_cast<uint32_t>(tokens.size());
  const bool may_stop = length > input.sampling.min_tokens();
  if (may_stop && std::ranges::find(input.end_tokens, tokens.back()) != input.end_tokens.end()) {
    stream.finish({proto::FINISH_STOP, tokens.back()}, length);
  } else if (length >= input.max_tokens) {
    stream.finish({proto::FINISH_LENGTH, -1}, length);
  }
  if (!stream.ended()) return false;
  actions.outputs.push_back(ChoiceEnded{id, choice, *stream.end()});
  return true;
}

// Decode has the KV, and the router all that prefill had to say.
bool Dispatcher::prefill_is_over(const Leg& leg) const {
  if (!leg.handed_off) return false;
  const RequestState& request = request_of(leg);
  for (uint32_t c = leg.first_choice; c < leg.end_choice(); ++c) {
    const ChoiceStream& choice = request.choices[c];
    if (leg.has(c) && !choice.ended() && choice.delivered().size() <= leg.tokens.size()) {
      return false;
    }
  }
  return !request.wants_scores();
}

}  // namespace baton::router
