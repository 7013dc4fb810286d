#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "common/base/result.h"
#include "common/engine/entry_pool.h"
#include "common/engine/slots.h"
#include "common/engine/step.h"
#include "common/kvcache/block_pool.h"
#include "common/kvcache/digest_table.h"
#include "common/kvcache/prefix.h"
#include "common/latency/step_model.h"
#include "prefill/types.h"

namespace baton::prefill {

// What the schedulers of one worker share. Outlives them.
struct Resources {
  kvcache::BlockPool& pool;
  kvcache::PrefixHasher& hasher;
  kvcache::DigestTable& digests;
  engine::SlotAllocator& slots;
};

// Decides which prompt tokens go into the next step: a pure state machine, one thread, no clock.
// Each call appends what became of requests to `events`.
//
//   waiting -> running -> held -> gone        at any point: cancel, expire (not when held)
//
// A request starts with the blocks of its whole prompt or not at all. Order: by when the first
// token is wanted (earliest due date first), so that nobody waits for ever; a request that does not
// fit makes those behind it wait too. Steps may overlap: plan() may be called before the results of
// earlier steps are in; steps are done in the order of their planning. What a step in flight may
// still write is held until it is done.
class Scheduler {
 public:
  Scheduler(const SchedulerConfig& config, const Resources& resources);

  // kResourceExhausted: the queue is full. kInvalidArgument: it can never be served here, with the
  // reason, or its key is in use.
  status add(PrefillRequest request);

  // Appends chunks to the step. A chunk ends on a block boundary, or with its prompt.
  void plan(engine::StepBudget& budget, engine::StepBatch& batch, TimePoint now, Events& events);

  // Layer `layer` of a step in flight is computed, and all before it; called for each of the
  // batch's told_layers in order, or not at all where nothing is handed off. Others are ignored.
  void on_layer(const engine::StepBatch& batch, uint32_t layer, Events& events);
  void on_step_done(const engine::StepBatch& batch, TimePoint now, Events& events);

  // The end, wherever it stands; no event. kNotFound: no such request.
  status cancel(const RequestKey& key);
  // As cancel, and what its blocks hold from token `first_doubtful` on is forgotten: no other
  // request finds it in the prefix cache.
  status cancel_doubtful(const RequestKey& key, uint32_t first_doubtful);
  // From now on it is known by this key. No such request: nothing.
  void rename(const RequestKey& from, const RequestKey& to);
  // A held request leaves for the decode scheduler of this worker, with its blocks and slots.
  // kNotFound: no held request of this key, or it was computed for another worker.
  result<engine::HandOver> take(const RequestKey& key);
  // A held request's blocks go to the prefix cache.
  status release(const RequestKey& key);
  // Ends what is not computed by its deadline.
  void expire(TimePoint now, Events& events);

  Snapshot snapshot() const;
  // What the prompts that are not computed yet will take, what is in a step included, each alone in
  // steps of chunk_tokens.
  Duration queued_time(const latency::StepCosts& costs) const;

 private:
  enum class State : uint8_t { kWaiting, kRunning, kHeld, kGone };
  struct Entry {
    PrefillRequest request;
    uint64_t serial = 0;  // order of add()
    State state = State::kWaiting;
    std::vector<kvcache::PrefixHash> hashes;  // of the full blocks
    std::vector<BlockId> table;
    std::vector<SlotId> slots;
    std::vector<uint64_t> cached_digests;  // [layer][cached block], if handed off
    uint32_t cached_tokens = 0;
    uint32_t planned = 0;    // tokens in a step, done or in flight
    uint32_t done = 0;       // tokens computed
    uint32_t in_flight = 0;  // steps
    TimePoint started;
    Duration queued{};
    std::vector<ops::SampleResult> scores;
    std::vector<TokenId> first_tokens;  // when held

    const engine::Request& common() const { return request.request; }
    uint32_t size() const { return common().num_tokens(); }
  };

  status check(const PrefillRequest& request) const;
  bool goes_before(uint32_t a, uint32_t b) const;
  bool start(Entry& entry, const engine::StepBudget& budget, TimePoint now, Events& events);
  void match_prefix(Entry& entry);
  void report_cached(Entry& entry, Events& events);
  uint32_t chunk_rows(const Entry& entry, uint32_t room) const;
  void append_chunk(uint32_t index, uint32_t rows, engine::StepBatch& batch);
  void tell_layers(bool last_chunk, engine::StepBatch& batch) const;
  void append_samples(const Entry& entry, uint32_t sequence, engine::StepBatch& batch) const;
  void chunk_done(Entry& entry, const engine::StepSequence& chunk, Events& events);
  void note_digests(const Entry& entry, const engine::StepSequence& chunk);
  void prompt_done(Entry& entry, const engine::StepBatch& batch, uint32_t sequence, TimePoint now,
                   Events& events);
  std::optional<uint32_t> find_held(const RequestKey& key) const;
  void end(uint32_t index);
  void remove(uint32_t index);

  SchedulerConfig config_;
  Resources shared_;
  engine::EntryPool<Entry> entries_;
  std::map<RequestKey, uint32_t> by_key_;  // all but those that are gone
  std::vector<uint32_t> order_;            // those with tokens to plan, by urgency
  uint64_t next_serial_ = 0;
  uint32_t waiting_ = 0;
  uint64_t prompt_tokens_ = 0, cached_tokens_ = 0;  // of all that were started
};

}  // namespace baton::prefill
