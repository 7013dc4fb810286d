#include "tests/router/dispatch/world.h"

#include <fmt/format.h>

#include <algorithm>

namespace baton::router {
namespace {

constexpr TokenId kEnd = 99;

uint64_t mix(uint64_t x) {
  x ^= x >> 31;
  x *= 0x9e3779b97f4a7c15ULL;
  return x ^ (x >> 29);
}

}  // namespace

DispatchWorld::DispatchWorld(uint64_t seed, Chances chances)
    : random_(seed), chances_(chances), dispatcher_(RequestId(1), {.max_queued = 50}) {
  for (int i = 0; i < 3; ++i) join();
}

TokenId DispatchWorld::draw(uint64_t seed, uint32_t choice, uint32_t index) {
  const uint64_t h = mix(seed ^ mix((uint64_t{choice} << 32) | index));
  return h % 20 == 0 ? kEnd : static_cast<TokenId>(h % 90);
}

std::optional<proto::FinishReason> DispatchWorld::end_of(const proto::RequestSpec& spec,
                                                         TokenId token, uint32_t index) {
  if (token == kEnd) return proto::FINISH_STOP;
  if (index + 1 >= spec.max_tokens()) return proto::FINISH_LENGTH;
  return std::nullopt;
}

void DispatchWorld::wrong(std::string what) {
  if (trouble_.empty()) trouble_ = std::move(what);
}

// --- time and chance -----------------------------------------------------------------------------

void DispatchWorld::run(uint32_t steps) {
  for (uint32_t i = 0; i < steps && trouble_.empty(); ++i) one_step();
}

void DispatchWorld::settle() {
  chances_ = {.submit = 0,
              .cancel = 0,
              .stop = 0,
              .die = 0,
              .join = 0,
              .refuse = 0,
              .fail = 0,
              .preempt = 0};
  for (const proto::Role role : {proto::ROLE_MIXED, proto::ROLE_PREFILL, proto::ROLE_DECODE}) {
    (void)role;
    join();
  }
  for (int i = 0; i < 400'000 && trouble_.empty(); ++i) {
    bool quiet = dispatcher_.idle();
    for (const SimWorker& w : workers_) quiet = quiet && w.to_router.empty() && w.to_worker.empty();
    if (quiet) break;
    one_step();
  }
  if (!dispatcher_.idle()) return wrong("requests never ended");
  if (dispatcher_.num_legs() > 0 || dispatcher_.num_queued() > 0) wrong("legs were left behind");
  if (!clients_.empty()) wrong("a client never heard the end");
  for (const auto& [id, worker] : dispatcher_.pool().workers()) {
    const uint64_t of_answers = worker.placed_tokens + worker.placed_output + worker.placed_stay;
    if (worker.placed_sequences + worker.reserving + worker.placed_prompt_tokens + of_answers > 0) {
      wrong("a worker's counts were left behind");
    }
  }
  for (const SimWorker& w : workers_) {
    if (w.reserved.size() + w.sequences.size() + w.prompts.size() > 0) {
      wrong(fmt::format("worker {} was left with {} reservations, {} sequences, {} prompts",
                        w.id.value, w.reserved.size(), w.sequences.size(), w.prompts.size()));
    }
  }
}

void DispatchWorld::one_step() {
  now_ += microseconds(random_() % 2000);
  if (chance(chances_.submit)) submit();
  if (chance(chances_.cancel)) cancel_some();
  if (chance(chances_.stop)) stop_some();
  if (chance(chances_.join) && workers_.size() < 8) join();
  if (chance(chances_.die) && !workers_.empty()) die(random_() % workers_.size());
  if (chance(50)) dispatcher_.tick(now_, actions_);
  carry_out();
  if (workers_.empty()) return;
  SimWorker& worker = workers_[random_() % workers_.size()];
  switch (random_() % 3) {
    case 0: {
      if (worker.to_router.empty()) break;
      proto::Frame frame = std::move(worker.to_router.front());
      worker.to_router.pop_front();
      dispatcher_.on_frame(worker.id, std::move(frame), now_, actions_);
      carry_out();
      break;
    }
    case 1: {
      if (worker.to_worker.empty()) break;
      proto::Frame frame = std::move(worker.to_worker.front());
      worker.to_worker.pop_front();
      receive(worker, std::move(frame));
      break;
    }
    default:
      worker_step(worker);
  }
}

// --- workers come and go -------------------------------------------------------------------------

void DispatchWorld::join() {
  constexpr proto::Role kRoles[] = {proto::ROLE_PREFILL, proto::ROLE_DECODE, proto::ROLE_MIXED};
  SimWorker worker{WorkerId(next_worker_), kRoles[next_worker_ % 3]};
  ++next_worker_;
  proto::WorkerHello hello;
  hello.set_protocol_min(1);
  hello.set_protocol_max(1);
  hello.set_worker(worker.id.value);
  hello.set_name(fmt::format("w{}", worker.id.value));
  hello.set_role(worker.role);
  hello.set_model("m");
  hello.set_block_tokens(16);
  hello.set_total_blocks(100);
  hello.set_max_context(1000);
  hello.set_max_sequences(6);
  hello.set_vocab_size(100);
  workers_.push_back(std::move(worker));
  if (!dispatcher_.worker_joined(hello, "host:1", now_, actions_)) wrong("a hello was refused");
  carry_out();
}

void DispatchWorld::die(size_t index) {
  const WorkerId id = workers_[index].id;
  workers_.erase(workers_.begin() + static_cast<long>(index));
  dispatcher_.worker_lost(id, now_, actions_);
  carry_out();
}

// --- clients -------------------------------------------------------------------------------------

void DispatchWorld::submit() {
  Client client;
  client.seed = random_();
  client.max_tokens = 1 + random_() % 12;
  client.choices = random_() % 4 == 0 ? 1 + random_() % 4 : 1;
  client.wants_scores = chance(chances_.scores);
  client.tokens.resize(client.choices);
  client.ended.resize(client.choices);
  client.stopped.resize(client.choices);
  RequestInput input;
  input.model = "m";
  input.prompt.assign(1 + random_() % 20, 5);
  input.max_tokens = client.max_tokens;
  input.choices = client.choices;
  input.sampling.set_seed(client.seed);
  input.prompt_logprobs = client.wants_scores ? 0 : -1;
  input.end_tokens = {kEnd};
  input.deadline = now_ + seconds(20);
  const auto id = dispatcher_.submit(std::move(input), now_, actions_);
  if (id) clients_[*id] = std::move(client);
  carry_out();
}

void DispatchWorld::cancel_some() {
  if (clients_.empty()) return;
  auto it = std::next(clients_.begin(), static_cast<long>(random_() % clients_.size()));
  const RequestId id = it->first;
  if (!dispatcher_.cancel(id, now_, actions_)) wrong("a running request could not be cancelled");
  gone_.insert(clients_.extract(it));
  carry_out();
}

void DispatchWorld::stop_some() {
  if (clients_.empty()) return;
  auto& [id, client] = *std::next(clients_.begin(), static_cast<long>(random_() % clients_.size()));
  const uint32_t choice = static_cast<uint32_t>(random_() % client.choices);
  if (client.ended[choice] || client.tokens[choice].empty()) return;
  if (client.wants_scores && !client.got_scores) return;
  client.ended[choice] = client.stopped[choice] = true;
  dispatcher_.stop_choice(id, choice, now_, actions_);
  carry_out();
}

// --- what comes out ------------------------------------------------------------------------------

void DispatchWorld::carry_out() {
  for (Send& send : actions_.sends) {
    const auto it = std::ranges::find(workers_, send.to, &SimWorker::id);
    if (it == workers_.end()) {
      wrong("a frame went to a worker that is gone");
    } else {
      it->to_worker.push_back(std::move(send.frame));
    }
  }
  for (Output& output : actions_.outputs) hear(output);
  actions_.clear();
}

void DispatchWorld::hear(Output& output) {
  const RequestId id = std::visit([](const auto& o) { return o.request; }, output);
  if (!clients_.contains(id)) return wrong(gone_.contains(id) ? "heard after the end" : "unknown");
  Client& client = clients_[id];
  if (const auto* token = std::get_if<TokenOut>(&output)) {
    hear_token(*token);
  } else if (std::get_if<PromptScored>(&output)) {
    if (!client.wants_scores || client.got_scores) wrong("scores that nobody asked for, or twice");
    client.got_scores = true;
  } else if (const auto* choice = std::get_if<ChoiceEnded>(&output)) {
    if (client.ended[choice->choice]) wrong("a choice ended twice");
    client.ended[choice->choice] = true;
    const auto& tokens = client.tokens[choice->choice];
    const bool stop = choice->end.reason == proto::FINISH_STOP;
    if (stop != (!tokens.empty() && tokens.back() == kEnd)) wrong("ended for the wrong reason");
    if (!stop && tokens.size() != client.max_tokens) wrong("ended by length too early");
  } else if (const auto* end = std::get_if<RequestEnded>(&output)) {
    hear_end(*end);
  }
}

void DispatchWorld::hear_token(const TokenOut& token) {
  Client& client = clients_[token.request];
  auto& tokens = client.tokens[token.choice];
  if (client.ended[token.choice]) wrong("a token after its choice's end");
  if (token.event.index() != tokens.size()) wrong("a token out of order");
  if (token.event.token() != draw(client.seed, token.choice, token.event.index())) {
    wrong("a wrong token");
  }
  tokens.push_back(token.event.token());
}

void DispatchWorld::hear_end(const RequestEnded& end) {
  const Client& client = clients_[end.request];
  retries_ += end.trail.retries;
  resumes_ += end.trail.resumes;
  if (end.error) {
    ++ended_badly_;
  } else {
    ++ended_well_;
    if (std::ranges::count(client.ended, false) > 0) wrong("ended well without all its choices");
    if (client.wants_scores && !client.got_scores) wrong("ended well without its scores");
  }
  gone_.insert(clients_.extract(end.request));
}

// --- workers -------------------------------------------------------------------------------------

void DispatchWorld::receive(SimWorker& worker, proto::Frame&& frame) {
  if (frame.has_peers()) {
    worker.peers.clear();
    for (const auto& peer : frame.peers().prefill()) worker.peers.push_back(peer.worker());
    say_load(worker);
  } else if (frame.has_reserve()) {
    const proto::RequestSpec& spec = frame.reserve().spec();
    proto::Frame out;
    auto& reply = *out.mutable_reserve_reply();
    reply.set_request(spec.request());
    reply.set_generation(spec.generation());
    reply.set_granted(!chance(chances_.refuse));
    if (reply.granted()) worker.reserved[{spec.request(), spec.generation()}] = spec;
    worker.to_router.push_back(std::move(out));
  } else if (frame.has_submit()) {
    worker.prompts.push_back({std::move(*frame.mutable_submit())});
  } else if (frame.has_cancel()) {
    const proto::Cancel& cancel = frame.cancel();
    const auto of = [&](const proto::RequestSpec& spec) {
      return spec.request() == cancel.request() && spec.generation() == cancel.generation();
    };
    std::erase_if(worker.sequences, [&](const Sequence& s) {
      return of(s.spec) && (!cancel.one_choice() || s.choice == cancel.choice());
    });
    if (cancel.one_choice()) return;
    worker.reserved.erase({cancel.request(), cancel.generation()});
    std::erase_if(worker.prompts, [&](const Prompt& p) { return of(p.submit.spec()); });
  }
}

void DispatchWorld::worker_step(SimWorker& worker) {
  if (!worker.prompts.empty() && random_() % 2 == 0) return compute(worker);
  if (!worker.sequences.empty()) return decode(worker);
  if (chance(50)) say_load(worker);
}

void DispatchWorld::compute(SimWorker& worker) {
  const proto::Submit submit = worker.prompts.front().submit;
  worker.prompts.pop_front();
  const proto::RequestSpec& spec = submit.spec();
  if (chance(chances_.fail)) {
    proto::Frame out;
    auto& failed = *out.mutable_failed();
    failed.set_request(spec.request());
    failed.set_generation(spec.generation());
    const bool full = random_() % 2 == 0;
    failed.set_code(static_cast<uint32_t>(full ? Errc::kResourceExhausted : Errc::kInternal));
    failed.set_retryable(true);
    worker.to_router.push_back(std::move(out));
    return;
  }
  const auto first = static_cast<uint32_t>(spec.tokens_size()) - spec.prompt_tokens();
  std::vector<uint32_t> going_on;
  std::vector<std::pair<uint32_t, proto::FinishReason>> over;
  const bool scores_first = random_() % 2 == 0;
  const auto say_done = [&] {
    proto::Frame out;
    auto& done = *out.mutable_prefill_done();
    done.set_request(spec.request());
    done.set_generation(spec.generation());
    for (uint32_t i = 1; submit.prompt_logprobs() >= 0 && i < spec.prompt_tokens(); ++i) {
      done.add_prompt_scores();
    }
    worker.to_router.push_back(std::move(out));
  };
  if (scores_first) say_done();
  for (uint32_t c = spec.first_choice(); c < spec.first_choice() + spec.choices(); ++c) {
    const TokenId token = draw(spec.sampling().seed(), c, first);
    say_token(worker, spec, c, first, token);
    if (const auto end = end_of(spec, token, first)) {
      over.emplace_back(c, *end);
    } else {
      going_on.push_back(c);
    }
  }
  for (const auto& [c, reason] : over) say_finished(worker, spec, c, first + 1, reason);
  if (!scores_first) say_done();
  if (submit.sink() == 0) {
    for (const uint32_t c : going_on) worker.sequences.push_back({spec, c, first + 1});
  } else if (!going_on.empty()) {
    join_decode(submit, going_on);
  }
}

void DispatchWorld::join_decode(const proto::Submit& submit, const std::vector<uint32_t>& choices) {
  const proto::RequestSpec& spec = submit.spec();
  const auto it = std::ranges::find(workers_, WorkerId(submit.sink()), &SimWorker::id);
  if (it == workers_.end()) return;
  if (it->reserved.erase({spec.request(), spec.generation()}) == 0) return;
  const auto first = static_cast<uint32_t>(spec.tokens_size()) - spec.prompt_tokens();
  for (const uint32_t c : choices) it->sequences.push_back({spec, c, first + 1});
  proto::Frame out;
  out.mutable_handed_off()->set_request(spec.request());
  out.mutable_handed_off()->set_generation(spec.generation());
  it->to_router.push_back(std::move(out));
}

void DispatchWorld::decode(SimWorker& worker) {
  const size_t index = random_() % worker.sequences.size();
  Sequence& sequence = worker.sequences[index];
  const TokenId token = draw(sequence.spec.sampling().seed(), sequence.choice, sequence.next);
  say_token(worker, sequence.spec, sequence.choice, sequence.next, token);
  const auto end = end_of(sequence.spec, token, sequence.next);
  ++sequence.next;
  const bool preempt = !end && chance(chances_.preempt);
  if (end) {
    say_finished(worker, sequence.spec, sequence.choice, sequence.next, *end);
  } else if (preempt) {
    proto::Frame out;
    auto& preempted = *out.mutable_preempted();
    preempted.set_request(sequence.spec.request());
    preempted.set_generation(sequence.spec.generation());
    preempted.set_choice(sequence.choice);
    preempted.set_output_tokens(sequence.next);
    worker.to_router.push_back(std::move(out));
  }
  if (end || preempt) worker.sequences.erase(worker.sequences.begin() + static_cast<long>(index));
}

void DispatchWorld::say_token(SimWorker& worker, const proto::RequestSpec& spec, uint32_t choice,
                              uint32_t index, TokenId token) {
  proto::Frame out;
  auto& event = *out.mutable_tokens()->add_tokens();
  event.set_request(spec.request());
  event.set_generation(spec.generation());
  event.set_choice(choice);
  event.set_index(index);
  event.set_token(token);
  worker.to_router.push_back(std::move(out));
}

void DispatchWorld::say_finished(SimWorker& worker, const proto::RequestSpec& spec, uint32_t choice,
                                 uint32_t tokens, proto::FinishReason reason) {
  proto::Frame out;
  auto& finished = *out.mutable_finished();
  finished.set_request(spec.request());
  finished.set_generation(spec.generation());
  finished.set_choice(choice);
  finished.set_reason(reason);
  finished.set_output_tokens(tokens);
  worker.to_router.push_back(std::move(out));
}

void DispatchWorld::say_load(SimWorker& worker) {
  proto::Frame out;
  auto& load = *out.mutable_load();
  load.set_running(static_cast<uint32_t>(worker.sequences.size()));
  load.set_free_blocks(static_cast<uint32_t>(random_() % 100));
  load.set_total_blocks(100);
  load.set_role(worker.role);
  for (const uint64_t peer : worker.peers) load.add_paired(peer);
  worker.to_router.push_back(std::move(out));
}

}  // namespace baton::router
