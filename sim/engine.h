#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "common/engine/hash_model.h"
#include "sim/virtual_engine.h"

namespace baton::sim {

// An engine in virtual time, with engine::HashModel for a model.
class Engine final : public VirtualEngine {
 public:
  static constexpr TokenId kVocabulary = 40;
  static constexpr TokenId kEos = 0;

  Engine(const kvcache::KvCache& cache, uint32_t num_slots, Duration layer_time,
         const Callbacks& callbacks)
      : layer_time_(layer_time),
        callbacks_(callbacks),
        model_(cache, num_slots, {kVocabulary, {}}) {}

  void submit(engine::StepBatch* batch) override;

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
