#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <vector>

#include "common/engine/request.h"
#include "common/engine/step.h"
#include "common/kvcache/kv_cache.h"
#include "sim/timeline.h"

namespace baton::sim {

// An engine without a model, in virtual time. It writes real bytes into the cache, layer by layer:
// each vector depends on all tokens up to its own, and so does what is drawn, by every byte that
// the block table names. A wrong, stale, missing or torn byte is a wrong token. What is right is
// said by reference_output(), without any cache.
class Engine {
 public:
  static constexpr TokenId kVocabulary = 40;
  static constexpr TokenId kEos = 0;

  struct Callbacks {
    std::function<void(const engine::StepBatch&, uint32_t layer)> on_layer;  // of digested ones
    std::function<void(engine::StepBatch&)> on_done;
    // Runs it at that time, or when the process is awake again.
    std::function<void(Duration after, Timeline::Event)> later;
  };

  Engine(const kvcache::KvCache& cache, uint32_t num_slots, Duration layer_time,
         Callbacks callbacks)
      : cache_(cache),
        layer_time_(layer_time),
        callbacks_(std::move(callbacks)),
        slots_(num_slots) {}

  // Steps run one after the other. The batch is the caller's again when on_done has it.
  void submit(engine::StepBatch* batch);

  static std::vector<TokenId> reference_output(const kvcache::KvLayout& layout,
                                               std::span<const TokenId> prompt,
                                               const engine::Sampling& sampling, uint32_t choice);

 private:
  void start();
  void layer_done(uint32_t layer);
  void write_layer(engine::StepSequence& s, uint32_t layer);
  void digest_layer(engine::StepSequence& s, uint32_t layer);
  void finish();
  void draw(const engine::StepBatch& batch, engine::StepSample& sample);
  uint64_t& word(const engine::StepSequence& s, uint32_t position, uint32_t layer, uint32_t plane,
                 uint32_t head) const;

  const kvcache::KvCache cache_;
  const Duration layer_time_;
  const Callbacks callbacks_;
  std::vector<engine::SlotOpen> slots_;   // [slot]
  std::deque<engine::StepBatch*> queue_;  // the first is running
};

}  // namespace baton::sim
