#include "common/engine/engine.h"

#include <pthread.h>

#include <algorithm>
#include <cassert>

namespace baton::engine {

result<std::unique_ptr<Engine>> Engine::create(model::Model& model, const kvcache::KvCache& cache,
                                               device::Device& device, const ops::Ops& ops,
                                               const StepLimits& limits, uint32_t depth) {
  assert(depth == 1 || depth == 2);
  BATON_TRY(auto runner, StepRunner::create(model, cache, device, ops, limits));
  // A batch has one event a layer and one at its end.
  BATON_TRY(auto events, EventQueue::create(depth * (model.config().num_layers + 1)));
  return std::unique_ptr<Engine>(new Engine(std::move(runner), std::move(events), depth));
}

Engine::Engine(std::unique_ptr<StepRunner> runner, std::unique_ptr<EventQueue> events,
               uint32_t depth)
    : runner_(std::move(runner)), events_(std::move(events)), depth_(depth) {
  waiting_.reserve(depth);
  thread_ = std::thread([this] { loop(); });
  pthread_setname_np(thread_.native_handle(), "baton-engine");
}

Engine::~Engine() { stop(); }

bool Engine::submit(StepBatch* batch) {
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

bool Engine::poll(EngineEvent& event) {
  if (!events_->pop(event)) return false;
  if (event.kind == EngineEvent::Kind::kStepDone) --in_flight_;
  return true;
}

void Engine::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

std::optional<Duration> Engine::running_for(TimePoint now) const {
  const Clock::rep since = running_since_.load(std::memory_order_relaxed);
  if (since == 0) return std::nullopt;
  return std::max(now - TimePoint(Duration(since)), Duration::zero());
}

void Engine::loop() {
  while (StepBatch* batch = next()) run(*batch);
}

// Blocks until there is a batch; null when stopped.
StepBatch* Engine::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
  if (stop_) return nullptr;
  StepBatch* batch = waiting_.front();
  waiting_.erase(waiting_.begin());
  return batch;
}

void Engine::run(StepBatch& batch) {
  const TimePoint start = Clock::now();
  running_since_.store(start.time_since_epoch().count(), std::memory_order_relaxed);
  runner_->run(batch, *this);
  batch.duration = Clock::now() - start;
  running_since_.store(0, std::memory_order_relaxed);
  steps_done_.fetch_add(1, std::memory_order_relaxed);
  events_->push({.kind = EngineEvent::Kind::kStepDone, .batch = &batch});
}

void Engine::on_layer(StepBatch& batch, uint32_t layer) {
  events_->push({.kind = EngineEvent::Kind::kLayerDone, .layer = layer, .batch = &batch});
}

}  // namespace baton::engine
