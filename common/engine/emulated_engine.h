#pragma once

#include <cstdint>
#include <memory>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/engine/hash_model.h"
#include "common/engine/threaded_engine.h"
#include "common/kvcache/kv_cache.h"
#include "common/latency/profile.h"

namespace baton::engine {

// A device that is not there: a step takes as long as `costs` say (latency::step_time) and computes
// a hash (HashModel). Its thread sleeps meanwhile. What the real engine does stays: the order of
// steps, one of which runs while another waits; layers that are done one after the other, evenly
// over the step, and told as the batch asks; digests; tokens that are drawn at the end.
class EmulatedEngine final : public ThreadedEngine {
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

 private:
  EmulatedEngine(HashModel model, const latency::StepCosts& costs,
                 std::unique_ptr<EventQueue> events, uint32_t depth);
  void loop();
  StepBatch* next();
  void run(StepBatch& batch);

  HashModel model_;
  const latency::StepCosts costs_;

  // The engine's thread.
  TimePoint due_{};        // when the last step was done, or is to be
  bool waited_ = false;    // the next one waited while it ran: it begins right then
  TimePoint told_done_{};  // when the last step's end was told
};

}  // namespace baton::engine
