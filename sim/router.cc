#include "sim/router.h"

#include <fmt/format.h>

#include <utility>
#include <variant>

#include "sim/engine.h"
#include "sim/fault_worker.h"

namespace baton::sim {
namespace {

constexpr Duration kGrace = milliseconds(100);  // of a request behind its deadline

// The server's, five times as fast; queues short enough to be full at times.
// The simulated workers say nothing of their speed: what is drawn is who serves, not how well.
router::PlacementOptions placement() { return {.policy = router::Policy::kLeastLoaded}; }

router::DispatchLimits limits() {
  router::DispatchLimits l;
  l.max_queued = 64;
  l.queue_timeout = seconds(8);
  l.reserve_timeout = milliseconds(400);
  l.max_backoff = milliseconds(200);
  l.keep_kv = seconds(1);
  return l;
}

}  // namespace

void Tally::add(const Tally& o) {
  requests += o.requests;
  answered += o.answered;
  cancelled += o.cancelled;
  errors += o.errors;
  lost_with_router += o.lost_with_router;
  retries += o.retries;
  retargets += o.retargets;
  resumes += o.resumes;
  preemptions += o.preemptions;
  handed_off_bytes += o.handed_off_bytes;
}

Router::Router(RouterId id, uint64_t first_request, Outside& outside, Timeline& timeline,
               ProcessClock clock)
    : RouterProcess(id, RequestId(first_request), limits(), placement(), outside, timeline, clock),
      outside_(outside) {}

void Router::wrong(RequestId request, const std::string& what) {
  outside_.violation(fmt::format("{}, request {}: {}", name(), request.value, what));
}

std::optional<RequestId> Router::submit(const Request& request) {
  ++tally_.requests;
  router::RequestInput input;
  input.model = "m";
  input.prompt = request.prompt;
  input.max_tokens = request.max_tokens;
  input.choices = request.choices;
  input.sampling.set_temperature(1);
  input.sampling.set_top_p(1);
  input.sampling.set_repetition_penalty(1);
  input.sampling.set_seed(request.seed);
  input.end_tokens = {Engine::kEos};
  input.deadline = local_now() + request.deadline;

  Client client;
  client.request = request;
  client.deadline = input.deadline;
  engine::Sampling sampling;
  sampling.params.seed = request.seed;
  sampling.stop_tokens = {Engine::kEos};
  sampling.max_tokens = request.max_tokens;
  for (uint32_t c = 0; c < request.choices; ++c) {
    client.expected.push_back(
        Engine::reference_output(fault_layout(8), request.prompt, sampling, c));
  }
  client.tokens.resize(request.choices);
  client.ended.resize(request.choices);
  client.stopped.resize(request.choices);

  const auto id = dispatch().submit(std::move(input), local_now(), actions());
  if (id) {
    clients_[*id] = std::move(client);
  } else {
    ++tally_.errors;
    if (request.must_be_answered) outside_.violation("refused: " + id.error().message);
  }
  carry_out();
  return id ? std::optional(*id) : std::nullopt;
}

void Router::cancel(RequestId request) {
  if (clients_.erase(request) == 0) return;
  ++tally_.cancelled;
  if (!dispatch().cancel(request, local_now(), actions())) wrong(request, "cannot be cancelled");
  carry_out();
}

void Router::stop_choice(RequestId request, uint32_t choice) {
  const auto it = clients_.find(request);
  if (it == clients_.end() || it->second.ended[choice] || it->second.tokens[choice].empty()) return;
  it->second.ended[choice] = it->second.stopped[choice] = true;
  dispatch().stop_choice(request, choice, local_now(), actions());
  carry_out();
}

void Router::on_frame(WorkerId from, proto::Frame&& frame) {
  if (frame.has_handed_off()) tally_.handed_off_bytes += frame.handed_off().bytes();
  RouterProcess::on_frame(from, std::move(frame));
}

void Router::hear(router::Output& output) {
  const RequestId id = std::visit([](const auto& o) { return o.request; }, output);
  const auto it = clients_.find(id);
  if (it == clients_.end()) return wrong(id, "something is said after its end");
  if (const auto* token = std::get_if<router::TokenOut>(&output)) {
    hear_token(it->second, *token);
  } else if (const auto* ended = std::get_if<router::ChoiceEnded>(&output)) {
    hear_choice(it->second, *ended);
  } else if (const auto* end = std::get_if<router::RequestEnded>(&output)) {
    hear_end(*end);
  } else {
    wrong(id, "scores that nobody asked for");
  }
}

void Router::hear_token(Client& client, const router::TokenOut& out) {
  const uint32_t c = out.choice, index = out.event.index();
  const auto& expected = client.expected[c];
  auto& tokens = client.tokens[c];
  const auto at = fmt::format("choice {}, token {}", c, index);
  if (client.ended[c]) return wrong(out.request, at + " comes after the choice's end");
  if (index < tokens.size()) return wrong(out.request, at + " is delivered twice");
  if (index > tokens.size()) return wrong(out.request, at + " comes too early");
  if (index >= expected.size()) return wrong(out.request, at + " is beyond the output's end");
  if (out.event.token() != expected[index]) {
    return wrong(out.request,
                 fmt::format("{} is {} and must be {}", at, out.event.token(), expected[index]));
  }
  tokens.push_back(out.event.token());
}

void Router::hear_choice(Client& client, const router::ChoiceEnded& ended) {
  const uint32_t c = ended.choice;
  if (client.ended[c]) return wrong(ended.request, fmt::format("choice {} ends twice", c));
  client.ended[c] = true;
  if (client.tokens[c].size() != client.expected[c].size()) {
    return wrong(ended.request, fmt::format("choice {} ends after {} of {} tokens", c,
                                            client.tokens[c].size(), client.expected[c].size()));
  }
  const bool stop = client.tokens[c].back() == Engine::kEos;
  if (stop != (ended.end.reason == proto::FINISH_STOP)) {
    wrong(ended.request, fmt::format("choice {} ends for the wrong reason", c));
  }
}

void Router::hear_end(const router::RequestEnded& end) {
  const auto it = clients_.find(end.request);
  const Client& client = it->second;
  tally_.retries += end.trail.retries;
  tally_.retargets += end.trail.retargets;
  tally_.resumes += end.trail.resumes;
  tally_.preemptions += end.trail.preemptions;
  if (end.error) {
    ++tally_.errors;
    if (client.request.must_be_answered) wrong(end.request, "fails: " + end.error->message);
  } else {
    ++tally_.answered;
    for (const bool ended : client.ended) {
      if (!ended) wrong(end.request, "is answered without one of its choices");
    }
  }
  clients_.erase(it);
}

void Router::check_deadlines() {
  for (const auto& [id, client] : clients_) {
    if (local_now() > client.deadline + kGrace) return wrong(id, "has not ended by its deadline");
  }
}

void Router::check_nothing_is_left() {
  if (!clients_.empty()) wrong(clients_.begin()->first, "has never ended");
  if (dispatcher().num_legs() + dispatcher().num_requests() + dispatcher().num_queued() > 0) {
    outside_.violation(name() + " still holds requests");
  }
  for (const auto& [id, worker] : dispatcher().pool().workers()) {
    if (worker.placed_sequences + worker.reserving + worker.placed_prompt_tokens == 0) continue;
    outside_.violation(fmt::format("{} still counts {} sequences, {} reservations, {} tokens at {}",
                                   name(), worker.placed_sequences, worker.reserving,
                                   worker.placed_prompt_tokens, worker.hello.name()));
  }
}

}  // namespace baton::sim
