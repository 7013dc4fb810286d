#include "tests/decode/world.h"

#include <algorithm>

namespace baton::decode {

using engine::StepBatch;
using fakes::FakeEngine;

World::Worker::Worker(const WorldConfig& config)
    : pool(config.pool_blocks),
      hasher({"w", "", "t"}, kBlock),
      digests(config.pool_blocks, kLayers),
      slots(kSlots),
      fake(config.pool_blocks, kBlock, kLayers, kSlots),
      prefill({.limits = {.max_rows = 24,
                          .max_sequences = 12,
                          .max_slots = kSlots,
                          .max_context = kContext},
               .chunk_tokens = config.chunk_tokens},
              {pool, hasher, digests, slots}),
      decode({.limits = {.max_rows = 24,
                         .max_sequences = 12,
                         .max_slots = kSlots,
                         .max_context = kContext},
              .vocab_size = FakeEngine::kVocabulary,
              .watermark_blocks = 1,
              .growth_blocks = 1,
              .preempt_every_n_steps = config.preempt_every_n_steps},
             {pool, hasher, slots}) {}

World::World(const WorldConfig& config) : config_(config), random_(config.seed) {
  workers_.push_back(std::make_unique<Worker>(config));
  if (config.split) workers_.push_back(std::make_unique<Worker>(config));
}

// Prompts share prefixes often, salts sometimes.
void World::submit() {
  engine::Request r;
  r.key = {RouterId{1}, RequestId{next_id_++}, Generation{next_generation_++}};
  const uint32_t tokens = 1 + below(30);
  const uint32_t shared = std::min(tokens, 4 * below(7));
  for (uint32_t i = 0; i < tokens; ++i) r.tokens.push_back(i < shared ? 7 : TokenId(below(3)));
  r.prompt_tokens = tokens;
  r.salt = below(4) == 0 ? "tenant" : "";
  r.sampling.params.seed = below(3);
  r.sampling.max_tokens = 1 + below(20);
  r.sampling.num_choices = below(3) == 0 ? 1 + below(3) : 1;
  if (below(2) == 0) r.sampling.stop_tokens = {TokenId(below(50)), TokenId(below(50))};
  r.arrival = now_;
  r.deadline = now_ + seconds(1000);
  if (config_.disturb && below(8) == 0) r.deadline = now_ + milliseconds(below(60));
  for (uint32_t c = 0; c < r.sampling.num_choices; ++c) {
    choices_[{r.key.request.value, c}].expected =
        FakeEngine::reference_output(r.tokens, r.sampling, c);
  }
  launch(std::move(r));
}

void World::launch(engine::Request request) {
  const RequestKey key = request.key;
  Attempt attempt{.request = request};
  for (uint32_t i = 0; i < request.sampling.num_choices; ++i) {
    attempt.choices.insert(request.sampling.first_choice + i);
  }
  attempts_.emplace(key, std::move(attempt));
  prefill::PrefillRequest prompt{.request = std::move(request), .hand_off = config_.split};
  ASSERT_TRUE(source().prefill.add(std::move(prompt)));
}

// Room is asked for when the prompt has its blocks: whoever is awaited will come.
void World::on(const prefill::Started& started) {
  if (config_.split) try_reserve(attempts_.at(started.key));
}

void World::try_reserve(Attempt& attempt) {
  const uint32_t limit = attempt.request.prompt_tokens + attempt.request.sampling.max_tokens;
  if (attempt.request.num_tokens() + 1 >= limit) return;  // ends with its first token
  if (attempt.waiting) return;
  auto reservation = sink().decode.reserve({.request = attempt.request, .may_wait = below(2) == 0});
  ASSERT_TRUE(reservation) << reservation.error().message;
  if (auto* granted = std::get_if<Granted>(&*reservation)) attempt.granted = std::move(*granted);
  attempt.waiting = std::holds_alternative<Waiting>(*reservation);
}

void World::try_transfers() {
  for (auto it = attempts_.begin(); it != attempts_.end();) {
    Attempt& attempt = (it++)->second;  // transfer may end it
    if (attempt.state != Attempt::kComputed || below(3) == 0) continue;
    if (!attempt.granted) try_reserve(attempt);
    if (attempt.granted) transfer(attempt);
  }
}

void World::transfer(Attempt& attempt) {
  const RequestKey key = attempt.request.key;
  const Granted granted = *attempt.granted;
  ASSERT_EQ(attempt.source.size(), granted.blocks.size());
  for (size_t b = granted.first_lacking_block; b < granted.blocks.size(); ++b) {
    sink().fake.copy_block(source().fake, attempt.source[b], granted.blocks[b]);
  }
  ASSERT_TRUE(source().prefill.release(key));
  attempt.state = Attempt::kDecoding;
  attempt.granted.reset();
  const std::vector<TokenId> first_tokens = attempt.first_tokens;
  ASSERT_TRUE(sink().decode.join(key, first_tokens, events_));
  take(events_);
}

void World::give_up_reservation(Attempt& attempt) {
  if (std::exchange(attempt.waiting, false)) {
    ASSERT_TRUE(sink().decode.cancel(attempt.request.key));
  }
  if (!attempt.granted) return;
  const Granted granted = *attempt.granted;
  attempt.granted.reset();
  ASSERT_TRUE(sink().decode.cancel(attempt.request.key));
  release_quarantine(granted);
}

void World::release_quarantine(const Granted& granted) {
  for (size_t b = granted.first_lacking_block; b < granted.blocks.size(); ++b) {
    sink().pool.release_quarantine(granted.blocks[b]);
  }
}

// The client goes away, whatever the state.
void World::abandon(const RequestKey& key) {
  Attempt& attempt = attempts_.at(key);
  if (attempt.state == Attempt::kDecoding) {
    ASSERT_TRUE(sink().decode.cancel(key));
  } else {
    ASSERT_TRUE(source().prefill.cancel(key));
    give_up_reservation(attempt);
  }
  drop_all(key);
}

void World::drop_choice(const RequestKey& key, uint32_t choice, bool ended) {
  if (ended) choices_.at({key.request.value, choice}).ended = true;
  std::set<uint32_t>& live = attempts_.at(key).choices;
  EXPECT_EQ(live.erase(choice), 1u);
  if (live.empty()) attempts_.erase(key);
}

void World::drop_all(const RequestKey& key) {
  const std::set<uint32_t> live = attempts_.at(key).choices;
  for (const uint32_t choice : live) drop_choice(key, choice, /*ended=*/true);
}

void World::disturb() {
  if (attempts_.empty()) return;
  auto it = attempts_.begin();
  std::advance(it, below(static_cast<uint32_t>(attempts_.size())));
  const RequestKey key = it->first;
  const uint32_t choice = *it->second.choices.begin();
  const bool decoding = it->second.state == Attempt::kDecoding;
  switch (below(3)) {
    case 0:
      abandon(key);
      break;
    case 1:
      if (!decoding) break;
      ASSERT_TRUE(sink().decode.preempt(key, events_));
      break;
    case 2:
      if (!decoding) break;
      ASSERT_TRUE(sink().decode.cancel_choice(key, choice));
      drop_choice(key, choice, /*ended=*/true);
      break;
  }
  take(events_);
}

void World::step() {
  now_ += milliseconds(1 + below(5));
  source().prefill.expire(now_, prefill_events_);
  take(prefill_events_);
  sink().decode.expire(now_, events_);
  take(events_);
  for (const auto& worker : workers_) step_worker(*worker);
  if (config_.split) try_transfers();
  std::vector<engine::Request> again;
  again.swap(relaunch_);
  for (engine::Request& r : again) launch(std::move(r));
}

void World::step_worker(Worker& worker) {
  StepBatch batch;
  if (!worker.idle.empty()) {
    batch = std::move(worker.idle.back());
    worker.idle.pop_back();
  }
  engine::StepBudget budget{.rows = 24, .sequences = 12};
  if (&worker == &sink()) {
    worker.decode.plan(budget, batch, events_);
    worker.decode.admit_waiting(events_);
  }
  if (&worker == &source()) worker.prefill.plan(budget, batch, now_, prefill_events_);
  take(prefill_events_);
  take(events_);
  worker.in_flight.push_back(std::move(batch));
  // Steps compute as late as they may: what is freed too early is overwritten before.
  while (worker.in_flight.size() >= config_.depth) finish_oldest(worker);
}

void World::finish_oldest(Worker& worker) {
  StepBatch batch = std::move(worker.in_flight.front());
  worker.in_flight.pop_front();
  worker.fake.run(batch);
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    worker.prefill.on_layer(batch, layer, prefill_events_);
  }
  worker.prefill.on_step_done(batch, now_, prefill_events_);
  worker.decode.on_step_done(batch, now_, events_);
  take(prefill_events_);
  take(events_);
  batch.clear();
  worker.idle.push_back(std::move(batch));
}

void World::take(prefill::Events& events) {
  prefill::Events now;
  now.swap(events);
  for (const prefill::Event& event : now) std::visit([this](const auto& e) { on(e); }, event);
}
void World::take(Events& events) {
  Events now;
  now.swap(events);
  for (const Event& event : now) std::visit([this](const auto& e) { on(e); }, event);
}

void World::on(const prefill::LayersReady& ready) {
  Attempt& attempt = attempts_.at(ready.key);
  if (ready.layer_end != kLayers) return;
  ASSERT_EQ(attempt.source.size(), ready.first_block) << "a gap in what is announced";
  attempt.source.insert(attempt.source.end(), ready.blocks.begin(), ready.blocks.end());
}

void World::on(const prefill::PromptDone& done) {
  Attempt& attempt = attempts_.at(done.key);
  const engine::Request& request = attempt.request;
  const uint32_t index = request.num_tokens() - request.prompt_tokens;
  bool all_end = true;
  for (const prefill::FirstToken& first : done.first_tokens) {
    attempt.first_tokens.push_back(first.result.token);
    deliver(done.key, first.choice, first.result.token);
    all_end = all_end && finish_of(request.sampling, index, first.result.token);
  }
  if (all_end) {  // needs no decode
    ASSERT_TRUE(source().prefill.release(done.key));
    give_up_reservation(attempt);
    completed_ += attempt.choices.size();
    return drop_all(done.key);
  }
  attempt.state = config_.split ? Attempt::kComputed : Attempt::kDecoding;
  if (config_.split) return;
  auto over = source().prefill.take(done.key);
  ASSERT_TRUE(over);
  ASSERT_TRUE(sink().decode.adopt(std::move(*over), events_));
}

void World::on(const prefill::Expired& expired) {
  give_up_reservation(attempts_.at(expired.key));
  drop_all(expired.key);
}

void World::deliver(const RequestKey& key, uint32_t choice, TokenId token) {
  std::vector<TokenId>& output = outputs_[{key.request.value, choice}];
  const Choice& c = choice_of(key, choice);
  EXPECT_FALSE(c.ended) << "a token after the end";
  ASSERT_LT(output.size(), c.expected.size());
  EXPECT_EQ(token, c.expected[output.size()])
      << "request " << key.request.value << " choice " << choice << " token " << output.size();
  output.push_back(token);
}

void World::on(const Token& token) {
  EXPECT_EQ(token.index, (outputs_[{token.key.request.value, token.choice}].size()));
  deliver(token.key, token.choice, token.result.token);
}

void World::on(const Finished& finished) {
  const auto& output = outputs_[{finished.key.request.value, finished.choice}];
  EXPECT_EQ(finished.output_tokens, output.size());
  EXPECT_EQ(output, choice_of(finished.key, finished.choice).expected);
  ++completed_;
  drop_choice(finished.key, finished.choice, /*ended=*/true);
}

// The router's part: the choice goes on as a request of a higher generation.
void World::on(const Preempted& preempted) {
  ++preempted_;
  EXPECT_EQ(preempted.output, (outputs_[{preempted.key.request.value, preempted.choice}]));
  engine::Request again = attempts_.at(preempted.key).request;
  again.tokens.resize(again.prompt_tokens);
  again.tokens.insert(again.tokens.end(), preempted.output.begin(), preempted.output.end());
  again.key.generation = Generation{next_generation_++};
  again.sampling.num_choices = 1;
  again.sampling.first_choice = preempted.choice;
  relaunch_.push_back(std::move(again));
  drop_choice(preempted.key, preempted.choice, /*ended=*/false);
}

void World::on(const Expired& expired) {
  Attempt& attempt = attempts_.at(expired.key);
  EXPECT_EQ(expired.reserved, attempt.state != Attempt::kDecoding && !attempt.waiting);
  if (expired.reserved) release_quarantine(*attempt.granted);
  if (attempt.state != Attempt::kDecoding) {
    ASSERT_TRUE(source().prefill.cancel(expired.key));
  }
  drop_all(expired.key);
}

// What is computed already is transferred with the others.
void World::on(const Admitted& admitted) {
  Attempt& attempt = attempts_.at(admitted.key);
  EXPECT_TRUE(std::exchange(attempt.waiting, false));
  attempt.granted = admitted.granted;
  ++admitted_;
}

void World::drain() {
  config_.disturb = false;
  for (int i = 0; i < 5000 && !(attempts_.empty() && relaunch_.empty()); ++i) step();
  EXPECT_TRUE(attempts_.empty() && relaunch_.empty()) << "somebody never ends";
  for (const auto& worker : workers_) {
    while (!worker->in_flight.empty()) finish_oldest(*worker);
  }
}

void World::check() const {
  for (const auto& worker : workers_) ASSERT_TRUE(worker->pool.consistent());
}

void World::expect_nothing_held() const {
  for (const auto& worker : workers_) {
    EXPECT_EQ(worker->pool.counts().active, 0u);
    EXPECT_EQ(worker->pool.counts().quarantined, 0u);
    EXPECT_EQ(worker->slots.available(), worker->slots.size());
    const prefill::Snapshot p = worker->prefill.snapshot();
    EXPECT_EQ(p.waiting + p.running + p.held + p.held_blocks + p.queued_tokens, 0u);
    const Snapshot d = worker->decode.snapshot();
    EXPECT_EQ(d.running + d.reserved + d.waiting + d.ending, 0u);
  }
  for (const auto& [id, choice] : choices_) EXPECT_TRUE(choice.ended);
}

}  // namespace baton::decode
