#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/base/ids.h"
#include "common/base/result.h"
#include "common/device/device.h"
#include "common/engine/sampler_slots.h"
#include "common/engine/step.h"
#include "common/model/model.h"
#include "common/ops/ops.h"

namespace baton::engine {

// What one step's pass is to give: scored rows and drawn tokens. Planned before the pass, enqueued
// behind it, taken when the device is done. Used by the engine's thread; allocates nothing once the
// batch's vectors have their size.
class StepOutputs {
 public:
  // Everything referred to outlives this. kResourceExhausted.
  static result<StepOutputs> create(model::Model& model, device::Device& device,
                                    const ops::Ops& ops, const StepLimits& limits);

  // Outputs are the scored rows of each sequence, then one for each sample.
  void plan(const StepBatch& batch);
  std::span<const model::OutputRows> rows() const { return rows_; }

  // Enqueues head, scores and draws. `drawn` [slots] gets each slot's token on the device; null:
  // nobody asks for it there.
  void enqueue(device::Stream& stream, StepBatch& batch, SamplerSlots& slots, TokenId* drawn);

  // All of it has been done: into the batch and the slots.
  void take(StepBatch& batch, SamplerSlots& slots);

 private:
  // Where the outputs of one sequence of the batch are.
  struct Outputs {
    uint32_t first_score = 0;  // output of its first scored row
    uint32_t num_scores = 0;
    uint32_t num_samples = 0;
  };

  uint32_t add(uint32_t sequence, uint32_t first_row, uint32_t count);
  void score(device::Stream& stream, const StepBatch& batch, const device::Tensor& logits,
             uint32_t first, uint32_t count);
  void sample(device::Stream& stream, const StepBatch& batch, SamplerSlots& slots, TokenId* drawn,
              const device::Tensor& logits, uint32_t first, uint32_t count);

  model::Model* model_ = nullptr;
  const ops::Ops* ops_ = nullptr;
  uint32_t max_samples_ = 0;
  uint32_t num_outputs_ = 0;
  std::vector<model::OutputRows> rows_;
  std::vector<Outputs> outputs_;         // one for each sequence
  std::vector<uint32_t> sample_output_;  // output that each sample is drawn from
  std::vector<ops::SampleRow> sample_rows_;
  std::vector<uint32_t> sample_index_;     // of sample_rows_ in the batch
  std::vector<SamplerSlots::Draw> draws_;  // of sample_rows_
  // Where the device writes results and reads what it scores.
  device::Buffer memory_;
  std::span<ops::SampleResult> sample_results_;  // of sample_rows_
  std::span<ops::SampleResult> score_results_;   // by output
  std::span<TokenId> score_tokens_;              // by output
};

}  // namespace baton::engine
