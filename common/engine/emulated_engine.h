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
#include "common/engine/hash_model.h"
#include "common/engine/step_engine.h"
#include "common/kvcache/kv_cache.h"
#include "common/latency/profile.h"

namespace baton::engine {

// A device that is not there: a step takes as long as `costs` say (latency::step_time) and computes
// a hash (HashModel). Its thread sleeps meanwhile. What the real engine does stays: the order of
// steps, one of which runs while another waits; layers that are done one after the other, evenly
// over the step, and told as the batch asks; digests; tokens that are drawn at the end.
class EmulatedEngine final : public StepEngine {
 public:
  // The layout that an emulated worker's cache has, whatever the model: little, but of several
  // layers.
  static kvcache::KvLayout layout(uint32_t block_tokens);

  // `depth`: batches in flight, 1 or 2. kIo where the system gives no descriptor.
  static result<std::unique_ptr<EmulatedEngine>> create(const kvcache::KvCache& cache,
                                                        const StepLimits& limits,
                                                        const latency::StepCosts& costs,
                                                        HashModel::Vocabulary vocabulary,
                                                        uint32_t depth = 2);
  ~EmulatedEngine() override;  // stops
  EmulatedEngine(const EmulatedEngine&) = delete;
  EmulatedEngine& operator=(const EmulatedEngine&) = delete;

  bool submit(StepBatch* batch) override;
  bool poll(EngineEvent& event) override;
  int event_fd() const override { return events_->fd(); }
  void stop() override;
  const status& failure() const override { return failure_; }
  uint64_t steps_done() const override { return steps_done_.load(std::memory_order_relaxed); }
  std::optional<Duration> running_for(TimePoint now) const override;

 private:
  EmulatedEngine(HashModel model, const latency::StepCosts& costs,
                 std::unique_ptr<EventQueue> events, uint32_t depth);
  void loop();
  StepBatch* next();
  void run(StepBatch& batch);

  HashModel model_;
  const latency::StepCosts costs_;
  const std::unique_ptr<EventQueue> events_;
  const uint32_t depth_;
  uint32_t in_flight_ = 0;  // the owner's thread
  const status failure_;    // there is no rank to be lost

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<StepBatch*> waiting_;  // at most depth_, oldest first
  bool stop_ = false;

  // The engine's thread.
  TimePoint due_{};        // when the last step was done, or is to be
  bool waited_ = false;    // the next one waited while it ran: it begins right then
  TimePoint told_done_{};  // when the last step's end was told

  std::atomic<uint64_t> steps_done_{0};
  std::atomic<Clock::rep> running_since_{0};  // of Clock's epoch; 0: nothing runs
  std::thread thread_;
};

}  // namespace baton::engine
