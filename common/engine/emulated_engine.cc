#include "common/engine/emulated_engine.h"

#include <pthread.h>
#include <sys/prctl.h>

#include <algorithm>
#include <cassert>
#include <utility>

#include "common/engine/batch_work.h"
#include "common/latency/step_model.h"

namespace baton::engine {
namespace {

// Enough that a hand-off has layers to announce while others are computed.
constexpr uint32_t kLayers = 4;
// A step that should have been done so long ago was not late for a moment: its process did not run.
// What was missed is not made up for.
constexpr Duration kMostCatchUp = milliseconds(20);

}  // namespace

kvcache::KvLayout EmulatedEngine::layout(uint32_t block_tokens) {
  return kvcache::KvLayout::full_kv(kLayers, 1, HashModel::kVectorBytes / size_bytes(DType::kBF16),
                                    DType::kBF16, block_tokens);
}

result<std::unique_ptr<EmulatedEngine>> EmulatedEngine::create(const kvcache::KvCache& cache,
                                                               const StepLimits& limits,
                                                               const latency::StepCosts& costs,
                                                               HashModel::Vocabulary vocabulary,
                                                               uint32_t depth) {
  assert(depth == 1 || depth == 2);
  BATON_TRY(auto events, EventQueue::create(depth * (cache.layout().num_layers() + 1)));
  return std::unique_ptr<EmulatedEngine>(new EmulatedEngine(
      HashModel(cache, limits.max_slots, std::move(vocabulary)), costs, std::move(events), depth));
}

EmulatedEngine::EmulatedEngine(HashModel model, const latency::StepCosts& costs,
                               std::unique_ptr<EventQueue> events, uint32_t depth)
    : model_(std::move(model)), costs_(costs), events_(std::move(events)), depth_(depth) {
  waiting_.reserve(depth);
  thread_ = std::thread([this] { loop(); });
  pthread_setname_np(thread_.native_handle(), "baton-emulated");
}

EmulatedEngine::~EmulatedEngine() { stop(); }

bool EmulatedEngine::submit(StepBatch* batch) {
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

bool EmulatedEngine::poll(EngineEvent& event) {
  if (!events_->pop(event)) return false;
  if (event.kind == EngineEvent::Kind::kStepDone) --in_flight_;
  return true;
}

void EmulatedEngine::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

std::optional<Duration> EmulatedEngine::running_for(TimePoint now) const {
  const Clock::rep since = running_since_.load(std::memory_order_relaxed);
  if (since == 0) return std::nullopt;
  return std::max(now - TimePoint(Duration(since)), Duration::zero());
}

// --- the engine's thread -------------------------------------------------------------------------

void EmulatedEngine::loop() {
  prctl(PR_SET_TIMERSLACK, 1000);  // ns; by default a sleep may be 50 us too long
  while (StepBatch* batch = next()) run(*batch);
}

// Null when stopped.
StepBatch* EmulatedEngine::next() {
  std::unique_lock lock(mutex_);
  waited_ = !waiting_.empty();
  changed_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
  if (stop_) return nullptr;
  StepBatch* batch = waiting_.front();
  waiting_.erase(waiting_.begin());
  return batch;
}

void EmulatedEngine::run(StepBatch& batch) {
  const TimePoint now = Clock::now();
  // A device goes from one step to the next that waits; that we woke up late does not show.
  const bool follows = waited_ && now - due_ < kMostCatchUp;
  const TimePoint begin = follows ? due_ : now;
  const TimePoint since = follows ? told_done_ : now;
  running_since_.store(now.time_since_epoch().count(), std::memory_order_relaxed);
  const Duration takes = latency::step_time(costs_, work_of(batch));
  due_ = begin + takes;

  model_.begin(batch);
  const uint32_t layers = model_.num_layers();
  for (uint32_t layer = 0; layer < layers; ++layer) {
    if (!model_.write_layer(batch, layer)) continue;  // nobody waits for it
    const auto& told = batch.told_layers;
    if (!told.empty() && !std::ranges::binary_search(told, layer)) continue;
    std::this_thread::sleep_until(begin + takes * (layer + 1) / layers);
    events_->push({.kind = EngineEvent::Kind::kLayerDone, .layer = layer, .batch = &batch});
  }
  model_.finish(batch);
  std::this_thread::sleep_until(due_);

  told_done_ = Clock::now();
  batch.duration = told_done_ - since;
  running_since_.store(0, std::memory_order_relaxed);
  steps_done_.fetch_add(1, std::memory_order_relaxed);
  events_->push({.kind = EngineEvent::Kind::kStepDone, .batch = &batch});
}

}  // namespace baton::engine
