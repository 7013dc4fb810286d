#include "common/engine/engine.h"

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
  BATON_TRY(auto runner, StepRunner::create(model, kv, device, ops, limits));
  // Of several ranks the others would have to run the same passes.
  if (ranks == nullptr) runner->warm_up(warm_up.max_rows, warm_up.most);
  // A batch has one event a layer and one at its end; one more may end it all.
  BATON_TRY(auto events, EventQueue::create(depth * (model.config().num_layers + 1) + 1));
  return std::unique_ptr<Engine>(
      new Engine(std::move(runner), device, std::move(events), depth, ranks, model.collective()));
}

Engine::Engine(std::unique_ptr<StepRunner> runner, device::Device& device,
               std::unique_ptr<EventQueue> events, uint32_t depth, RankSteps* ranks,
               const collective::Collective* collective)
    : ThreadedEngine(std::move(events), depth),
      runner_(std::move(runner)),
      ranks_(ranks),
      collective_(collective) {
  running_.reserve(StepRunner::kMaxSteps);
  begin_thread("baton-engine", [this, &device] {
    device.enter_thread();
    loop();
  });
}

Engine::~Engine() { stop(); }

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
      *batch = take_oldest();
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
    if (const status told = ranks_->tell(batch); !told) {
      tell_failed(told.error());
      return false;
    }
  }
  if (running_.empty()) {
    oldest_since_ = Clock::now();
    set_running(oldest_since_);
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
    if (const status all = collective_->health(); !all) {
      tell_failed(all.error());
      return false;
    }
  }
  running_.erase(running_.begin());
  const TimePoint now = Clock::now();
  batch.duration = now - oldest_since_;
  oldest_since_ = now;
  set_running(running_.empty() ? std::nullopt : std::optional(now));
  tell_done(batch);
  return true;
}

void Engine::on_layer(StepBatch& batch, uint32_t layer) {
  if (!batch.is_told(layer) || (collective_ != nullptr && !collective_->health())) return;
  tell_layer(batch, layer);
}

}  // namespace baton::engine
