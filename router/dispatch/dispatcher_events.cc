// What workers say about the legs they serve. A worker is believed only about legs that it serves.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>
#include <variant>

#include "router/dispatch/dispatcher.h"

namespace baton::router {
namespace {

// Everything ended at its first token: decode waits for KV that will not come.
bool holds_reservation(const Leg& leg) { return !leg.placement.mixed() && !leg.handed_off; }

void put_out(const Leg& leg, uint32_t choice, proto::TokenEvent&& event, Actions& actions) {
  auto& out = std::get<TokenOut>(actions.outputs.emplace_back(std::in_place_type<TokenOut>));
  out.request = leg.request;
  out.choice = choice;
  out.event = std::move(event);
}

bool is_known(uint32_t code) { return code <= static_cast<uint32_t>(Errc::kInternal); }

}  // namespace

void Dispatcher::on_frame(WorkerId from, proto::Frame&& frame, TimePoint now, Actions& actions) {
  switch (frame.body_case()) {
    case proto::Frame::kTokens:
      // What they belong to lies far apart: memory is waited for once, not for each.
      for (const proto::TokenEvent& event : frame.tokens().tokens()) {
        const auto it = legs_.find(RequestId(event.request()));
        if (it != legs_.end()) __builtin_prefetch(it->second.whole->choices.data());
      }
      for (proto::PrefillDone& done : *frame.mutable_tokens()->mutable_prefill_done()) {
        on_prefill_done(from, std::move(done), actions);
      }
      for (const proto::FirstStep& step : frame.tokens().first_steps()) on_first_step(from, step);
      for (proto::TokenEvent& event : *frame.mutable_tokens()->mutable_tokens()) {
        on_token(from, std::move(event), now, actions);
      }
      break;
    case proto::Frame::kReserveReply:
      on_reserve_reply(from, frame.reserve_reply(), now, actions);
      break;
    case proto::Frame::kPrefillDone:
      on_prefill_done(from, std::move(*frame.mutable_prefill_done()), actions);
      break;
    case proto::Frame::kHandedOff:
      on_handed_off(from, frame.handed_off(), now);
      break;
    case proto::Frame::kFinished:
      on_finished(from, frame.finished(), actions);
      break;
    case proto::Frame::kFailed:
      on_failed(from, frame.failed(), now, actions);
      break;
    case proto::Frame::kSinkLost:
      on_sink_lost(from, frame.sink_lost(), now, actions);
      break;
    case proto::Frame::kPreempted:
      on_preempted(from, frame.preempted(), now, actions);
      break;
    case proto::Frame::kLoad:
      on_load(from, std::move(*frame.mutable_load()), now, actions);
      break;
    default:
      return;
  }
  pump(now, actions);
}

// What a prefill worker says before it hears of a new generation is as good as what it says later:
// the KV is the same. A decode worker is believed about the current one only.
Leg* Dispatcher::find_leg(WorkerId from, uint64_t id, uint64_t generation) {
  const auto it = legs_.find(RequestId(id));
  if (it != legs_.end() && is_placed(it->second)) {
    Leg& leg = it->second;
    const bool newest = generation == leg.generation.value;
    if (from == leg.placement.decode && newest) return &leg;
    const bool known = leg.submitted.value <= generation && generation <= leg.generation.value;
    const bool told = leg.seeking || leg.state == Leg::State::kRunning;
    if (from == leg.placement.prefill && told && known) return &leg;
  }
  ++stale_events_;
  return nullptr;
}

void Dispatcher::on_reserve_reply(WorkerId from, const proto::ReserveReply& reply, TimePoint now,
                                  Actions& actions) {
  Leg* leg = find_leg(from, reply.request(), reply.generation());
  if (!leg || from != leg->placement.decode) return;
  if (leg->state == Leg::State::kRunning) return on_place_in_line(*leg, reply, now, actions);
  if (leg->state != Leg::State::kReserving) return;
  if (reply.granted() || (reply.waiting() && leg->may_wait)) {
    leg->waiting = !reply.granted();
    submit_leg(*leg, now, actions);
  } else {
    constexpr uint64_t kMost = 3'600'000'000;
    const microseconds after(std::min(reply.retry_after_us(), kMost));
    refuse_leg(*leg, from, after, now, actions);
  }
}

// The second reply to one that waited.
void Dispatcher::on_place_in_line(Leg& leg, const proto::ReserveReply& reply, TimePoint now,
                                  Actions& actions) {
  if (!leg.waiting || reply.waiting()) return;
  if (reply.granted()) {
    leg.waiting = false;
    return;
  }
  const WorkerId decode = leg.placement.decode;
  if (seek_sink(leg, decode, now, actions)) return;
  fail_leg(leg, decode, error(Errc::kUnavailable, reply.reason()), now, actions);
}

void Dispatcher::on_token(WorkerId from, proto::TokenEvent&& event, TimePoint now,
                          Actions& actions) {
  Leg* leg = find_leg(from, event.request(), event.generation());
  if (!leg) return;
  const uint32_t c = event.choice();
  RequestState& request = request_of(*leg);
  if (!leg->has(c)) {
    ++stale_events_;
    return;
  }
  leg->progressed = true;
  if (from == leg->placement.decode) leg->handed_off = true;
  if (leg->counted_prompt_tokens > 0) settle_prompt(*leg);
  ChoiceStream& stream = request.choices[c];
  if (stream.ended()) return;
  const bool judged_now = placer_.options().admit_by == AdmitBy::kAtDecode;
  if (judged_now && !request.trail.first_token && refuse_at_decode(*leg, now, actions)) return;
  if (stream.accept_next(event)) {
    note_delivered(request, c, 1, now);
    put_out(*leg, c, std::move(event), actions);
  } else {
    ready_.clear();
    if (!stream.accept(std::move(event), ready_)) ++stale_events_;
    if (!ready_.empty()) note_delivered(request, c, static_cast<uint32_t>(ready_.size()), now);
    for (proto::TokenEvent& token : ready_) put_out(*leg, c, std::move(token), actions);
  }
  if (stream.ended()) choice_ended(*leg, c, actions);
}

void Dispatcher::note_delivered(RequestState& request, uint32_t choice, uint32_t tokens,
                                TimePoint now) {
  RequestTrail& trail = request.trail;
  trail.last_token = now;
  if (roles_) roles_->delivered(request.input.model, tokens, now);
  if (!trail.first_token) note_first_token(request, now);
  if (choice == 0 && !trail.second_token && request.choices[0].delivered().size() > 1) {
    trail.second_token = now;
  }
}

void Dispatcher::on_prefill_done(WorkerId from, proto::PrefillDone&& done, Actions& actions) {
  Leg* leg = find_leg(from, done.request(), done.generation());
  if (!leg || from != leg->placement.prefill) return;
  if (leg->counted_prompt_tokens > 0) settle_prompt(*leg);
  RequestState& request = request_of(*leg);
  if (!request.trail.cached_tokens) {
    request.trail.cached_tokens = std::min<uint32_t>(
        done.cached_tokens(), static_cast<uint32_t>(request.input.prompt.size()));
  }
  if (leg->thought_cached > 0) {
    note_cached(pool_.find(from)->view, leg->thought_cached, done.cached_tokens());
  }
  if (request.trail.resumes == 0) {  // else it is no part of the way to the first token
    request.trail.prefill_queue_us += done.queue_us();
    request.trail.prefill_compute_us += done.compute_us();
  }
  if (!request.wants_scores()) return;
  auto& scores = *done.mutable_prompt_scores();
  const size_t wanted = request.input.prompt.size() - 1;
  if (static_cast<size_t>(scores.size()) != wanted) {
    end_request(leg->request,
                error(Errc::kInternal,
                      fmt::format("a worker scored {} of {} prompt tokens", scores.size(), wanted)),
                actions);
    return;
  }
  request.scores_delivered = true;
  PromptScored out{leg->request, {}};
  out.scores.assign(std::make_move_iterator(scores.begin()), std::make_move_iterator(scores.end()));
  actions.outputs.push_back(std::move(out));
  const RequestId id = leg->request;
  if (leg_ended(*leg)) drop_leg(*leg, holds_reservation(*leg), actions);
  end_if_done(id, actions);
}

void Dispatcher::on_handed_off(WorkerId from, const proto::HandedOff& done, TimePoint now) {
  Leg* leg = find_leg(from, done.request(), done.generation());
  if (!leg || from != leg->placement.decode) return;
  leg->handed_off = true;
  traffic_.add({leg->placement.prefill, from}, done.bytes(), done.exposed_us(), now);
  RequestTrail& trail = request_of(*leg).trail;
  trail.kv_bytes += done.bytes();
  trail.kv_transport = done.transport();
  trail.exposed_transfer_us += done.exposed_us();
  trail.parked_us += done.parked_us();
}

// Of a leg that goes on in mid-answer it is no part of the way to the second token.
void Dispatcher::on_first_step(WorkerId from, const proto::FirstStep& step) {
  Leg* leg = find_leg(from, step.request(), step.generation());
  if (!leg || from != leg->placement.decode) return;
  RequestTrail& trail = request_of(*leg).trail;
  if (trail.second_token) return;
  trail.decode_queue_us = step.queue_us();
  trail.first_step_us = step.step_us();
}

void Dispatcher::on_finished(WorkerId from, const proto::Finished& finished, Actions& actions) {
  Leg* leg = find_leg(from, finished.request(), finished.generation());
  if (!leg || !leg->has(finished.choice())) return;
  ChoiceStream& stream = request_of(*leg).choices[finished.choice()];
  if (stream.ended()) return;
  const bool length = finished.reason() == proto::FINISH_LENGTH;
  stream.finish({length ? proto::FINISH_LENGTH : proto::FINISH_STOP, finished.stop_token()},
                finished.output_tokens());
  if (stream.ended()) choice_ended(*leg, finished.choice(), actions);
}

void Dispatcher::choice_ended(Leg& leg, uint32_t choice, Actions& actions) {
  const RequestId request = leg.request;
  actions.outputs.push_back(ChoiceEnded{request, choice, *request_of(leg).choices[choice].end()});
  if (leg_ended(leg)) drop_leg(leg, holds_reservation(leg), actions);
  end_if_done(request, actions);
}

void Dispatcher::on_failed(WorkerId from, const proto::Failed& failed, TimePoint now,
                           Actions& actions) {
  Leg* leg = find_leg(from, failed.request(), failed.generation());
  if (!leg) return;
  const bool prefill_only = from != leg->placement.decode;
  if (prefill_only && prefill_is_over(*leg)) return;
  const Errc code = is_known(failed.code()) ? static_cast<Errc>(failed.code()) : Errc::kInternal;
  if (!failed.retryable()) {
    end_request(leg->request, error(code, failed.message()), actions);
  } else if (code == Errc::kResourceExhausted && !leg->progressed) {
    refuse_leg(*leg, from, limits_.min_backoff, now, actions);
  } else {
    // The decode worker's trouble, not the KV's.
    const bool kv_lives = code == Errc::kUnavailable || code == Errc::kDeadlineExceeded;
    if (!prefill_only && kv_lives && seek_sink(*leg, from, now, actions)) return;
    // The KV that another was to read is gone; that its reader was lost has been counted.
    const bool retargeted = leg->at_prefill != leg->submitted;
    if (prefill_only && retargeted && code == Errc::kNotFound) {
      return give_up_kv(*leg, now, actions);
    }
    fail_leg(*leg, from, error(code, failed.message()), now, actions);
  }
}

void Dispatcher::on_sink_lost(WorkerId from, const proto::SinkLost& lost, TimePoint now,
                              Actions& actions) {
  Leg* leg = find_leg(from, lost.request(), lost.generation());
  const bool served = leg != nullptr && from == leg->placement.prefill;
  // Another sink is being sought already, or has been told of.
  if (served && (leg->seeking || lost.generation() < leg->at_prefill.value)) return;
  if (!served || leg->handed_off) {  // nobody needs that KV: it must not wait for its time-out
    Leg gone;
    gone.id = RequestId(lost.request());
    return cancel_on(from, gone, Generation(lost.generation()), std::nullopt, actions);
  }
  const WorkerId decode = leg->placement.decode;
  if (seek_sink(*leg, decode, now, actions)) return;
  const Errc code = is_known(lost.code()) ? static_cast<Errc>(lost.code()) : Errc::kInternal;
  fail_leg(*leg, decode, error(code, lost.message()), now, actions);
}

void Dispatcher::on_preempted(WorkerId from, const proto::Preempted& preempted, TimePoint now,
                              Actions& actions) {
  Leg* leg = find_leg(from, preempted.request(), preempted.generation());
  if (!leg || from != leg->placement.decode || !leg->has(preempted.choice())) return;
  RequestState& request = request_of(*leg);
  if (request.choices[preempted.choice()].ended()) return;
  ++request.trail.preemptions;
  if (++leg->preemptions > limits_.max_preemptions) {
    end_request(leg->request,
                error(Errc::kResourceExhausted,
                      fmt::format("the request was preempted {} times", leg->preemptions)),
                actions);
    return;
  }
  preempt_choice(*leg, preempted.choice(), now, actions);
}

void Dispatcher::on_load(WorkerId from, proto::Load&& load, TimePoint now, Actions& actions) {
  const Worker* worker = pool_.find(from);
  if (!worker) return;
  const proto::Role before = worker->role;
  pool_.update(from, std::move(load), now);
  if (worker->role != before) send_peers(actions);
}

}  // namespace baton::router
