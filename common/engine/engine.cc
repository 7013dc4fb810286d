#include "common/engine/engine.h"

#include <pthread.h>

#include <algorithm>
#include <cassert>
#include <chrono>

namespace baton::engine {
namespace {

// While a step runs alone. The next one is usually submitted by then.
constexpr std::chrono::microseconds kLookAgain{20};

}  // namespace

result<std::unique_ptr<Engine>> Engine::create(model::Model& model, const KvMemory& kv,
                                               device::Device& device, const ops::Ops& ops,
                                               const StepLimits& limits, uint32_t depth,
                                               RankSteps* ranks, const WarmUp& warm_up) {
  assert(depth == 1 || depth == 2);
  BATON_TRY(auto runner, StepRunner::create(model, kv, device, ops, limits));
  // Of several ranks the others would have to run the same passes.
  if (ranks == nullptr) runner->warm_up(warm_up.max_rows, warm_up.most);
  // A batch has one event a layer and one at its end; one more may end it all.
  BATON_TRY(auto events, EventQueue::create(depth * (model.config().num_layers + 1) + 1));
  return std::unique_ptr<Engine>(
      new Engine(std::move(runner), std::move(events), depth, ranks, model.collective()));
}

Engine::Engine(std::unique_ptr<StepRunner> runner, std::unique_ptr<EventQueue> events,
               uint32_t depth, RankSteps* ranks, const collective::Collective* collective)
    : runner_(std::move(runner)),
      events_(std::move(events)),
      depth_(depth),
      ranks_(ranks),
      collective_(collective) {
  waiting_.reserve(depth);
  running_.reserve(StepRunner::kMaxSteps);
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
  for (;;) {
    StepBatch* batch = nullptr;
    switch (next(&batch)) {
      case Next::kBegin:
        if (!begin(*batch)) return;
        break;
      case Next::kFinish:
        if (!finish()) return;
        break;
      case Next::kStop:
        return;
    }
  }
}

// Blocks until there is something to do. Where one step runs and another could be enqueued behind
// it, it looks for both: the next step must not wait for this one's end.
Engine::Next Engine::next(StepBatch** batch) {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (running_.empty()) changed_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
    if (stop_) return running_.empty() ? Next::kStop : Next::kFinish;
    if (!waiting_.empty()) {
      if (!running_.empty() && !runner_->can_begin(*waiting_.front())) return Next::kFinish;
      *batch = waiting_.front();
      waiting_.erase(waiting_.begin());
      return Next::kBegin;
    }
    if (running_.size() == depth_ || !runner_->has_room()) return Next::kFinish;
    lock.unlock();
    const bool done = runner_->look();
    lock.lock();
    if (stop_ || !waiting_.empty()) continue;
    if (done) return Next::kFinish;
    changed_.wait_for(lock, kLookAgain);
  }
}

// False: the engine has ended.
bool Engine::begin(StepBatch& batch) {
  if (ranks_ != nullptr) {
    if (const status told = ranks_->tell(batch); !told) return fail(told.error());
  }
  if (running_.empty()) {
    oldest_since_ = Clock::now();
    running_since_.store(oldest_since_.time_since_epoch().count(), std::memory_order_relaxed);
  }
  running_.push_back(&batch);
  runner_->begin(batch, *this);
  return true;
}

bool Engine::finish() {
  StepBatch& batch = *running_.front();
  runner_->finish();
  // What was computed without another rank means nothing.
  if (collective_ != nullptr) {
    if (const status all = collective_->health(); !all) return fail(all.error());
  }
  running_.erase(running_.begin());
  const TimePoint now = Clock::now();
  batch.duration = now - oldest_since_;
  oldest_since_ = now;
  running_since_.store(running_.empty() ? 0 : now.time_since_epoch().count(),
                       std::memory_order_relaxed);
  steps_done_.fetch_add(1, std::memory_order_relaxed);
  events_->push({.kind = EngineEvent::Kind::kStepDone, .batch = &batch});
  return true;
}

bool Engine::fail(const Error& why) {
  failure_ = why;
  running_since_.store(0, std::memory_order_relaxed);
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  events_->push({.kind = EngineEvent::Kind::kFailed});
  return false;
}

void Engine::on_layer(StepBatch& batch, uint32_t layer) {
  if (!batch.is_told(layer) || (collective_ != nullptr && !collective_->health())) return;
  events_->push({.kind = EngineEvent::Kind::kLayerDone, .layer = layer, .batch = &batch});
}

}  // namespace baton::engine
