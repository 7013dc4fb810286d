#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/engine/event_queue.h"
#include "common/engine/step_engine.h"

namespace baton::engine {

// The side of an engine that its owner sees: a queue to a thread that runs the steps, and the
// events that come back. What the thread does is the derived class's, which calls begin_thread()
// last in its constructor and stop() first in its destructor.
class ThreadedEngine : public StepEngine {
 public:
  ThreadedEngine(const ThreadedEngine&) = delete;
  ThreadedEngine& operator=(const ThreadedEngine&) = delete;

  bool submit(StepBatch* batch) final;
  bool poll(EngineEvent& event) final;
  int event_fd() const final { return events_->fd(); }
  void stop() final;
  const status& failure() const final { return failure_; }
  uint64_t steps_done() const final { return steps_done_.load(std::memory_order_relaxed); }
  std::optional<Duration> running_for(TimePoint now) const final;

 protected:
  // `depth`: batches in flight, 1 or 2 (one runs, one waits).
  ThreadedEngine(std::unique_ptr<EventQueue> events, uint32_t depth);
  void begin_thread(const char* name, std::function<void()> loop);

  // Of the engine's thread.
  StepBatch* take_oldest();  // of waiting_, which has one; with mutex_ held
  void set_running(std::optional<TimePoint> since);
  void tell_layer(StepBatch& batch, uint32_t layer);
  void tell_done(StepBatch& batch);
  void tell_failed(const Error& why);  // the engine stops

  const uint32_t depth_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<StepBatch*> waiting_;  // at most depth_, oldest first
  bool stop_ = false;

 private:
  const std::unique_ptr<EventQueue> events_;
  uint32_t in_flight_ = 0;  // the owner's thread
  status failure_;          // written before the event that tells of it
  std::atomic<uint64_t> steps_done_{0};
  std::atomic<Clock::rep> running_since_{0};  // of Clock's epoch; 0: nothing runs
  std::thread thread_;
};

}  // namespace baton::engine
