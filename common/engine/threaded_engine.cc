#include "common/engine/threaded_engine.h"

#include <pthread.h>

#include <algorithm>
#include <cassert>
#include <utility>

namespace baton::engine {

ThreadedEngine::ThreadedEngine(std::unique_ptr<EventQueue> events, uint32_t depth)
    : depth_(depth), events_(std::move(events)) {
  assert(depth == 1 || depth == 2);
  waiting_.reserve(depth);
}

void ThreadedEngine::begin_thread(const char* name, std::function<void()> loop) {
  thread_ = std::thread(std::move(loop));
  pthread_setname_np(thread_.native_handle(), name);
}

bool ThreadedEngine::submit(StepBatch* batch) {
  if (in_flight_ == depth_) return false;
  {
    const std::lock_guard lock(mutex_);
    if (stop_) return false;
    waiting_.push_back(batch);
  }
  changed_.notify_one();
  ++in_flight_;
  return true;
}

bool ThreadedEngine::poll(EngineEvent& event) {
  if (!events_->pop(event)) return false;
  if (event.kind == EngineEvent::Kind::kStepDone) --in_flight_;
  return true;
}

void ThreadedEngine::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

std::optional<Duration> ThreadedEngine::running_for(TimePoint now) const {
  const Clock::rep since = running_since_.load(std::memory_order_relaxed);
  if (since == 0) return std::nullopt;
  return std::max(now - TimePoint(Duration(since)), Duration::zero());
}

StepBatch* ThreadedEngine::take_oldest() {
  StepBatch* batch = waiting_.front();
  waiting_.erase(waiting_.begin());
  return batch;
}

void ThreadedEngine::set_running(std::optional<TimePoint> since) {
  running_since_.store(since ? since->time_since_epoch().count() : 0, std::memory_order_relaxed);
}

void ThreadedEngine::tell_layer(StepBatch& batch, uint32_t layer) {
  events_->push({.kind = EngineEvent::Kind::kLayerDone, .layer = layer, .batch = &batch});
}

void ThreadedEngine::tell_done(StepBatch& batch) {
  steps_done_.fetch_add(1, std::memory_order_relaxed);
  events_->push({.kind = EngineEvent::Kind::kStepDone, .batch = &batch});
}

void ThreadedEngine::tell_failed(const Error& why) {
  failure_ = why;
  set_running(std::nullopt);
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  events_->push({.kind = EngineEvent::Kind::kFailed});
}

}  // namespace baton::engine
