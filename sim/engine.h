#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <vector>

#include "common/engine/hash_model.h"
#include "sim/timeline.h"

namespace baton::sim {

// An engine in virtual time, with engine::HashModel for a model.
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
      : layer_time_(layer_time),
        callbacks_(std::move(callbacks)),
        model_(cache, num_slots, {kVocabulary, {}}) {}

  // Steps run one after the other. The batch is the caller's again when on_done has it.
  void submit(engine::StepBatch* batch);

  static std::vector<TokenId> reference_output(const kvcache::KvLayout& layout,
                                               std::span<const TokenId> prompt,
                                               const engine::Sampling& sampling, uint32_t choice);

 private:
  void start();
  void layer_done(uint32_t layer);
  void finish();

  const Duration layer_time_;
  const Callbacks callbacks_;
  engine::HashModel model_;
  std::deque<engine::StepBatch*> queue_;  // the first is running
};

}  // namespace baton::sim
