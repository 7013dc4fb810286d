#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "sim/cluster/step_times.h"
#include "sim/virtual_engine.h"

namespace baton::sim {

// An engine that only takes its time. Layers are done one after the other, evenly over the step
// (as engine::EmulatedEngine's). It alone knows how long outputs are: a request's seed is asked
// for its length, and the token that completes it is kEos; all others are kToken.
class TimedEngine final : public VirtualEngine {
 public:
  static constexpr TokenId kEos = 0, kToken = 1;
  // Tokens of the output, at least 1, that a seed stands for.
  using OutputLength = std::function<uint32_t(uint64_t seed)>;

  TimedEngine(const kvcache::KvLayout& layout, uint32_t num_slots, StepTimes times,
              OutputLength output_length, const Callbacks& callbacks)
      : num_layers_(layout.num_layers()),
        block_tokens_(layout.block_tokens),
        times_(std::move(times)),
        output_length_(std::move(output_length)),
        callbacks_(callbacks),
        slots_(num_slots) {}

  void submit(engine::StepBatch* batch) override;

 private:
  struct Slot {
    uint32_t drawn = 0, length = 0;
  };

  void start();
  bool begin(engine::StepBatch& batch);
  void finish();

  const uint32_t num_layers_, block_tokens_;
  StepTimes times_;
  const OutputLength output_length_;
  const Callbacks callbacks_;
  std::vector<Slot> slots_;
  std::deque<engine::StepBatch*> queue_;  // the first is running
};

}  // namespace baton::sim
