#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/engine/event_queue.h"
#include "common/engine/rank_loop.h"
#include "common/engine/step_engine.h"
#include "common/engine/step_runner.h"

namespace baton::engine {

// StepRunner::warm_up before the first step; by itself none.
struct WarmUp {
  uint32_t max_rows = 0;
  Duration most{0};
};

// Runs steps of a model on a thread of its own; where the device runs behind the host, a step is
// enqueued there while one runs. With nothing to do the thread sleeps.
class Engine final : public StepEngine, private StepObserver {
 public:
  // `depth`: batches in flight, 1 or 2 (one runs, one waits). `ranks`: those that compute the model
  // with this one, told of each step; null where the model is computed here alone. Everything
  // referred to must outlive the engine. Blocks for the warm-up, which is left out where there are
  // `ranks`. StepRunner's errors; kIo where the system gives no
  // descriptor.
  static result<std::unique_ptr<Engine>> create(model::Model& model, const KvMemory& kv,
                                                device::Device& device, const ops::Ops& ops,
                                                const StepLimits& limits, uint32_t depth = 2,
                                                RankSteps* ranks = nullptr,
                                                const WarmUp& warm_up = {});
  ~Engine() override;  // stops
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  bool submit(StepBatch* batch) override;
  bool poll(EngineEvent& event) override;
  int event_fd() const override { return events_->fd(); }
  void stop() override;
  const status& failure() const override { return failure_; }
  uint64_t steps_done() const override { return steps_done_.load(std::memory_order_relaxed); }
  std::optional<Duration> running_for(TimePoint now) const override;

 private:
  Engine(std::unique_ptr<StepRunner> runner, std::unique_ptr<EventQueue> events, uint32_t depth,
         RankSteps* ranks, const collective::Collective* collective);
  void loop();
  enum class Next { kBegin, kFinish, kStop };
  Next next(StepBatch** batch);
  bool begin(StepBatch& batch);
  bool finish();
  bool fail(const Error& why);
  void on_layer(StepBatch& batch, uint32_t layer) override;

  const std::unique_ptr<StepRunner> runner_;
  const std::unique_ptr<EventQueue> events_;
  const uint32_t depth_;
  RankSteps* const ranks_;
  const collective::Collective* const collective_;
  uint32_t in_flight_ = 0;  // the owner's thread
  status failure_;          // written before the event that tells of it

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<StepBatch*> waiting_;  // at most depth_, oldest first
  bool stop_ = false;

  std::vector<StepBatch*> running_;  // the engine's thread: begun and not finished, oldest first
  TimePoint oldest_since_;           // of running_: when it was begun, or the one before finished

  std::atomic<uint64_t> steps_done_{0};
  std::atomic<Clock::rep> running_since_{0};  // of Clock's epoch; 0: nothing runs
  std::thread thread_;
};

}  // namespace baton::engine
