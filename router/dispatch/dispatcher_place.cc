// The queue, admission, and what is remembered of a placement.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "router/dispatch/dispatcher.h"

namespace baton::router {
namespace {

// Of the tokens that were expected: an answer with fewer says little of its steps.
constexpr double kLeastOfExpected = 0.1;

}  // namespace

// --- the queue ----------------------------------------------------------------------------------

Dispatcher::Turn Dispatcher::turn_of(const Leg& leg) const {
  const RequestState& request = request_of(leg);
  return {request.input.slo.due, request.arrival, leg.id};
}

void Dispatcher::enqueue(const Leg& leg) {
  note_deadline(leg.seeking ? leg.kv_until : leg.queue_deadline);
  if (leg.seeking) {
    seeking_.insert(leg.id);
  } else if (const SetId set = bound_to(leg); is_gone(set)) {
    stranded_[set].insert(leg.id);
  } else {
    queues_[request_of(leg).input.model].insert(turn_of(leg));
  }
}

void Dispatcher::fetch_stranded() {
  for (auto it = stranded_.begin(); it != stranded_.end();) {
    if (!pool_.is_there(it->first)) {
      ++it;
      continue;
    }
    for (const RequestId id : it->second) {
      const Leg& leg = legs_.at(id);
      queues_[request_of(leg).input.model].insert(turn_of(leg));
    }
    it = stranded_.erase(it);
  }
}

void Dispatcher::unqueue(const Leg& leg) {
  seeking_.erase(leg.id);
  for (auto& [set, legs] : stranded_) legs.erase(leg.id);
  std::erase_if(stranded_, [](const auto& of_set) { return of_set.second.empty(); });
  const auto it = queues_.find(request_of(leg).input.model);
  if (it == queues_.end()) return;
  it->second.erase(turn_of(leg));
  if (it->second.empty()) queues_.erase(it);
}

// KV that waits holds a prefill worker's blocks: it goes first.
void Dispatcher::pump(TimePoint now, Actions& actions) {
  for (auto it = seeking_.begin(); it != seeking_.end();) {
    const auto here = it++;
    Leg& leg = legs_.at(*here);
    if (try_to_place(leg, now, actions)) seeking_.erase(here);
  }
  pump_queues(now, actions);
}

void Dispatcher::pump_queues(TimePoint now, Actions& actions) {
  fetch_stranded();
  for (auto it = queues_.begin(); it != queues_.end();) {
    auto& [model, queue] = *it;
    pump_queue(model, queue, now, actions);
    it = queue.empty() ? queues_.erase(it) : std::next(it);
  }
}

// Nobody before the first: a request of many choices is not starved by small ones. But what can go
// on in one set only keeps nobody from the others.
void Dispatcher::pump_queue(std::string_view model, std::set<Turn>& queue, TimePoint now,
                            Actions& actions) {
  std::vector<SetId> full;
  for (auto it = queue.begin(); it != queue.end();) {
    const auto here = it++;
    Leg& leg = legs_.at(std::get<RequestId>(*here));
    const SetId set = bound_to(leg);
    if (std::ranges::find(full, set) != full.end()) continue;
    if (is_gone(set)) {
      stranded_[set].insert(leg.id);
      queue.erase(here);
    } else if (try_to_place(leg, now, actions)) {
      queue.erase(here);
    } else if (set != SetId{} && pool_.has_other_set(model, set)) {
      full.push_back(set);
    } else {
      break;
    }
  }
}

// The set that it must be served by, since the client has tokens of it, or another leg serves a
// part of the request there; SetId{}: any.
SetId Dispatcher::bound_to(const Leg& leg) const {
  const RequestState& request = request_of(leg);
  const auto has_begun = [](const ChoiceStream& choice) {
    return choice.ended() || !choice.delivered().empty();
  };
  const auto serves_a_part = [&](RequestId id) { return id != leg.id && is_placed(legs_.at(id)); };
  const bool bound = request.scores_delivered || std::ranges::any_of(request.choices, has_begun) ||
                     std::ranges::any_of(request.legs, serves_a_part);
  return bound ? request.set : SetId{};
}

// KV that waits can be read in its own set only, whatever the client has.
SetId Dispatcher::set_for(const Leg& leg) const {
  const bool kv_waits =
      leg.seeking || (is_placed(leg) && !leg.placement.mixed() && !leg.handed_off);
  const Worker* prefill = kv_waits ? pool_.find(leg.placement.prefill) : nullptr;
  return prefill != nullptr ? prefill->set : bound_to(leg);
}

// Of a leg whose time in the queue is up.
Error Dispatcher::why_unplaced(const Leg& leg) const {
  const std::string& model = request_of(leg).input.model;
  const std::string within = fmt::format("within {:g} s", to_seconds(limits_.queue_timeout));
  const SetId own = bound_to(leg);
  const WorkerSet* set = pool_.find_set(own);
  const bool can_serve = set != nullptr && set->complete;
  if (own != SetId{} && !can_serve && pool_.has_other_set(model, own)) {
    return error(Errc::kUnavailable,
                 fmt::format("the workers that gave the answer so far are gone, and none came "
                             "back {}; those that serve '{}' now would go on with other tokens",
                             within, model));
  }
  if (!pool_.servable(model)) {
    const ModelWorkers& there = pool_.workers_of(model);
    return error(
        Errc::kUnavailable,
        fmt::format("no complete set of workers served the model '{}' {}: there are {} "
                    "prefill and {} decode workers, no two of them a pair, and no mixed one",
                    model, within, there.prefill.size(), there.decode.size()));
  }
  return error(Errc::kResourceExhausted, fmt::format("no worker had room {}", within));
}

// --- choosing -----------------------------------------------------------------------------------

PlacementQuery Dispatcher::make_query(const Leg& leg, TimePoint now) {
  const RequestState& request = request_of(leg);
  const RequestInput& input = request.input;
  const auto delivered = static_cast<uint32_t>(leg.tokens.size());
  const double left =
      lengths_.mean_left(input.slo.class_index, input.prompt.size(), delivered, input.max_tokens);
  prefixes_.find(request.prefix, matches_);
  PlacementQuery query{.model = input.model,
                       .shape = {.tokens = input.prompt.size() + delivered,
                                 .output = std::max(1.0, left),
                                 .choices = leg.num_choices,
                                 .due = input.slo.due},
                       .target = input.slo.target,
                       .received = input.slo.received,
                       .best_effort = input.slo.best_effort,
                       .matches = matches_,
                       .set = set_for(leg),
                       .prefill = leg.seeking ? leg.placement.prefill : WorkerId{},
                       .avoid = leg.avoid,
                       .now = now,
                       .turn = turn_,
                       .ends_at_first = ends_at_first(leg)};
  if (query.received == TimePoint{}) query.received = request.trail.submitted;
  if (input.slo.target.ttft && !input.slo.best_effort) {
    query.shape.promise = query.received + *input.slo.target.ttft;
  }
  return query;
}

// Of the query, only whether it parks is changed.
std::optional<Decision> Dispatcher::choose(Leg& leg, PlacementQuery& query) {
  leg.may_wait = false;
  auto decision = placer_.place(pool_, query);
  if (decision || leg.seeking) return decision;
  leg.may_wait = query.park = true;
  return placer_.place(pool_, query);
}

// What was promised nothing waits while it would break what others were promised, until its time.
bool Dispatcher::must_wait(const Leg& leg, const Decision& decision, TimePoint now) const {
  const RequestSlo& slo = request_of(leg).input.slo;
  const bool fresh = !leg.seeking && leg.tokens.empty() && leg.retries == 0;
  return slo.best_effort && fresh && decision.harmed > 0 && now < slo.due;
}

bool Dispatcher::try_to_place(Leg& leg, TimePoint now, Actions& actions) {
  PlacementQuery query = make_query(leg, now);
  const auto decision = choose(leg, query);
  if (!decision || must_wait(leg, *decision, now)) return false;
  ++turn_;
  start_leg(leg, *decision, now, actions);
  return true;
}

// A new request: placed, or into the queue, or refused.
void Dispatcher::admit(Leg& leg, TimePoint now, Actions& actions) {
  PlacementQuery query = make_query(leg, now);
  if (roles_) note_arrival(leg, now);
  const bool waits = queues_.contains(request_of(leg).input.model);
  auto decision = waits ? std::nullopt : choose(leg, query);
  query.park = false;
  query.ignore_room = !decision;
  const auto expected = decision ? decision : placer_.place(pool_, query);
  if (expected) {
    if (auto refusal = placer_.judge(pool_, query, *expected)) {
      return refuse(leg.request, *std::move(refusal), now, actions);
    }
  }
  if (decision && !must_wait(leg, *decision, now)) {
    ++turn_;
    start_leg(leg, *decision, now, actions);
  } else {
    enqueue(leg);
    pump(now, actions);
  }
}

void Dispatcher::refuse(RequestId id, Refusal refusal, TimePoint now, Actions& actions) {
  if (roles_) roles_->refused(requests_.at(id).input.model, now);
  end_request(id, error(Errc::kResourceExhausted, refusal.message), actions);
  std::get<RequestEnded>(actions.outputs.back()).refusal = std::move(refusal);
}

// Of one whose first token is there and was not passed on. True: it is over.
bool Dispatcher::refuse_at_decode(const Leg& leg, TimePoint now, Actions& actions) {
  if (leg.seeking || leg.retries > 0 || ends_at_first(leg)) return false;
  PlacementQuery query = make_query(leg, now);
  query.target.ttft.reset();
  const Decision decision = placer_.at_decode(pool_, query, leg.placement);
  if (auto refusal = placer_.judge(pool_, query, decision)) {
    refuse(leg.request, *std::move(refusal), now, actions);
    return true;
  }
  if (decision.known) request_of(leg).trail.predicted_tpot = from_seconds(decision.tpot);
  return false;
}

// --- what is remembered -------------------------------------------------------------------------

void Dispatcher::note_placed(Leg& leg, const Decision& decision, TimePoint now) {
  RequestState& request = request_of(leg);
  const RequestSlo& slo = request.input.slo;
  Worker& prefill = *pool_.find(decision.placement.prefill);
  Worker& decode = *pool_.find(decision.placement.decode);
  leg.counted_tokens = (request.input.prompt.size() + leg.tokens.size()) * leg.num_choices;
  const double output =
      lengths_.mean_left(slo.class_index, request.input.prompt.size(),
                         static_cast<uint32_t>(leg.tokens.size()), request.input.max_tokens);
  const auto expected = static_cast<uint64_t>(std::max(1L, std::lround(output)));
  leg.counted_output = expected * leg.num_choices;
  leg.counted_stay = expected * leg.counted_tokens;
  decode.placed_tokens += leg.counted_tokens;
  decode.placed_output += leg.counted_output;
  decode.placed_stay += leg.counted_stay;
  decode.view.streams[slo.class_index] += leg.num_choices;
  WorkerPool::refresh_view(decode);
  if (leg.seeking) return;
  leg.thought_cached = decision.matched;
  const TimePoint promise = slo.target.ttft && !slo.best_effort && leg.tokens.empty()
                                ? slo.received + *slo.target.ttft
                                : TimePoint::max();
  prefill.prompts.add(leg.id, slo.due, promise, decision.prompt);
  if (prefill.role != proto::ROLE_PREFILL) {
    // Of others' it tells. If not: they are dealt as many, and place by the same rule.
    const bool told = prefill.of_others.has_value();
    const uint32_t routers = told ? 1 : std::max(1u, prefill.load.num_routers());
    const uint64_t tokens = request.input.prompt.size() + leg.tokens.size();
    const double stall = stall_seconds(prefill.view, tokens, decision.cached);
    note_prompt(prefill.view, stall * routers, now);
    if (decision.tpot > 0) note_stream(prefill.view, output * decision.tpot);
  }
  if (leg.tokens.empty()) prefixes_.add(request.prefix, prefill.id);
  if (decision.known && !request.trail.predicted_ttft) {
    request.trail.predicted_ttft = from_seconds(decision.ttft);
    if (decision.tpot > 0) request.trail.predicted_tpot = from_seconds(decision.tpot);
  }
}

// Takes the leg off its decode worker's counts.
void Dispatcher::forget_stream(const Leg& leg) {
  Worker* decode = pool_.find(leg.placement.decode);
  if (decode == nullptr) return;
  decode->placed_sequences -= leg.num_choices;
  decode->placed_tokens -= leg.counted_tokens;
  decode->placed_output -= leg.counted_output;
  decode->placed_stay -= leg.counted_stay;
  decode->view.streams[request_of(leg).input.slo.class_index] -= leg.num_choices;
  if (leg.state == Leg::State::kReserving) --decode->reserving;
  WorkerPool::refresh_view(*decode);
}

// matches_ are those of this leg.
void Dispatcher::note_arrival(const Leg& leg, TimePoint now) {
  const RequestInput& input = request_of(leg).input;
  uint64_t cached = 0;
  for (const PrefixMap::Match& match : matches_) cached = std::max<uint64_t>(cached, match.tokens);
  const uint64_t prompt = input.prompt.size();
  roles_->arrived(pool_, input.model, prompt - std::min(cached, prompt), prompt, input.slo.target,
                  now);
}

void Dispatcher::note_first_token(RequestState& request, TimePoint now) {
  RequestTrail& trail = request.trail;
  trail.first_token = now;
  const RequestSlo& slo = request.input.slo;
  if (!trail.predicted_ttft || !slo.target.ttft || trail.retries > 0) return;
  const TimePoint received = slo.received != TimePoint{} ? slo.received : trail.submitted;
  placer_.observe_ttft(to_seconds(*trail.predicted_ttft), to_seconds(now - received),
                       to_seconds(*slo.target.ttft));
}

// Only what has ended teaches how long outputs are.
void Dispatcher::learn_from(const RequestState& request) {
  const RequestTrail& trail = request.trail;
  const RequestSlo& slo = request.input.slo;
  const size_t tokens = request.choices[0].delivered().size();
  const bool one = request.choices.size() == 1;  // of several, which was foreseen?
  // Of one that ends much sooner than expected TPOT is its first gap rather than its steps.
  const size_t prompt = request.input.prompt.size();
  const double expected = lengths_.mean(slo.class_index, prompt, request.input.max_tokens);
  const bool tells = static_cast<double>(tokens) >= kLeastOfExpected * expected;
  if (trail.predicted_tpot && slo.target.tpot && trail.retries == 0 && one && tokens > 1 && tells) {
    const double took = to_seconds(trail.last_token - *trail.first_token);
    placer_.observe_tpot(to_seconds(*trail.predicted_tpot), took / static_cast<double>(tokens - 1),
                         to_seconds(*slo.target.tpot));
  }
  for (const ChoiceStream& choice : request.choices) {
    const auto tokens = static_cast<uint32_t>(choice.delivered().size());
    if (tokens == 0) continue;
    const bool own = choice.end() && choice.end()->reason == proto::FINISH_STOP;
    lengths_.observe(request.input.slo.class_index, prompt, tokens,
                     own ? LengthModel::End::kOwn : LengthModel::End::kCut);
  }
}

}  // namespace baton::router
