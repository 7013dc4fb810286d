#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "prefill/scheduler.h"
#include "tests/fakes/fake_engine.h"

namespace baton::prefill {

using engine::StepBatch;

inline constexpr uint32_t kBlock = 4;
inline constexpr uint32_t kLayers = 2;
inline const TimePoint kStart{seconds(100)};

inline RequestKey key(uint64_t id, uint64_t generation = 1) {
  return {RouterId{1}, RequestId{id}, Generation{generation}};
}

inline std::vector<TokenId> prompt_of(uint32_t tokens, TokenId first = 1) {
  std::vector<TokenId> prompt(tokens);
  std::iota(prompt.begin(), prompt.end(), first);
  return prompt;
}

inline PrefillRequest request(uint64_t id, uint32_t tokens, TokenId first = 1) {
  PrefillRequest r;
  r.request.key = key(id);
  r.request.tokens = prompt_of(tokens, first);
  r.request.prompt_tokens = tokens;
  r.request.sampling.max_tokens = 10;
  r.request.arrival = kStart;
  return r;
}

class SchedulerTest : public testing::Test {
 protected:
  static constexpr uint32_t kPoolBlocks = 16;
  static constexpr uint32_t kSlots = 6;

  Scheduler make(SchedulerConfig config = {}) {
    config.limits = {.max_rows = 64, .max_sequences = 8, .max_slots = kSlots, .max_context = 1000};
    return Scheduler(config, {pool, hasher, digests, slots});
  }

  StepBatch plan(Scheduler& s, engine::StepBudget budget = {.rows = 64, .sequences = 8}) {
    StepBatch batch;
    s.plan(budget, batch, now, events);
    return batch;
  }
  void finish(Scheduler& s, StepBatch& batch) {
    fake.run(batch);
    for (uint32_t layer = 0; layer < kLayers; ++layer) s.on_layer(batch, layer, events);
    s.on_step_done(batch, now, events);
  }
  StepBatch step(Scheduler& s, engine::StepBudget budget = {.rows = 64, .sequences = 8}) {
    StepBatch batch = plan(s, budget);
    finish(s, batch);
    return batch;
  }

  template <class T>
  std::vector<T> take() {
    std::vector<T> found;
    for (const Event& e : events) {
      if (const T* t = std::get_if<T>(&e)) found.push_back(*t);
    }
    return found;
  }
  // Continues each layer without a gap, with the digests of what was computed.
  void expect_ready(const LayersReady& ready, const RequestKey& of,
                    std::vector<uint32_t>& next_block) {
    const size_t blocks = ready.blocks.size();
    EXPECT_EQ(ready.key, of);
    ASSERT_EQ(ready.digests.size(), blocks * (ready.layer_end - ready.layer_begin));
    const uint64_t* digest = ready.digests.data();
    for (uint32_t layer = ready.layer_begin; layer < ready.layer_end; ++layer) {
      EXPECT_EQ(ready.first_block, next_block[layer]);
      next_block[layer] += static_cast<uint32_t>(blocks);
      for (uint32_t b = 0; b < blocks; ++b) {
        const uint32_t tokens = std::min(kBlock, 10 - (ready.first_block + b) * kBlock);
        EXPECT_EQ(*digest++, fake.digest_of(ready.blocks[b], tokens, layer));
      }
    }
  }
  void expect_nothing_held(Scheduler& s) {
    EXPECT_EQ(pool.counts().active, 0u);
    EXPECT_EQ(slots.available(), slots.size());
    const Snapshot shot = s.snapshot();
    EXPECT_EQ(shot.waiting + shot.running + shot.held + shot.held_blocks + shot.queued_tokens, 0u);
    EXPECT_TRUE(pool.consistent());
  }

  kvcache::BlockPool pool{kPoolBlocks};
  kvcache::PrefixHasher hasher{{"w", "", "t"}, kBlock};
  kvcache::DigestTable digests{kPoolBlocks, kLayers};
  engine::SlotAllocator slots{kSlots};
  fakes::FakeEngine fake{kPoolBlocks, kBlock, kLayers, kSlots};
  TimePoint now = kStart;
  Events events;
};

}  // namespace baton::prefill
