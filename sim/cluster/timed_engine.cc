#include "sim/cluster/timed_engine.h"

#include <cassert>

#include "common/engine/batch_work.h"

namespace baton::sim {

using engine::StepBatch;

void TimedEngine::submit(StepBatch* batch) {
  queue_.push_back(batch);
  if (queue_.size() == 1) start();
}

void TimedEngine::start() {
  StepBatch& batch = *queue_.front();
  const bool digested = begin(batch);
  batch.duration = times_.of(engine::work_of(batch));
  for (uint32_t layer = 0; digested && layer + 1 < num_layers_; ++layer) {
    if (!batch.is_told(layer)) continue;
    callbacks_.process.later(batch.duration * (layer + 1) / num_layers_,
                             [this, layer] { callbacks_.on_layer(*queue_.front(), layer); });
  }
  callbacks_.process.later(batch.duration, [this, digested] {
    if (digested) callbacks_.on_layer(*queue_.front(), num_layers_ - 1);
    finish();
  });
}

// True if there is a sequence to digest.
bool TimedEngine::begin(StepBatch& batch) {
  for (const engine::SlotOpen& open : batch.opens) {
    slots_.at(open.slot.value) = {static_cast<uint32_t>(open.tokens.size()) - open.prompt_tokens,
                                  output_length_(open.params.seed)};
  }
  bool digested = false;
  for (engine::StepSequence& s : batch.sequences) {
    if (!s.digest) continue;
    digested = true;
    const uint32_t blocks =
        (s.position + s.num_rows - 1) / block_tokens_ - s.position / block_tokens_ + 1;
    s.digests.assign(size_t{num_layers_} * blocks, 0);
  }
  return digested;
}

void TimedEngine::finish() {
  StepBatch& batch = *queue_.front();
  for (engine::StepSample& sample : batch.samples) {
    Slot& slot = slots_[sample.slot.value];
    sample.result.token = ++slot.drawn >= slot.length ? kEos : kToken;
    sample.result.num_top = 0;
  }
  queue_.pop_front();
  if (!queue_.empty()) start();
  callbacks_.on_done(batch);
}

}  // namespace baton::sim
