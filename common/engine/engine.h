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
#include "common/engine/step_runner.h"

namespace baton::engine {

// StepRunner::warm_up before the first step; by itself none.
struct WarmUp {
  uint32_t max_rows = 0;
  Duration most{0};
};

// Runs steps on a thread of its own, in the order submitted. Its owner plans the next step while
// one runs, and where the device runs behind the host that is enqueued there while one runs;
// sequences whose last token is not known yet are planned by StepSequence::last_of.
//
// Thread: submit(), poll() and stop() belong to one thread, the owner's; none of submit() and
// poll() blocks. With nothing to do the engine's thread sleeps.
class Engine final : private StepObserver {
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
  ~Engine();  // stops
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // The caller keeps the batch, and touches it no more until poll() has given its step_done. False,
  // and nothing done, where `depth` batches are in flight (submitted, their step_done not polled)
  // or the engine has stopped.
  bool submit(StepBatch* batch);

  // The next event, oldest first; false if there is none now.
  //   layer_done: K, V and digests of this layer may be read (batches with a sequence to digest).
  //   step_done: all results are in the batch.
  //   failed: another rank is lost, and the engine has ended; what was in flight has no results.
  bool poll(EngineEvent& event);
  // Readable while poll() may give something; for an event loop. The engine owns it.
  int event_fd() const { return events_->fd(); }

  // Waits for the steps that have begun; one that waits behind them is never run. Events stay to be
  // polled.
  void stop();
  // Why it ended; fine unless poll() gave `failed`. The owner's thread.
  const status& failure() const { return failure_; }

  // From any thread, for liveness: steps done, and for how long the one that runs has been running.
  uint64_t steps_done() const { return steps_done_.load(std::memory_order_relaxed); }
  std::optional<Duration> running_for(TimePoint now) const;

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
