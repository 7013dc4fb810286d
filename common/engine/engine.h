#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/engine/rank_loop.h"
#include "common/engine/step_runner.h"
#include "common/engine/threaded_engine.h"

namespace baton::engine {

// StepRunner::warm_up before the first step; by itself none.
struct WarmUp {
  uint32_t max_rows = 0;
  Duration most{0};
};

// Runs steps of a model on a thread of its own; where the device runs behind the host, a step is
// enqueued there while one runs. With nothing to do the thread sleeps.
class Engine final : public ThreadedEngine, private StepObserver {
 public:
  // `depth`: batches in flight, 1 or 2 (one runs, one waits). `ranks`: those that compute the model
  // with this one, told of each step; null where the model is computed here alone. Everything
  // referred to must outlive the engine. Blocks for the warm-up, which is left out where there are
  // `ranks`. StepRunner's errors; kIo where the system gives no descriptor.
  static result<std::unique_ptr<Engine>> create(model::Model& model, const KvMemory& kv,
                                                device::Device& device, const ops::Ops& ops,
                                                const StepLimits& limits, uint32_t depth = 2,
                                                RankSteps* ranks = nullptr,
                                                const WarmUp& warm_up = {});
  ~Engine() override;  // stops

 private:
  Engine(std::unique_ptr<StepRunner> runner, device::Device& device,
         std::unique_ptr<EventQueue> events, uint32_t depth, RankSteps* ranks,
         const collective::Collective* collective);
  void loop();
  enum class Next { kBegin, kFinish, kStop };
  Next next(StepBatch** batch);
  bool begin(StepBatch& batch);
  bool finish();
  void on_layer(StepBatch& batch, uint32_t layer) override;

  const std::unique_ptr<StepRunner> runner_;
  RankSteps* const ranks_;
  const collective::Collective* const collective_;

  // The engine's thread.
  std::vector<StepBatch*> running_;  // begun and not finished, oldest first
  TimePoint oldest_since_;           // of running_: when it was begun, or the one before finished
};

}  // namespace baton::engine
