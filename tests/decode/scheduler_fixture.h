#pragma once

#include <gtest/gtest.h>

#include <numeric>
#include <span>
#include <vector>

#include "decode/scheduler.h"
#include "tests/fakes/fake_engine.h"

namespace baton::decode {

using engine::StepBatch;
using fakes::FakeEngine;

inline constexpr uint32_t kBlock = 4;
inline const TimePoint kStart{seconds(100)};

inline RequestKey key(uint64_t id, uint64_t generation = 1) {
  return {RouterId{1}, RequestId{id}, Generation{generation}};
}

inline std::vector<TokenId> prompt_of(uint32_t tokens, TokenId first = 1) {
  std::vector<TokenId> prompt(tokens);
  std::iota(prompt.begin(), prompt.end(), first);
  return prompt;
}

inline DecodeRequest request(uint64_t id, uint32_t tokens, TokenId first = 1) {
  DecodeRequest r;
  r.request.key = key(id);
  r.request.tokens = prompt_of(tokens, first);
  r.request.prompt_tokens = tokens;
  r.request.sampling.max_tokens = 10;
  r.request.arrival = kStart + milliseconds(id);
  return r;
}

class SchedulerTest : public testing::Test {
 protected:
  static constexpr uint32_t kSlots = 6;

  explicit SchedulerTest(uint32_t pool_blocks = 16)
      : pool(pool_blocks), fake(pool_blocks, kBlock, 1, kSlots) {}

  Scheduler make(SchedulerConfig config = {.watermark_blocks = 0, .growth_blocks = 0}) {
    config.limits = {
        .max_rows = 64, .max_sequences = kSlots, .max_slots = kSlots, .max_context = 1000};
    config.vocab_size = FakeEngine::kVocabulary;
    return Scheduler(config, {pool, hasher, slots});
  }

  // What prefill and the transfer do: writes the prompt's KV into `blocks`, returns what is drawn.
  std::vector<TokenId> write_prompt(const engine::Request& r, const std::vector<BlockId>& blocks) {
    StepBatch batch;
    engine::StepSequence& s = batch.add_sequence();
    s.num_rows = r.num_tokens();
    s.tokens = r.tokens;
    s.block_table = blocks;
    fake.run(batch);
    std::vector<TokenId> first;
    for (uint32_t i = 0; i < r.sampling.num_choices; ++i) first.push_back(output(r, i)[0]);
    return first;
  }
  // What is left of the right output of choice i.
  std::vector<TokenId> output(const engine::Request& r, uint32_t i = 0) const {
    auto whole = FakeEngine::reference_output(std::span(r.tokens).first(r.prompt_tokens),
                                              r.sampling, r.sampling.first_choice + i);
    whole.erase(whole.begin(), whole.begin() + (r.num_tokens() - r.prompt_tokens));
    return whole;
  }
  Granted grant(Scheduler& s, const DecodeRequest& r) {
    auto reservation = s.reserve(r);
    EXPECT_TRUE(reservation && std::holds_alternative<Granted>(*reservation));
    return std::get<Granted>(*reservation);
  }
  void start(Scheduler& s, const DecodeRequest& r) {
    const Granted granted = grant(s, r);
    ASSERT_TRUE(s.join(r.request.key, write_prompt(r.request, granted.blocks), events));
  }

  StepBatch plan(Scheduler& s) {
    StepBatch batch;
    engine::StepBudget budget{.rows = 64, .sequences = 64};
    s.plan(budget, batch, events);
    return batch;
  }
  void finish(Scheduler& s, StepBatch& batch) {
    fake.run(batch);
    now += milliseconds(10);
    s.on_step_done(batch, now, events);
  }
  void step(Scheduler& s) {
    StepBatch batch = plan(s);
    finish(s, batch);
  }

  template <class T>
  std::vector<T> take() {
    std::vector<T> found;
    for (const Event& e : events) {
      if (const T* t = std::get_if<T>(&e)) found.push_back(*t);
    }
    return found;
  }
  std::vector<TokenId> tokens_of(const RequestKey& of, uint32_t choice = 0) {
    std::vector<TokenId> tokens;
    for (const Token& t : take<Token>()) {
      if (t.key == of && t.choice == choice) tokens.push_back(t.result.token);
    }
    return tokens;
  }
  void expect_nothing_held(Scheduler& s) {
    EXPECT_EQ(pool.counts().active, 0u);
    EXPECT_EQ(pool.counts().quarantined, 0u);
    EXPECT_EQ(slots.available(), slots.size());
    const Snapshot shot = s.snapshot();
    EXPECT_EQ(shot.running + shot.reserved + shot.ending, 0u);
    EXPECT_TRUE(pool.consistent());
  }

  kvcache::BlockPool pool;
  kvcache::PrefixHasher hasher{{"w", "", "t"}, kBlock};
  engine::SlotAllocator slots{kSlots};
  FakeEngine fake;
  TimePoint now = kStart;
  Events events;
};

}  // namespace baton::decode
