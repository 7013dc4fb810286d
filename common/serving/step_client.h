#pragma once

#include <cstdint>

#include "common/base/clock.h"
#include "common/engine/step.h"

namespace baton::serving {

// One source of work for the step loop: the prefill or the decode side of a worker. Called on the
// control thread.
class StepClient {
 public:
  virtual ~StepClient() = default;
  // Appends rows to the batch, within the budget. Steps of earlier calls may still be in flight.
  virtual void plan(engine::StepBudget& budget, engine::StepBatch& batch, TimePoint now) = 0;
  // A layer of a batch in flight is computed; only batches with a sequence to digest tell.
  virtual void on_layer(const engine::StepBatch& batch, uint32_t layer, TimePoint now) = 0;
  virtual void on_done(const engine::StepBatch& batch, TimePoint now) = 0;
};

}  // namespace baton::serving
