#include "common/engine/emulated_engine.h"

#include <sys/prctl.h>

#include <algorithm>
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
  BATON_TRY(auto events, EventQueue::create(depth * (cache.layout().num_layers() + 1)));
  return std::unique_ptr<EmulatedEngine>(new EmulatedEngine(
      HashModel(cache, limits.max_slots, std::move(vocabulary)), costs, std::move(events), depth));
}

EmulatedEngine::EmulatedEngine(HashModel model, const latency::StepCosts& costs,
                               std::unique_ptr<EventQueue> events, uint32_t depth)
    : ThreadedEngine(std::move(events), depth), model_(std::move(model)), costs_(costs) {
  begin_thread("baton-emulated", [this] { loop(); });
}

EmulatedEngine::~EmulatedEngine() { stop(); }

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
  return stop_ ? nullptr : take_oldest();
}

void EmulatedEngine::run(StepBatch& batch) {
  const TimePoint now = Clock::now();
  // A device goes from one step to the next that waits; that we woke up late does not show.
  const bool follows = waited_ && now - due_ < kMostCatchUp;
  const TimePoint begin = follows ? due_ : now;
  const TimePoint since = follows ? told_done_ : now;
  set_running(now);
  const Duration takes = latency::step_time(costs_, work_of(batch));
  due_ = begin + takes;

  model_.begin(batch);
  const uint32_t layers = model_.num_layers();
  for (uint32_t layer = 0; layer < layers; ++layer) {
    if (!model_.write_layer(batch, layer)) continue;  // nobody waits for it
    const auto& told = batch.told_layers;
    if (!told.empty() && !std::ranges::binary_search(told, layer)) continue;
    std::this_thread::sleep_until(begin + takes * (layer + 1) / layers);
    tell_layer(batch, layer);
  }
  model_.finish(batch);
  std::this_thread::sleep_until(due_);

  told_done_ = Clock::now();
  batch.duration = told_done_ - since;
  set_running(std::nullopt);
  tell_done(batch);
}

}  // namespace baton::engine
