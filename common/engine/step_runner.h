#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "common/base/ids.h"
#include "common/base/result.h"
#include "common/device/device.h"
#include "common/engine/sampler_slots.h"
#include "common/engine/step.h"
#include "common/kvcache/kv_cache.h"
#include "common/model/model.h"
#include "common/ops/ops.h"

namespace baton::engine {

// Told while a step runs, on the thread that runs it.
class StepObserver {
 public:
  virtual ~StepObserver() = default;
  // K and V of the batch's rows in `layer` can be read by others, and the digests of the sequences
  // that want them are in the batch. Only for batches that have such a sequence.
  virtual void on_layer(StepBatch& batch, uint32_t layer) = 0;
};

// Runs one step after the other: copies blocks, opens slots, puts the rows together, runs the
// model, scores and samples. Used by one thread. A step allocates nothing once vectors in the batch
// have their size, except where a slot is opened.
class StepRunner final : private model::LayerObserver {
 public:
  // Everything referred to must outlive the runner. kInvalidArgument where the model was loaded for
  // smaller steps than `limits`, or the cache does not have the model's layout.
  static result<std::unique_ptr<StepRunner>> create(model::Model& model,
                                                    const kvcache::KvCache& cache,
                                                    device::Device& device, const ops::Ops& ops,
                                                    const StepLimits& limits);

  // Fills the results in. Returns when the step is done. At most limits.max_slots samples. Token
  // ids, positions and block tables must lie within vocabulary, context and cache: whoever takes a
  // request in checks that, here it is not looked at again.
  void run(StepBatch& batch, StepObserver& observer);

 private:
  // Where the outputs of one sequence of the batch are.
  struct Outputs {
    uint32_t first_score = 0;  // output of its first scored row
    uint32_t num_scores = 0;
    uint32_t num_samples = 0;
  };

  StepRunner(model::Model& model, const kvcache::KvCache& cache, device::Device& device,
             const ops::Ops& ops, const StepLimits& limits);
  status allocate();
  void copy_blocks(const StepBatch& batch);
  void put_together(const StepBatch& batch);
  void plan_outputs(const StepBatch& batch);
  uint32_t add_output(uint32_t sequence, uint32_t first_row, uint32_t count);
  void layer_done(device::Stream& stream, uint32_t layer) override;
  void tell_layer(uint32_t layer);
  void digest(StepSequence& sequence, uint32_t layer);
  void read_out(StepBatch& batch);
  void score(StepBatch& batch, const device::Tensor& logits, uint32_t first, uint32_t count);
  void sample(StepBatch& batch, const device::Tensor& logits, uint32_t first, uint32_t count);
  void take_results(StepBatch& batch);

  model::Model& model_;
  const kvcache::KvCache cache_;
  device::Device& device_;
  const ops::Ops& ops_;
  const StepLimits limits_;
  std::unique_ptr<device::Stream> stream_;
  SamplerSlots slots_;
  // A device that runs behind the host: one a layer.
  std::vector<std::unique_ptr<device::Event>> layer_events_;

  // The step that runs.
  StepBatch* batch_ = nullptr;
  StepObserver* observer_ = nullptr;  // null: nobody reads this batch's layers
  std::vector<TokenId> tokens_;
  std::vector<uint32_t> positions_;
  std::vector<ops::SequenceRows> sequences_;
  std::vector<model::OutputRows> output_rows_;
  uint32_t num_outputs_ = 0;
  std::vector<Outputs> outputs_;         // one for each sequence
  std::vector<uint32_t> sample_output_;  // output that each sample is drawn from
  std::vector<ops::SampleRow> sample_rows_;
  std::vector<uint32_t> sample_index_;  // of sample_rows_ in the batch
  // Where the device writes results and reads what it scores.
  device::Buffer results_memory_;
  std::span<ops::SampleResult> sample_results_;  // [max_slots], of the batch's samples
  std::span<ops::SampleResult> score_results_;   // by output
  std::span<TokenId> score_tokens_;              // by output
};

}  // namespace baton::engine
