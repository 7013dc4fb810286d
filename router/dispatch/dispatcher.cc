#include "router/dispatch/dispatcher.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <utility>
#include <variant>

namespace baton::router {
namespace {

// For a worker, or a worker's answer; one that runs has its request's time.
TimePoint waits_until(const Leg& leg) {
  switch (leg.state) {
    case Leg::State::kQueued:
      return leg.seeking ? leg.kv_until : leg.queue_deadline;
    case Leg::State::kReserving:
      return leg.reserve_deadline;
    case Leg::State::kRunning:
      break;
  }
  return TimePoint::max();
}

}  // namespace

Dispatcher::Dispatcher(RequestId first_id, DispatchLimits limits, PlacementOptions placement)
    : limits_(limits),
      next_id_(first_id.value),
      placer_(std::move(placement)),
      lengths_(static_cast<uint32_t>(placer_.options().classes.size())),
      prefixes_(size_t{1} << 17, placer_.options().seed) {}

void Dispatcher::keep_roles(RouterId self, const RoleOptions& options) {
  roles_.emplace(self, options);
}

// --- workers ------------------------------------------------------------------------------------

status Dispatcher::worker_joined(const proto::WorkerHello& hello, std::string address,
                                 TimePoint now, Actions& actions) {
  BATON_CHECK_OK(pool_.add(hello, std::move(address)));
  send_peers(actions);
  pump(now, actions);
  return {};
}

void Dispatcher::worker_lost(WorkerId worker, TimePoint now, Actions& actions) {
  const Worker* lost = pool_.find(worker);
  if (!lost) return;
  const Error why = error(Errc::kUnavailable, fmt::format("the connection to worker '{}' was lost",
                                                          lost->hello.name()));
  std::vector<RequestId> served;
  for (const auto& [id, leg] : legs_) {
    const bool there = leg.placement.prefill == worker || leg.placement.decode == worker;
    if (there && is_placed(leg)) served.push_back(id);
  }
  std::ranges::sort(served);
  pool_.remove(worker);
  prefixes_.forget(worker);
  traffic_.forget(worker);
  peers_sent_.erase(worker);
  for (const RequestId id : served) {
    const auto it = legs_.find(id);
    if (it == legs_.end()) continue;  // its request ended with another leg
    Leg& leg = it->second;
    if (leg.placement.decode != worker && prefill_is_over(leg)) {
      leg.placement.prefill = WorkerId{};
    } else if (leg.placement.decode != worker || !seek_sink(leg, worker, now, actions)) {
      fail_leg(leg, worker, why, now, actions);
    }
  }
  send_peers(actions);
  pump(now, actions);
}

void Dispatcher::send_peers(Actions& actions) {
  for (const auto& [id, decode] : pool_.workers()) {
    if (decode.role != proto::ROLE_DECODE && !decode.auto_role()) continue;
    std::vector<WorkerId> sources;
    proto::Frame frame;
    for (const auto& [other_id, other] : pool_.workers()) {
      if (!should_dial(decode, other)) continue;
      sources.push_back(other_id);
      proto::Peers::Peer& peer = *frame.mutable_peers()->add_prefill();
      peer.set_worker(other_id.value);
      peer.set_address(other.address);
    }
    std::vector<WorkerId>& sent = peers_sent_[id];
    if (sent == sources) continue;
    sent = std::move(sources);
    frame.mutable_peers();  // an empty list is a message too
    actions.sends.push_back({id, std::move(frame)});
  }
}

// --- requests -----------------------------------------------------------------------------------

size_t Dispatcher::num_queued() const {
  size_t queued = 0;
  for (const auto& [model, queue] : queues_) queued += queue.size();
  return queued;
}

std::map<std::string, ModelLoad> Dispatcher::loads() const {
  std::map<std::string, ModelLoad> loads;
  for (const auto& [id, request] : requests_) {
    const bool waits = std::ranges::all_of(
        request.legs, [&](RequestId leg) { return legs_.at(leg).state == Leg::State::kQueued; });
    ModelLoad& load = loads[request.input.model];
    ++(waits ? load.waiting : load.running);
  }
  return loads;
}

result<RequestId> Dispatcher::submit(RequestInput input, TimePoint now, Actions& actions) {
  if (!pool_.capacity(input.model)) {
    return error(Errc::kUnavailable,
                 fmt::format("no worker serves the model '{}' yet", input.model));
  }
  if (num_queued() >= limits_.max_queued) {
    return error(Errc::kResourceExhausted,
                 fmt::format("{} requests are waiting already", limits_.max_queued));
  }
  const RequestId id(next_id_++);
  RequestState& request = requests_[id];
  request.input = std::move(input);
  request.arrival = next_arrival_++;
  request.choices.assign(request.input.choices, ChoiceStream(request.input.max_tokens));
  request.trail.submitted = now;
  note_deadline(request.input.deadline);
  assert(request.input.slo.class_index < placer_.options().classes.size());
  Leg& leg = new_leg(request, id, id);
  leg.num_choices = request.input.choices;
  // Best effort may have to wait for others until it is due.
  const RequestSlo& slo = request.input.slo;
  leg.queue_deadline = (slo.best_effort ? std::max(now, slo.due) : now) + limits_.queue_timeout;
  prefixes_.hash(request.input.salt, request.input.prompt, request.prefix);
  admit(leg, now, actions);
  return id;
}

std::optional<RequestTrail> Dispatcher::cancel(RequestId id, TimePoint now, Actions& actions) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return std::nullopt;
  RequestTrail trail = it->second.trail;
  if (!it->second.legs.empty()) trail.stage = stage_of(legs_.at(it->second.legs.front()));
  drop_legs(it->second, actions);
  requests_.erase(it);
  pump(now, actions);
  return trail;
}

void Dispatcher::stop_choice(RequestId id, uint32_t choice, TimePoint now, Actions& actions) {
  const auto it = requests_.find(id);
  if (it == requests_.end() || choice >= it->second.choices.size()) return;
  RequestState& request = it->second;
  if (request.choices[choice].ended()) return;
  request.choices[choice].close();
  for (const RequestId leg_id : request.legs) {
    Leg& leg = legs_.at(leg_id);
    if (!leg.has(choice)) continue;
    if (leg_ended(leg)) {
      drop_leg(leg, /*cancel=*/true, actions);
    } else {
      cancel_on_workers(leg, choice, actions);
    }
    break;
  }
  end_if_done(id, actions);
  pump(now, actions);
}

void Dispatcher::end_if_done(RequestId id, Actions& actions) {
  if (requests_.at(id).ended()) end_request(id, std::nullopt, actions);
}

void Dispatcher::end_request(RequestId id, std::optional<Error> why, Actions& actions) {
  const auto it = requests_.find(id);
  drop_legs(it->second, actions);
  learn_from(it->second);
  actions.outputs.push_back(RequestEnded{id, std::move(why), std::move(it->second.trail), {}});
  requests_.erase(it);
}

Leg& Dispatcher::new_leg(RequestState& request, RequestId request_id, RequestId id) {
  Leg& leg = legs_[id];
  leg.id = id;
  leg.request = request_id;
  leg.whole = &request;
  request.legs.push_back(id);
  return leg;
}

void Dispatcher::drop_leg(Leg& leg, bool cancel, Actions& actions) {
  if (cancel) cancel_on_workers(leg, std::nullopt, actions);
  unqueue(leg);
  release(leg);
  std::erase(request_of(leg).legs, leg.id);
  const RequestId id = leg.id;
  legs_.erase(id);
}

void Dispatcher::drop_legs(RequestState& request, Actions& actions) {
  while (!request.legs.empty()) drop_leg(legs_.at(request.legs.back()), true, actions);
}

// --- time ---------------------------------------------------------------------------------------

void Dispatcher::tick(TimePoint now, Actions& actions) {
  if (next_deadline_ <= now) {
    next_deadline_ = TimePoint::max();
    end_late_requests(now, actions);
    end_late_legs(now, actions);
  }
  move_from_draining(now, actions);
  pump(now, actions);
  if (roles_) order_roles(now, actions);
}

void Dispatcher::end_late_requests(TimePoint now, Actions& actions) {
  std::vector<RequestId> late;
  for (const auto& [id, request] : requests_) {
    if (request.input.deadline <= now) {
      late.push_back(id);
    } else {
      note_deadline(request.input.deadline);
    }
  }
  for (const RequestId id : late) {
    end_request(id, error(Errc::kDeadlineExceeded, "the request's time is up"), actions);
  }
}

void Dispatcher::end_late_legs(TimePoint now, Actions& actions) {
  std::vector<RequestId> late;
  for (const auto& [id, leg] : legs_) {
    const TimePoint until = waits_until(leg);
    if (until <= now) {
      late.push_back(id);
    } else {
      note_deadline(until);
    }
  }
  for (const RequestId id : late) {
    const auto it = legs_.find(id);
    if (it != legs_.end()) time_out(it->second, now, actions);
  }
}

void Dispatcher::order_roles(TimePoint now, Actions& actions) {
  std::vector<RoleFlip> flips;
  roles_->tick(pool_, now, flips);
  for (const RoleFlip& flip : flips) {
    proto::Frame frame;
    frame.mutable_set_role()->set_role(flip.to);
    actions.sends.push_back({flip.worker, std::move(frame)});
  }
}

void Dispatcher::time_out(Leg& leg, TimePoint now, Actions& actions) {
  if (leg.state == Leg::State::kQueued && leg.seeking) return give_up_kv(leg, now, actions);
  if (leg.state == Leg::State::kQueued) {
    end_request(leg.request, why_unplaced(leg), actions);
    return;
  }
  const WorkerId silent = leg.placement.decode;
  if (seek_sink(leg, silent, now, actions)) return;
  fail_leg(leg, silent, error(Errc::kDeadlineExceeded, "a worker did not answer a reservation"),
           now, actions);
}

}  // namespace baton::router
